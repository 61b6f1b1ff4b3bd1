"""Between an endpoint and the engine: a request that waits for its answer, as long as its client does."""

import asyncio
from types import TracebackType
from typing import Any, Self

from fastapi import Request

from unimodal_apps.server.engine import Engine
from unimodal_apps.server.errors import NO_RETRY, ApiError
from unimodal_apps.server.metrics import Metrics
from unimodal_apps.server.options import ServerOptions
from unimodal_apps.server.tasks import Task


class Place:
    """A ticket that is given up when the client leaves, when the time is over, and at the end of its `with` block.

    Raises:
        ApiError: the queue is full (429), or the server is shutting down (503).
    """

    def __init__(self, request: Request, task: Task) -> None:
        self._engine: Engine = request.app.state.engine
        self._metrics: Metrics = request.app.state.metrics
        options: ServerOptions = request.app.state.options
        loop = asyncio.get_running_loop()
        self.ticket = self._engine.submit(task, loop)
        self._watcher = loop.create_task(self._leave_with_client(request))
        self._alarm = loop.call_later(options.request_timeout, self._too_late, options.request_timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._alarm.cancel()
        self._watcher.cancel()
        self._engine.leave(self.ticket)

    async def _leave_with_client(self, request: Request) -> None:
        # The body has been read, so the next thing that can come is the end of the connection.
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self._metrics.abandoned.inc()
        self._engine.leave(self.ticket)

    def _too_late(self, limit: float) -> None:
        message = f"the answer took longer than the {limit:g} seconds that the server allows"
        self.ticket.settle(ApiError(504, message, code="timeout", headers=NO_RETRY))
        self._engine.leave(self.ticket)


async def answered(request: Request, task: Task) -> Any:
    """The answer of a task, for an endpoint that answers in one piece.

    Raises:
        ApiError: there is none; also what `Place` raises, and 504 when the time is over.
    """
    with Place(request, task) as place:
        return await place.ticket.answer()
