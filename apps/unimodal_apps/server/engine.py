"""One pipeline, one thread that runs it, one queue in front of it.

    request ──submit──▶ queue ──tasks with the same key──▶ one pipeline call ──▶ tickets ──▶ answers

The oldest request decides what runs next; others like it join its call up to the batch size. Every request has its
own generator, so whom it shares a call with changes nothing in its answer, and who leaves a call is left out of its
next step.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from unimodal import Pipeline
from unimodal_apps.server.decoding import Unwanted, independent
from unimodal_apps.server.errors import ApiError, ClientGone, bad_request
from unimodal_apps.server.metrics import Metrics
from unimodal_apps.server.options import ServerOptions
from unimodal_apps.server.tasks import Call, Task, places_of

logger = logging.getLogger(__name__)


class Ticket:
    """A request's place in the engine, and where its answer arrives."""

    def __init__(self, task: Task, loop: asyncio.AbstractEventLoop) -> None:
        self.task = task
        self.left = False
        self._loop = loop
        self._answer: asyncio.Future[Any] = loop.create_future()
        self._parts: asyncio.Queue[Any] = asyncio.Queue()

    async def answer(self) -> Any:
        """The answer of the task.

        Raises:
            ApiError: it could not be done.
            ClientGone: the ticket was given up.
        """
        return await self._answer

    async def parts(self) -> AsyncIterator[Any]:
        """The pieces of the answer as they are made, of tasks that hand out pieces; raises what `answer` does."""
        while (part := await self._parts.get()) is not self:
            yield part
        await self._answer

    def emit(self, part: Any) -> None:
        """Hands a piece of the answer to whom waits; from any thread."""
        self._tell(self._parts.put_nowait, part)

    def settle(self, answer: Any) -> None:
        """Hands over the answer, or an error; the first one counts. From any thread."""
        self._tell(self._settle, answer)

    def _tell(self, function: Callable[[Any], None], value: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, value)
        except RuntimeError:
            # The loop has ended, and with it everybody who waited.
            logger.info("an answer came after the end")

    def _settle(self, answer: Any) -> None:
        if self._answer.done():
            return
        if isinstance(answer, Exception):
            self._answer.set_exception(answer)
            # Whoever waited may be gone; that is no news for the log.
            self._answer.exception()
        else:
            self._answer.set_result(answer)
        self._parts.put_nowait(self)


class Engine:
    """Runs tasks one call at a time; `start` first, `close` last."""

    def __init__(self, pipe: Pipeline, options: ServerOptions, metrics: Metrics) -> None:
        self._pipe, self._decoder = independent(pipe)
        self._options = options
        self._metrics = metrics
        self._changed = threading.Condition()
        self._waiting: list[Ticket] = []
        self._running: Sequence[Ticket] = ()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="unimodal-engine", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closing

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests of the call that runs, without those whose client has left."""
        return sum(not ticket.left for ticket in self._running)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Takes nothing new, finishes what runs and what waits, then ends the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def submit(self, task: Task, loop: asyncio.AbstractEventLoop) -> Ticket:
        """A place at the end of the queue.

        Raises:
            ApiError: the queue is full, or the server is shutting down.
        """
        with self._changed:
            if self._closing:
                raise ApiError(503, "the server is shutting down", code="shutting_down", headers={"Retry-After": "5"})
            if len(self._waiting) >= self._options.queue_length:
                raise ApiError(
                    429,
                    f"{len(self._waiting)} requests are waiting already, which is as many as the server allows",
                    code="queue_full",
                    headers={"Retry-After": "2"},
                )
            ticket = Ticket(task, loop)
            self._waiting.append(ticket)
            self._count()
            self._changed.notify_all()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Gives a place up: one in the queue is free at once, a running one within a step."""
        with self._changed:
            if ticket.left:
                return
            ticket.left = True
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                self._changed.notify_all()
            self._count()
        ticket.settle(ClientGone())

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            self._run(batch)
            with self._changed:
                self._running = ()
                self._count()

    def _next(self) -> Sequence[Ticket] | None:
        """Waits for the next batch; None is the end."""
        size, window = self._options.max_batch_size, self._options.batch_window
        with self._changed:
            began: float | None = None
            while True:
                batch = _alike(self._waiting, size)
                if not batch:
                    if self._closing:
                        return None
                    began = None
                    self._changed.wait()
                    continue
                began = time.monotonic() if began is None else began
                rest = began + window - time.monotonic()
                if self._closing or rest <= 0 or _samples(batch) >= size:
                    break
                self._changed.wait(rest)
            self._waiting = [ticket for ticket in self._waiting if ticket not in batch]
            self._running = batch
            self._count()
        return batch

    def _run(self, batch: Sequence[Ticket]) -> None:
        batch = [ticket for ticket in batch if not ticket.left]
        if not batch:
            return

        tasks = [ticket.task for ticket in batch]
        places = places_of(tasks)

        def watch(pipe: Any, step: int, timestep: int, values: dict[str, Any]) -> Mapping[str, Any] | None:
            gone = [part for part, ticket in zip(places, batch, strict=True) if ticket.left]
            if len(gone) == len(batch):
                raise Unwanted
            return {"dropped": [place for part in gone for place in part]} if gone else None

        call = Call(
            pipe=self._pipe,
            decoder=self._decoder,
            wanted=lambda place: not batch[place].left,
            watch=watch,
            emit=lambda place, part: batch[place].emit(part),
        )
        try:
            answers, stats = type(tasks[0]).together(call, tasks)
        except Unwanted:
            return
        except Exception as error:
            if len(batch) > 1:
                # One of them may be to blame; alone, each gets what it deserves.
                for ticket in batch:
                    self._run([ticket])
                return
            self._metrics.failed.inc()
            batch[0].settle(_as_answer(error))
            return
        kind = tasks[0].kind
        self._metrics.batch.labels(kind).observe(_samples(batch))
        self._metrics.forwards.labels(kind).inc(stats.forwards)
        self._metrics.tokens.labels(kind).inc(stats.tokens)
        for stage, seconds in stats.seconds.items():
            self._metrics.stages.labels(stage).inc(seconds)
        for ticket, answer in zip(batch, answers, strict=True):
            ticket.settle(answer)

    def _count(self) -> None:
        self._metrics.waiting.set(len(self._waiting))
        self._metrics.running.set(self.num_running)


def _samples(tickets: Iterable[Ticket]) -> int:
    return sum(ticket.task.samples for ticket in tickets)


def _alike(waiting: Sequence[Ticket], size: int) -> list[Ticket]:
    """The oldest ticket and those that can share its call, `size` samples at most unless it alone has more."""
    batch: list[Ticket] = []
    room = size
    for ticket in waiting:
        if not batch or (ticket.task.key == batch[0].task.key and ticket.task.samples <= room):
            batch.append(ticket)
            room -= ticket.task.samples
    return batch


def _as_answer(error: Exception) -> Exception:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ValueError):
        return bad_request(error)
    if isinstance(error, torch.OutOfMemoryError):
        return ApiError(503, "there is not enough memory for this request", code="out_of_memory")
    logger.error("a request failed", exc_info=error)
    return error
