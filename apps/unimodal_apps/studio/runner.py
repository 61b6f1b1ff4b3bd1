"""Runs of the model: one at a time, in the order they were asked for, each watched by whoever asked and no one else."""

import queue
import threading
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Any, Literal

from unimodal.diffusion.traces import TraceRecorder
from unimodal_apps.studio.frames import Frame, Recorder

MOST_WAITING = 32
_PATIENCE = 0.25
"""Seconds after which somebody who waits is told anew how many are before them."""

State = Literal["waiting", "running", "finished", "stopped", "failed"]
Call = Callable[[Any, Recorder], Any]


class Stopped(Exception):
    """Raised inside a run that is to end."""


class Job:
    """One run.

    Args:
        call: makes the run, with the pipeline and the callback for it.
        pause: seconds between two frames for whoever follows; it may be changed while the run goes on.
    """

    def __init__(self, call: Call, pause: float = 0.0):
        self.pause = pause
        self.state: State = "waiting"
        self.frames: list[Frame] = []
        self.trace: TraceRecorder | None = None
        self.result: Any = None
        self.error: Exception | None = None
        self._call = call
        self._changed = threading.Condition()
        self._stopping = threading.Event()

    @property
    def over(self) -> bool:
        return self.state in ("finished", "stopped", "failed")

    def stop(self) -> None:
        """Ends the run at its next step, or before it begins."""
        with self._changed:
            self._stopping.set()
            if self.state == "waiting":
                self.state = "stopped"
            self._changed.notify_all()

    def run(self, pipe: Any) -> None:
        """Makes the run, in the thread that has the model."""
        with self._changed:
            if self._stopping.is_set():
                return
            self.state = "running"
        try:
            recorder = Recorder(pipe, self._take)
            self.trace = recorder.trace
            self.result = self._call(pipe, recorder)
        except Stopped:
            self._end("stopped")
        except Exception as error:
            self.error = error
            self._end("failed")
        else:
            self._end("finished")

    def follow(self) -> Iterator[Frame | None]:
        """The frames as they come, every one of them if there is a pause between them and the latest if there is none;
        None while there is nothing to show. Ends with the run, or as soon as it is to stop.
        """
        shown = 0
        while True:
            with self._changed:
                self._changed.wait_for(partial(self._ready, shown), timeout=_PATIENCE)
                count = len(self.frames)
            if self._stopping.is_set():
                with self._changed:
                    self._changed.wait_for(lambda: self.over)
                return
            if count > shown:
                shown = shown + 1 if self.pause else count
                yield self.frames[shown - 1]
                self._stopping.wait(self.pause)
            elif self.over:
                return
            else:
                yield None

    def _ready(self, shown: int) -> bool:
        return len(self.frames) > shown or self.over or self._stopping.is_set()

    def _take(self, frame: Frame) -> None:
        with self._changed:
            self.frames.append(frame)
            self._changed.notify_all()
        if self._stopping.is_set():
            raise Stopped

    def _end(self, state: State) -> None:
        with self._changed:
            self.state = state
            self._changed.notify_all()


class Runner:
    """Has the model to itself, in one thread, and works off what it is asked for.

    Args:
        pipe: the pipeline.
        before, after: called in that thread around every run.
    """

    def __init__(self, pipe: Any, before: Callable[[], None] | None = None, after: Callable[[], None] | None = None):
        self._pipe = pipe
        self._before, self._after = before, after
        self._line: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._jobs: dict[Hashable, Job] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="unimodal-studio", daemon=True)
        self._thread.start()

    def submit(self, owner: Hashable, job: Job) -> Job:
        """Puts a run at the end of the line. A run of the same owner that is not over is stopped.

        Raises:
            ValueError: too many are waiting.
        """
        with self._lock:
            waiting = sum(not other.over for other in self._jobs.values())
            if waiting >= MOST_WAITING:
                raise ValueError(f"{waiting} runs are waiting already; try again in a while")
            before = self._jobs.pop(owner, None)
            self._jobs[owner] = job
        if before is not None:
            before.stop()
        self._line.put(job)
        return job

    def job(self, owner: Hashable) -> Job | None:
        """The owner's latest run."""
        return self._jobs.get(owner)

    def forget(self, owner: Hashable, job: Job) -> None:
        """Lets go of a run that nobody follows any more."""
        with self._lock:
            if self._jobs.get(owner) is job:
                del self._jobs[owner]

    def stop(self, belongs: Callable[[Hashable], bool]) -> None:
        """Stops the runs of all owners for which `belongs` is true."""
        with self._lock:
            jobs = [job for owner, job in self._jobs.items() if belongs(owner)]
        for job in jobs:
            job.stop()

    def ahead(self, job: Job) -> int:
        """Runs that come before this one."""
        with self._lock:
            others = [other for other in self._jobs.values() if not other.over]
        return others.index(job) if job in others else 0

    def close(self) -> None:
        """Stops all runs, and the thread after them."""
        self.stop(lambda owner: True)
        self._line.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._line.get()) is not None:
            if self._before is not None:
                self._before()
            job.run(self._pipe)
            if self._after is not None:
                self._after()
