"""Pictures behind addresses: what a client may make the server open, and how far.

Without limits a server that follows addresses is a way into its own network (server-side request forgery). So every
host name is resolved once, all its addresses must be public, the connection goes to the very address that was
checked, and every redirect starts over.
"""

import asyncio
import ipaddress
import socket
from pathlib import Path
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

import httpx

from unimodal_apps.server.errors import ApiError
from unimodal_apps.server.options import ServerOptions
from unimodal_apps.server.pictures import data_bytes

MAX_REDIRECTS = 3
_WITH_IPV4_AT_THE_END = ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96")
_PORTS = {"http": 80, "https": 443}


async def picture_bytes(url: str, name: str, options: ServerOptions) -> bytes:
    """The file behind a `data:`, `http:`, `https:` or `file:` address.

    Args:
        name: what messages call the address.

    Raises:
        ApiError: 400 for an address that is not allowed or leads nowhere, 413 for a file that is too large.
    """
    scheme = url.split(":", 1)[0].lower() if ":" in url else ""
    if scheme == "data":
        return data_bytes(url, name)
    if scheme == "file" and options.picture_folder is not None:
        return await asyncio.to_thread(_local, url, options.picture_folder, name, options.max_body)
    if scheme not in _PORTS or not options.fetch_pictures:
        allowed = ["data:", *([] if not options.fetch_pictures else ["http:", "https:"])]
        raise _refused(name, f"got {url[:40]!r}, allowed are addresses that begin with {', '.join(allowed)}")
    try:
        async with asyncio.timeout(options.fetch_timeout):
            return await _fetched(url, name, options)
    except TimeoutError:
        raise _refused(name, f"no picture came within {options.fetch_timeout:g} seconds") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise _refused(name, f"the picture could not be fetched ({type(error).__name__})") from None


async def _fetched(url: str, name: str, options: ServerOptions) -> bytes:
    async with httpx.AsyncClient(trust_env=False, timeout=options.fetch_timeout, follow_redirects=False) as client:
        for _ in range(MAX_REDIRECTS + 1):
            request = await _pinned(client, url, name, options)
            response = await client.send(request, stream=True)
            try:
                if response.is_redirect:
                    url = urljoin(url, response.headers["location"])
                    continue
                if response.status_code != httpx.codes.OK:
                    raise _refused(name, f"the picture could not be fetched (status {response.status_code})")
                return await _limited(response, name, options.max_body)
            finally:
                await response.aclose()
    raise _refused(name, f"more than {MAX_REDIRECTS} redirects")


async def _limited(response: httpx.Response, name: str, max_bytes: int) -> bytes:
    content = bytearray()
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > max_bytes:
            raise ApiError(413, f"{name}: allowed are {max_bytes} bytes", param=name, code="picture_too_large")
    return bytes(content)


async def _pinned(client: httpx.AsyncClient, url: str, name: str, options: ServerOptions) -> httpx.Request:
    """A request to the address that the host of `url` has now, after it was checked."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        raise _refused(name, f"{url[:80]!r} is no address") from None
    if parts.scheme not in _PORTS or not host:
        raise _refused(name, f"{url[:80]!r} is no address of a web server")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _refused(name, f"there is no host {host!r}") from None
    addresses = [str(entry[4][0]) for entry in found]
    if not options.allow_private_addresses and not all(is_public(address) for address in addresses):
        raise _refused(name, f"{host!r} is in a private network, which this server does not enter")
    target = httpx.URL(url).copy_with(host=addresses[0], port=port, username=None, password=None)
    return client.build_request(
        "GET",
        target,
        headers={"Host": parts.netloc.rpartition("@")[2], "Accept": "image/*", "User-Agent": "unimodal"},
        extensions={"sni_hostname": host},
    )


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the open internet, also where it is wrapped into another one."""
    place = ipaddress.ip_address(address.split("%")[0])
    if isinstance(place, ipaddress.IPv6Address):
        wrapped = place.ipv4_mapped or place.sixtofour or (place.teredo and place.teredo[1])
        if any(place in network for network in _WITH_IPV4_AT_THE_END):
            wrapped = ipaddress.IPv4Address(int(place) & 0xFFFFFFFF)
        if wrapped:
            return is_public(str(wrapped))
    return place.is_global and not place.is_multicast


def _local(url: str, folder: Path, name: str, max_bytes: int) -> bytes:
    parts = urlsplit(url)
    path = Path(url2pathname(parts.path)).resolve()
    if parts.netloc not in ("", "localhost") or not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise _refused(name, "there is no such file in the folder that this server reads from")
    if path.stat().st_size > max_bytes:
        raise ApiError(413, f"{name}: allowed are {max_bytes} bytes", param=name, code="picture_too_large")
    return path.read_bytes()


def _refused(name: str, reason: str) -> ApiError:
    return ApiError(400, f"{name}: {reason}", param=name, code="invalid_image_url")
