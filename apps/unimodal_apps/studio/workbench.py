"""The half of a tab where things happen: the run as it goes, a player for the finished one, and what it cost."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

import gradio as gr

from unimodal import Stats
from unimodal_apps.studio.inputs import read_seed
from unimodal_apps.studio.markup import render_facts, render_frame, render_idle, render_notice, render_waiting
from unimodal_apps.studio.recording import Recording
from unimodal_apps.studio.runner import Job
from unimodal_apps.studio.studio import Outcome, Studio, Work

PAUSE = 0.04
"""Seconds between two frames, unless users choose otherwise."""
_SLOWEST_REPLAY = 0.08
_KEPT_SECONDS = 2 * 3600

_JOINED = "${value.join('')}"
_SHOW = """() => {
  const place = document.getElementById("%s");
  if (place.getBoundingClientRect().top > window.innerHeight - 160) place.scrollIntoView({block: "start"});
}"""
_PRESS = """() => setTimeout(() => {
  const place = document.getElementById("%s");
  (place.matches("a, button") ? place : place.querySelector("a, button")).click();
}, 200)"""

Values = Mapping[Any, Any]


class Controls:
    """Run, stop and the seed; stands among the inputs of a tab."""

    def __init__(self, task: str, verb: str):
        with gr.Row(elem_classes="uni-run"):
            self.run = gr.Button(verb, variant="primary", scale=3, elem_id=f"{task}-run")
            self.stop = gr.Button(
                "Stop", variant="stop", scale=1, interactive=False, min_width=80, elem_id=f"{task}-stop"
            )
        with gr.Row(elem_classes="uni-seed"):
            self.seed = gr.Number(
                value=0,
                precision=0,
                minimum=0,
                label="Seed",
                info="The same seed, the same result.",
                elem_id=f"{task}-seed",
            )
            self.random = gr.Checkbox(
                value=True, label="Random", info="A new one for every run, told here.", elem_id=f"{task}-random"
            )


class Workbench:
    """Stands beside the inputs of a tab.

    Args:
        task: names the tab among a user's runs.
        title, hint: what stands there before anything ran.
    """

    def __init__(self, studio: Studio, task: str, title: str, hint: str):
        self._studio, self._task = studio, task
        self.live = gr.HTML(
            [render_idle(title, hint)], html_template=_JOINED, elem_classes="uni-stage", elem_id=f"{task}-live"
        )
        with gr.Row(elem_classes="uni-player"):
            self._scrub = gr.Slider(
                0,
                1,
                value=0,
                step=1,
                label="Step",
                interactive=False,
                scale=3,
                min_width=220,
                buttons=[],
                elem_id=f"{task}-step",
            )
            self._speed = gr.Slider(
                0,
                1,
                value=PAUSE,
                step=0.02,
                label="Seconds per step",
                scale=2,
                min_width=180,
                buttons=[],
                elem_id=f"{task}-pause",
            )
        with gr.Row(elem_classes="uni-buttons"):
            self._replay = gr.Button(
                "Replay", size="sm", interactive=False, min_width=84, scale=0, elem_id=f"{task}-replay"
            )
            self._hold = gr.Button("Pause", size="sm", interactive=False, min_width=84, scale=0, elem_id=f"{task}-hold")
            self._gif = gr.Button(
                "Save GIF", size="sm", interactive=False, min_width=96, scale=0, elem_id=f"{task}-save-gif"
            )
            self._trace = gr.Button(
                "Save trace", size="sm", interactive=False, min_width=96, scale=0, elem_id=f"{task}-save-trace"
            )
        self._file = gr.DownloadButton(visible="hidden", elem_id=f"{task}-file")
        self._recording = gr.State(None, time_to_live=_KEPT_SECONDS)

    def footer(self) -> None:
        """Places the row of facts."""
        self._facts = gr.HTML(elem_classes="uni-footer", elem_id=f"{self._task}-facts")

    def connect(
        self,
        controls: Controls,
        inputs: Sequence[Any],
        prepare: Callable[[int, Values], Work],
        results: Sequence[Any],
        show: Callable[[Work, Outcome], Values],
        *,
        submit: Sequence[Any] = (),
        kept: Sequence[Any] = (),
        begin: Callable[[Work], Values] = lambda work: {},
        handed: tuple[Any, Any, str] | None = None,
    ) -> None:
        """Wires everything.

        Args:
            inputs: components whose values `prepare` is handed, by component, after the seed.
            prepare: what is to be run; a ValueError is told to the user.
            results: components that `show` gives values for; they are emptied when a run begins.
            show: what a finished run shows.
            submit: components whose submission runs it too.
            kept: components that `begin` and `show` also give values for, and that are not emptied.
            begin: what is shown while the run goes on.
            handed: a component that is no input itself, one that is, and the script that makes the value of the latter
                from that of the former before a run.
        """
        self._controls, self._prepare, self._begin, self._show = controls, prepare, begin, show
        self._results = list(results)
        # Components that could show progress are asked for their values at every step; one is enough.
        quiet: dict[str, Any] = {
            "show_progress": "hidden",
            "show_progress_on": self.live,
            "api_visibility": "private",
            "concurrency_limit": None,
        }
        player = [self._replay, self._hold, self._scrub, self._gif, self._trace]
        told = [self.live, self._facts, self._recording, controls.seed, controls.run, controls.stop, *player]
        given = {controls.seed, controls.random, self._speed, *inputs}
        asked = [controls.run.click, *(component.submit for component in submit)]
        # On a narrow screen the run is below the inputs.
        gr.on(asked, None, js=_SHOW % f"{self._task}-live", **quiet)
        running = (self._run, given, [*told, *results, *kept])
        if handed is None:
            gr.on(asked, *running, **{**quiet, "concurrency_limit": 16})
        else:
            source, target, script = handed
            first = gr.on(asked, None, source, target, js=script, **quiet)
            first.then(*running, **{**quiet, "concurrency_limit": 16})
        controls.stop.click(self._stop, None, None, queue=False, **quiet)
        self._speed.input(self._set_pause, self._speed, None, queue=False, **quiet)
        self._scrub.input(self._look, [self._recording, self._scrub], self.live, trigger_mode="always_last", **quiet)
        playing = self._replay.click(
            self._play, [self._recording, self._scrub, self._speed], [self.live, self._scrub], **quiet
        )
        self._hold.click(None, None, None, cancels=[playing], **quiet)
        for button, save in ((self._gif, Recording.save_animation), (self._trace, Recording.save_trace)):
            saved = button.click(self._saver(save), self._recording, self._file, **quiet)
            # A download needs a link that is there: the hidden button's is, once the file is written.
            saved.success(None, js=_PRESS % f"{self._task}-file")

    def _run(self, values: Values, request: gr.Request) -> Iterator[dict[Any, Any]]:
        studio, controls = self._studio, self._controls
        owner = (request.session_hash, self._task)
        try:
            seed = read_seed(values[controls.random], values[controls.seed])
            work = self._prepare(seed, values)
            job = studio.runner.submit(owner, Job(work.call, float(values[self._speed] or 0)))
        except ValueError as error:
            yield {self.live: [render_notice("This cannot be run", str(error))]}
            raise _told(error) from error
        yield {
            self.live: [render_waiting(studio.runner.ahead(job))],
            self._facts: "",
            controls.seed: seed,
            controls.run: gr.update(interactive=False),
            controls.stop: gr.update(interactive=True),
            **self._player(None),
            **{result: gr.update(value=None, visible=False) for result in self._results},
            **self._begin(work),
        }
        try:
            for frame in job.follow():
                if frame is not None:
                    yield {self.live: render_frame(frame, studio.words, studio.colors(frame))}
                elif job.state == "waiting":
                    yield {self.live: [render_waiting(studio.runner.ahead(job))]}
        finally:
            # Nobody looks any more, or the run is over.
            job.stop()
            studio.runner.forget(owner, job)
        yield self._ended(job, work, seed)
        if job.error is not None:
            raise _told(job.error) from job.error

    def _ended(self, job: Job, work: Work, seed: int) -> dict[Any, Any]:
        studio, controls = self._studio, self._controls
        shown: dict[Any, Any] = {
            controls.run: gr.update(interactive=True),
            controls.stop: gr.update(interactive=False),
        }
        if job.error is not None:
            return {**shown, self.live: [render_notice("The run failed", _sentence(job.error))]}
        stopped = job.state == "stopped"
        stats = _cost_so_far(job) if stopped else job.result.stats
        shown[self._facts] = render_facts(studio.facts(stats, seed, stopped=stopped))
        if job.frames and job.trace is not None:
            last = job.frames[-1]
            recording = Recording(
                name=work.name,
                facts=work.facts,
                stats={"forwards": stats.forwards, "tokens": stats.tokens, "seconds": stats.seconds},
                frames=job.frames,
                written=job.trace,
                words=studio.words,
                colors=studio.colors(last),
            )
            shown |= {self.live: recording.markup(last.number), **self._player(recording)}
        elif stopped:
            shown[self.live] = [render_notice("Stopped", "Nothing was made yet.")]
        return shown if stopped else shown | dict(self._show(work, job.result))

    def _player(self, recording: Recording | None) -> dict[Any, Any]:
        ready = recording is not None
        last = max(1, len(recording.frames) - 1) if recording is not None else 1
        buttons = self._replay, self._hold, self._gif, self._trace
        return {
            self._recording: recording,
            self._scrub: gr.update(maximum=last, value=last if ready else 0, interactive=ready),
            **{button: gr.update(interactive=ready) for button in buttons},
        }

    def _stop(self, request: gr.Request) -> None:
        owner = (request.session_hash, self._task)
        self._studio.runner.stop(lambda other: other == owner)

    def _set_pause(self, pause: float, request: gr.Request) -> None:
        job = self._studio.runner.job((request.session_hash, self._task))
        if job is not None:
            job.pause = pause

    def _look(self, recording: Recording | None, number: int) -> Any:
        return gr.skip() if recording is None else recording.markup(number)

    def _play(self, recording: Recording | None, number: int, pause: float) -> Iterator[Any]:
        if recording is None:
            return
        last = len(recording.frames) - 1
        for place in range(0 if number >= last else int(number), last + 1):
            yield recording.markup(place), place
            time.sleep(max(pause, _SLOWEST_REPLAY))

    def _saver(self, save: Callable[[Recording, Any], Any]) -> Callable[[Recording | None], Any]:
        def saved(recording: Recording | None) -> Any:
            if recording is None:
                raise _told(ValueError("There is no run to save yet."))
            return str(save(recording, self._studio.new_folder()))

        return saved


def _cost_so_far(job: Job) -> Stats:
    if not job.frames:
        return Stats()
    last = job.frames[-1]
    return Stats(forwards=last.forwards, tokens=last.decided, seconds={last.stage: last.seconds})


def _told(error: Exception) -> gr.Error:
    """The error as a message in the page. What is not the user's doing also goes to the terminal."""
    ours = not isinstance(error, ValueError)
    return gr.Error(escape(_sentence(error)), duration=12, title="Not run", print_exception=ours)


def _sentence(error: Exception) -> str:
    if isinstance(error, ValueError):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError":
        return "The device has not enough memory for this. Try a smaller size, fewer pictures or --low-memory."
    return f"Something went wrong inside ({type(error).__name__}: {error}). The next run starts afresh."
