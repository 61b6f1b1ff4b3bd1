"""What every request passes before anything reads it: a key, limits on its body, a number, and the count of it."""

import asyncio
import secrets
import time
import uuid
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unimodal_apps.server.errors import ApiError, error_response
from unimodal_apps.server.metrics import Metrics
from unimodal_apps.server.options import ServerOptions

GUARDED = "/v1/"


class Gate:
    """Refuses requests without the key (401) and bodies that are too large (413) or too slow (408).

    Only paths below `GUARDED` need the key, and of these not the drawn pictures: their names cannot be guessed, and
    browsers show them without a key.
    """

    def __init__(self, app: ASGIApp, options: ServerOptions, open_paths: Sequence[str]) -> None:
        self._app = app
        self._options = options
        self._open = tuple(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._without_key(scope["path"], headers) or self._too_large(headers)
        if refusal is not None:
            response = error_response(refusal.status_code, refusal.detail, refusal.param, refusal.code, refusal.headers)
            await response(scope, receive, send)
            return
        await self._app(scope, self._limited(receive), send)

    def _without_key(self, path: str, headers: Headers) -> ApiError | None:
        key = self._options.api_key
        if key is None or not path.startswith(GUARDED) or path.startswith(self._open):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and secrets.compare_digest(given.strip().encode(), key.encode()):
            return None
        return ApiError(
            401,
            "the API key is missing or wrong; it is sent as 'Authorization: Bearer KEY'",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _too_large(self, headers: Headers) -> ApiError | None:
        length = headers.get("content-length", "")
        return self._refusal() if length.isdecimal() and int(length) > self._options.max_body else None

    def _refusal(self) -> ApiError:
        # The rest of the body is not read, so the connection is of no more use.
        return ApiError(
            413,
            f"body: allowed are {self._options.max_body} bytes",
            param="body",
            code="body_too_large",
            headers={"Connection": "close"},
        )

    def _limited(self, receive: Receive) -> Receive:
        size, complete = 0, False

        async def counted() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout(self._options.body_timeout):
                    message = await receive()
            except TimeoutError:
                raise ApiError(
                    408, "body: it did not arrive in time", code="timeout", headers={"Connection": "close"}
                ) from None
            size += len(message.get("body", b""))
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            if size > self._options.max_body:
                raise self._refusal()
            return message

        return counted


class Counted:
    """Gives every request a number, `x-request-id`, and counts and times its answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def numbered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = f"req_{uuid.uuid4().hex}"
            await send(message)

        try:
            await self._app(scope, receive, numbered)
        finally:
            # Empty for unknown paths: clients must not be able to make up labels.
            path = getattr(scope.get("route"), "path", "")
            self._metrics.requests.labels(scope["method"] if path else "", path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - started)
