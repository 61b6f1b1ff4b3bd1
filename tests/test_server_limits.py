"""What the server refuses, and how it behaves when clients leave, when time runs out and when it is stopped."""

import asyncio
import copy
import http.server
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from quick_pipeline import GOLDEN, gradient, seeded
from quick_server import encoded, opened, served_pipeline, showing

import unimodal
import unimodal_apps
import unimodal_configs
import unimodal_decoders
import unimodal_tokenizers
from unimodal.pipeline import Pipeline
from unimodal.results import GenerateOutput, Stats
from unimodal_apps.server.fetching import is_public
from unimodal_apps.server.options import ServerOptions
from unimodal_apps.server.run import running

PACKAGES = unimodal, unimodal_apps, unimodal_configs, unimodal_decoders, unimodal_tokenizers
DRAW = "/v1/images/generations"
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return served_pipeline()


class Held:
    """A pipeline whose `generate` takes steps until it is let go, and notes what happened to it."""

    def __init__(self, pipe: Pipeline) -> None:
        self.free = threading.Event()
        self.calls: list[list[str]] = []
        self.ended: list[str] = []
        self.dropped: set[int] = set()
        self.pipe = copy.copy(pipe)
        self.pipe.generate = self.generate  # type: ignore[method-assign]

    def generate(self, prompt: Sequence[str], *, callback_on_step_end: Any, **options: Any) -> GenerateOutput:
        self.calls.append(list(prompt))
        self.dropped = set()
        try:
            if "bad" in prompt:
                raise ValueError("prompt: got 'bad', it must be good")
            if "broken" in prompt:
                raise RuntimeError("a kernel failed")
            for step in itertools.count():
                self.dropped.update((callback_on_step_end(self.pipe, step, step, {}) or {}).get("dropped", ()))
                if self.free.wait(0.01):
                    break
        except Exception as error:
            self.ended.append(type(error).__name__)
            raise
        self.ended.append("done")
        stayed = [text for place, text in enumerate(prompt) if place not in self.dropped]
        images = [Image.new("RGB", (8, 8), (len(text), 0, 0)) for text in stayed]
        stats = Stats(forwards=1, tokens=len(prompt))
        return GenerateOutput(images=images, codes=[], thinking=None, dropped=sorted(self.dropped), stats=stats)


@pytest.fixture
def held(pipe: Pipeline) -> Iterator[Held]:
    held = Held(pipe)
    yield held
    held.free.set()


@contextmanager
def clients(url: str, timeout: float = 60) -> Iterator[tuple[httpx.Client, ThreadPoolExecutor]]:
    with httpx.Client(base_url=url, timeout=timeout) as client, ThreadPoolExecutor(32) as pool:
        yield client, pool


def wait_until(condition: Any, seconds: float = 20) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.01)


def state(client: httpx.Client) -> tuple[int, int]:
    health = client.get("/health").json()
    return health["running"], health["waiting"]


def leave(url: str, body: bytes, announced: int | None = None) -> socket.socket:
    """A request whose connection the caller can close at any time; it may announce more than it sends."""
    length = len(body) if announced is None else announced
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(
        f"POST {DRAW} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n".encode()
        + body
    )
    return connection


def test_requests_alike_share_a_call_and_others_do_not(held: Held) -> None:
    with running(held.pipe, ServerOptions(max_batch_size=3)) as url, clients(url) as (client, pool):
        first = pool.submit(client.post, DRAW, json={"prompt": "1"})
        wait_until(lambda: state(client) == (1, 0))
        rest = []
        for number, body in enumerate([{}, {"threshold": 0.5}, {"n": 2}, {}, {"size": "256x256"}], start=2):
            rest.append(pool.submit(client.post, DRAW, json={"prompt": "x" * number, **body}))
            wait_until(lambda number=number: state(client) == (1, number - 1))
        held.free.set()
        answers = [answer.result() for answer in [first, *rest]]
        assert [answer.status_code for answer in answers] == [200] * 6
    assert held.calls == [["1"], ["xx", "xxxx", "xxxx"], ["xxx"], ["xxxxx"], ["xxxxxx"]]


def test_one_bad_request_does_not_spoil_its_neighbours(held: Held) -> None:
    with running(held.pipe, ServerOptions()) as url, clients(url) as (client, pool):
        first = pool.submit(client.post, DRAW, json={"prompt": "first"})
        wait_until(lambda: state(client) == (1, 0))
        rest = [pool.submit(client.post, DRAW, json={"prompt": word}) for word in ("good", "bad", "broken")]
        wait_until(lambda: state(client) == (1, 3))
        held.free.set()
        good, bad, broken = (answer.result() for answer in rest)
        assert first.result().status_code == good.status_code == 200
        assert bad.status_code == 400 and bad.json()["error"]["param"] == "prompt"
        assert broken.status_code == 500 and broken.json()["error"]["type"] == "server_error"
        assert "kernel" not in broken.text
        assert client.post(DRAW, json={"prompt": "next"}).status_code == 200


def test_a_client_that_leaves_frees_its_place(held: Held) -> None:
    with running(held.pipe, ServerOptions(queue_length=1)) as url, clients(url) as (client, _):
        gone = leave(url, b'{"prompt": "alone"}')
        wait_until(lambda: state(client) == (1, 0))
        waits = leave(url, b'{"prompt": "waits"}')
        wait_until(lambda: state(client) == (1, 1))
        waits.close()
        wait_until(lambda: state(client) == (1, 0))
        gone.close()
        wait_until(lambda: held.ended == ["Unwanted"])
        assert held.calls == [["alone"]]
        held.free.set()
        assert client.post(DRAW, json={"prompt": "next"}).status_code == 200
        assert "unimodal_abandoned_requests_total 2.0" in client.get("/metrics").text


def test_those_who_stay_go_on_without_those_who_left(held: Held) -> None:
    with running(held.pipe, ServerOptions()) as url, clients(url) as (client, pool):
        first = leave(url, b'{"prompt": "first"}')
        wait_until(lambda: state(client) == (1, 0))
        leavers, stays = [], []
        for number in range(2):
            leavers.append(leave(url, b'{"prompt": "leaves", "n": 2}'))
            wait_until(lambda number=number: state(client) == (1, 2 * number + 1))
            stays.append(pool.submit(client.post, DRAW, json={"prompt": "stays" * (number + 1)}))
            wait_until(lambda number=number: state(client) == (1, 2 * number + 2))
        first.close()
        wait_until(lambda: len(held.calls) == 2)
        assert held.calls[1] == ["leaves", "leaves", "stays", "leaves", "leaves", "staysstays"]
        leavers[1].close()
        wait_until(lambda: held.dropped == {3, 4})
        assert state(client) == (3, 0)
        leavers[0].close()
        wait_until(lambda: held.dropped == {0, 1, 3, 4})
        held.free.set()
        answers = [answer.result() for answer in stays]
        assert [answer.status_code for answer in answers] == [200, 200]
        pictures = [opened(answer.json()["data"][0]["b64_json"]) for answer in answers]
        assert [picture.getpixel((0, 0)) for picture in pictures] == [(5, 0, 0), (10, 0, 0)]
        assert len(held.calls) == 2


def test_a_neighbour_that_leaves_makes_the_forward_smaller_and_nothing_else(pipe: Pipeline) -> None:
    """Drawings have two branches of guidance, so the first alone makes two rows, and three together six."""
    body = {"num_inference_steps": 6, "threshold": 1.0, "temperature": 1.0, "decoder_steps": 2}
    rows: list[int] = []
    reached, go = ({count: threading.Event() for count in (2, 6)} for _ in range(2))

    def pause(module: Any, inputs: Any) -> None:
        rows.append(len(inputs[0]))
        if rows[-1] in reached:
            reached[rows[-1]].set()
            assert go[rows[-1]].wait(60)

    hook = pipe.backbone.register_forward_pre_hook(pause)
    try:
        with running(pipe, ServerOptions()) as url, clients(url) as (client, pool):
            first = pool.submit(client.post, DRAW, json={"prompt": "first", **body})
            assert reached[2].wait(60)
            leaver = leave(url, json.dumps({"prompt": "leaves", **body}).encode())
            wait_until(lambda: state(client) == (1, 1))
            stays = [
                pool.submit(client.post, DRAW, json={"prompt": "a cat", "seed": seed, **body}) for seed in range(2)
            ]
            wait_until(lambda: state(client) == (1, 3))
            go[2].set()
            assert first.result().status_code == 200 and reached[6].wait(60)
            leaver.close()
            wait_until(lambda: state(client) == (2, 0))
            seen = len(rows)
            go[6].set()
            answers = [answer.result() for answer in stays]
    finally:
        for event in go.values():
            event.set()
        hook.remove()
    assert len(rows) > seen and set(rows[seen:]) == {4}
    for seed, answer in enumerate(answers):
        alone = pipe.generate("a cat", generator=seeded(seed), **body).images[0]
        assert opened(answer.json()["data"][0]["b64_json"]).tobytes() == alone.tobytes()


def test_a_full_queue_and_a_long_wait_have_their_status(held: Held) -> None:
    options = ServerOptions(queue_length=1, request_timeout=1.5)
    with running(held.pipe, options) as url, clients(url) as (client, pool):
        first = pool.submit(client.post, DRAW, json={"prompt": "first"})
        wait_until(lambda: state(client) == (1, 0))
        second = pool.submit(client.post, DRAW, json={"prompt": "second"})
        wait_until(lambda: state(client) == (1, 1))
        third = client.post(DRAW, json={"prompt": "third"})
        assert third.status_code == 429 and third.json()["error"]["code"] == "queue_full"
        assert int(third.headers["retry-after"]) > 0
        for late in (first.result(), second.result()):
            assert late.status_code == 504 and late.json()["error"]["code"] == "timeout"
            assert late.headers["x-should-retry"] == "false"
        wait_until(lambda: state(client) == (0, 0))
        assert set(held.ended) == {"Unwanted"}


def test_what_runs_and_what_waits_is_finished_at_the_end(held: Held) -> None:
    with ThreadPoolExecutor(4) as pool:
        with running(held.pipe, ServerOptions()) as url, httpx.Client(base_url=url, timeout=60) as client:
            answers = [pool.submit(httpx.post, url + DRAW, json={"prompt": f"{number}"}) for number in range(2)]
            wait_until(lambda: sum(state(client)) == 2)
            answers.append(pool.submit(httpx.post, url + DRAW, json={"prompt": "other", "threshold": 0.5}))
            wait_until(lambda: sum(state(client)) == 3)
            threading.Timer(0.5, held.free.set).start()
        assert [answer.result().status_code for answer in answers] == [200] * 3


def test_whoever_takes_too_long_at_the_end_is_cut_off(held: Held) -> None:
    with ThreadPoolExecutor(1) as pool:
        with running(held.pipe, ServerOptions(shutdown_timeout=1)) as url, httpx.Client(base_url=url) as client:
            answer = pool.submit(httpx.post, url + DRAW, json={"prompt": "endless"}, timeout=30)
            wait_until(lambda: state(client) == (1, 0))
        assert held.ended == ["Unwanted"]
        assert isinstance(answer.exception(), httpx.TransportError) or answer.result().status_code >= 500


def test_bodies_and_pictures_have_limits(held: Held) -> None:
    held.free.set()
    options = ServerOptions(max_body=20_000, max_picture_pixels=10_000, max_pictures=2, body_timeout=0.5)
    small, large = Image.new("RGB", (50, 50)), Image.new("RGB", (200, 100))
    with running(held.pipe, options) as url, clients(url) as (client, _):
        declared = client.post(DRAW, json={"prompt": "a" * 30_000})
        counted = client.post(DRAW, content=(b" " * 1000 for _ in range(30)))
        pixels = client.post("/v1/images/edits", data={"prompt": "a"}, files={"image": encoded(large)})
        for answer, code in ((declared, "body_too_large"), (counted, "body_too_large"), (pixels, "picture_too_large")):
            assert answer.status_code == 413 and answer.json()["error"]["code"] == code
        many = client.post("/v1/images/edits", data={"prompt": "a"}, files=[("image[]", encoded(small))] * 3)
        assert many.status_code == 400 and many.json()["error"]["param"] == "image"
        broken = client.post("/v1/images/edits", data={"prompt": "a"}, files={"image": encoded(small)[:60]})
        assert broken.status_code == 400 and broken.json()["error"]["code"] == "invalid_picture"
        none = client.post("/v1/images/edits", data={"prompt": "a"}, files={"mask": encoded(small)})
        assert none.status_code == 400 and none.json()["error"]["param"] == "image"
        with leave(url, b"", announced=100) as slow:
            assert slow.recv(100).startswith(b"HTTP/1.1 408")


def test_a_key_opens_the_endpoints(held: Held) -> None:
    held.free.set()
    options = ServerOptions(api_key="secret", allowed_origins=("https://page.example",))
    with running(held.pipe, options) as url, clients(url) as (client, _):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
            answer = client.post(DRAW, json={"prompt": "a"}, headers=headers)
            assert answer.status_code == 401 and answer.json()["error"]["type"] == "authentication_error"
        right = {"Authorization": "Bearer secret", "Origin": "https://page.example"}
        answer = client.post(DRAW, json={"prompt": "a", "response_format": "url"}, headers=right)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        assert client.get(answer.json()["data"][0]["url"]).status_code == 200
        other = client.post(DRAW, json={"prompt": "a"}, headers=right | {"Origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers
        assert client.get("/health").status_code == client.get("/metrics").status_code == 200
        assert client.get("/openapi.json").json()["components"]["securitySchemes"]


PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"),
    *("::1", "::", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1"),
    *("2002:7f00:1::", "ff02::1", "::127.0.0.1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_known(address: str) -> None:
    assert not is_public(address)


def test_public_addresses_are_known() -> None:
    assert all(map(is_public, ("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34")))


@contextmanager
def web(pages: dict[str, tuple[int, dict[str, str], bytes]]) -> Iterator[str]:
    """A web server on this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, content = pages[self.path]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(content)
            except OSError:
                # The reader has had enough.
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def asked(client: httpx.Client, url: str) -> httpx.Response:
    return client.post(CHAT, json={"messages": showing(url), "max_tokens": 2})


def test_local_and_private_addresses_are_refused(pipe: Pipeline, tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "picture.png"
    gradient().save(path)
    found = {"inside.example": "10.0.0.7", "mixed.example": "127.0.0.1"}

    def resolve(host: Any, port: Any, *rest: Any, **named: Any) -> Any:
        return real(found.get(host, host), port, *rest, **named)

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with (
        web({"/picture.png": (200, {}, encoded(gradient()))}) as site,
        running(pipe, ServerOptions()) as url,
        clients(url) as (client, _),
    ):
        port = site.rsplit(":", 1)[1]
        refused = [
            *(f"{site}/picture.png", f"http://localhost:{port}/picture.png", f"http://[::1]:{port}/picture.png"),
            *(f"http://2130706433:{port}/picture.png", f"http://0x7f.1:{port}/picture.png", "http://inside.example/"),
            *(f"http://mixed.example:{port}/picture.png", f"http://user@127.0.0.1:{port}/picture.png"),
            *(
                path.as_uri(),
                str(path),
                "picture.png",
                "ftp://example.com/a.png",
                "http://",
                "http://[",
                "gopher://x/1",
            ),
        ]
        for address in refused:
            answer = asked(client, address)
            assert answer.status_code == 400, address
            assert answer.json()["error"]["param"] == "image_url", address


def test_an_operator_can_open_addresses_and_a_folder(pipe: Pipeline, tmp_path: Path) -> None:
    picture = encoded(gradient())
    folder = tmp_path / "open"
    folder.mkdir()
    (folder / "picture.png").write_bytes(picture)
    (tmp_path / "secret.png").write_bytes(picture)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    pages = {
        "/picture.png": (200, {}, picture),
        "/moved": (302, {"Location": "/picture.png"}, b""),
        "/round": (302, {"Location": "/round"}, b""),
        "/file": (302, {"Location": (folder / "picture.png").as_uri()}, b""),
        "/large": (200, {}, b"\x89PNG" + b"0" * 300_000),
        "/page": (200, {}, b"<html>"),
        "/missing": (404, {}, b""),
    }
    options = ServerOptions(allow_private_addresses=True, picture_folder=folder, max_body=200_000)
    with web(pages) as site, running(pipe, options) as url, clients(url) as (client, _):
        expected = {"/moved": 200, "/round": 400, "/file": 400, "/large": 413, "/page": 400, "/missing": 400}
        for path, status in {"/picture.png": 200, **expected}.items():
            assert asked(client, site + path).status_code == status, path
        for path, status in {
            folder / "picture.png": 200,
            tmp_path / "secret.png": 400,
            folder / "link.png": 400,
        }.items():
            assert asked(client, path.as_uri()).status_code == status, path
        assert asked(client, f"file://{folder}/../secret.png").status_code == 400


def test_a_redirect_into_a_private_network_is_refused(pipe: Pipeline, monkeypatch: Any) -> None:
    from unimodal_apps.server import fetching
    from unimodal_apps.server.errors import ApiError

    with web({"/in": (302, {"Location": "http://169.254.169.254/keys"}, b"")}) as site:
        # This machine stands for a public one.
        monkeypatch.setattr(fetching, "is_public", lambda address: address == "127.0.0.1" or is_public(address))
        with pytest.raises(ApiError, match=r"'169\.254\.169\.254' is in a private network"):
            asyncio.run(fetching.picture_bytes(f"{site}/in", "image_url", ServerOptions()))


def test_the_command_serves_until_it_is_told_to_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folders = os.pathsep.join(str(Path(place).parent) for package in PACKAGES for place in package.__path__)
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "unimodal_apps.cli",
        "serve",
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "PYTHONPATH": folders, "UNIMODAL_API_KEY": "secret"}
    with subprocess.Popen([*command, "--model", str(GOLDEN), "--model-name", "golden"], env=environment) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: process.poll() is not None or answers(f"{url}/health"), 300)
            assert httpx.get(f"{url}/v1/models").status_code == 401
            listed = httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer secret"}).json()
            assert listed["data"][0]["id"] == "golden"
        finally:
            process.terminate()
        assert process.wait(60) in (0, -signal.SIGTERM)


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False
