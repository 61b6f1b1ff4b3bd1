"""Quality against passes: every policy with few and with many steps, scored on the picture-book world.

A point is one policy with one setting. `forwards` is the number of passes that a sample took part in, on average, and
`quality` the score that `unimodal.evaluation.run` gives: accuracy of answers, GenEval's overall score of drawings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from tqdm.auto import tqdm

from unimodal.benchmark.machine import describe_machine, versions
from unimodal.evaluation.run import evaluate
from unimodal.pipeline import Pipeline
from unimodal_configs.atomic import replacing

Results = dict[str, Any]

SCORES: Mapping[str, Callable[[Results], float]] = {
    "generate": lambda scores: scores["generate"]["overall"],
    "understand": lambda scores: scores["understand"]["accuracy"],
}
TITLES = {"generate": "Drawings that show what was asked for", "understand": "Right answers about pictures"}


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A policy, and the option that makes it faster or better.

    Args:
        label: in the plot.
        option, values: what is varied, the fastest first.
        others: options that stay.
        tasks: where it is scored.
    """

    label: str
    policy: str
    option: str
    values: tuple[float, ...]
    others: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ("generate", "understand")


_STEPS = (1, 2, 4, 8, 16, 32)

SWEEPS: tuple[Sweep, ...] = (
    Sweep(label="quota, 0.95", policy="quota", option="num_inference_steps", values=_STEPS, others={"threshold": 0.95}),
    Sweep(label="adaptive, 0.95", policy="adaptive", option="num_inference_steps", values=_STEPS),
    Sweep(label="low confidence", policy="remasking", option="num_inference_steps", values=_STEPS),
    Sweep(
        label="random",
        policy="remasking",
        option="num_inference_steps",
        values=_STEPS,
        others={"remasking": "random"},
    ),
    Sweep(label="threshold", policy="threshold", option="threshold", values=(0.3, 0.5, 0.7, 0.8, 0.9, 0.99)),
    Sweep(label="cosine", policy="cosine", option="num_inference_steps", values=_STEPS, tasks=("generate",)),
    Sweep(label="ancestral", policy="ancestral", option="num_inference_steps", values=_STEPS),
    Sweep(label="editing", policy="editing", option="num_inference_steps", values=_STEPS),
)


def measure_quality(
    pipe: Pipeline,
    samples: int,
    seed: int,
    sweeps: tuple[Sweep, ...] = SWEEPS,
    progress: bool = True,
) -> Results:
    """Scores every point of the sweeps on the same held-out samples; the pipeline's settings are the same afterwards.

    Raises:
        ValueError: `samples` below 1, or an option that a policy does not have.
    """
    points: list[Results] = []
    before = pipe.settings
    plan = [
        (task, sweep, value) for task in SCORES for sweep in sweeps if task in sweep.tasks for value in sweep.values
    ]
    try:
        for task, sweep, value in tqdm(plan, disable=not progress, unit="point"):
            options: dict[str, Any] = {**sweep.others, sweep.option: value}
            changed = getattr(before, task).but(policy=sweep.policy, **options)
            pipe.settings = before.model_copy(update={task: changed})
            counted = _Counted(pipe)
            scores = evaluate(cast(Pipeline, counted), samples, seed, tasks=(task,), progress=False)
            points.append(
                {
                    "task": task,
                    "label": sweep.label,
                    "policy": sweep.policy,
                    "options": options,
                    "forwards": round(counted.forwards / samples, 2),
                    "quality": round(SCORES[task](scores), 4),
                }
            )
    finally:
        pipe.settings = before
    return {
        "settings": {
            "model": pipe.folder.name if pipe.folder else None,
            "samples": samples,
            "seed": seed,
            "device": str(pipe.device),
            "dtype": str(pipe.dtype).removeprefix("torch."),
            "sampling": before.model_dump(),
        },
        "machine": describe_machine(pipe.device),
        "versions": versions(),
        "points": points,
    }


class _Counted:
    """A pipeline that counts the passes in which each sample took part, as if it had been alone."""

    def __init__(self, pipe: Pipeline) -> None:
        self.forwards = 0
        self._pipe = pipe
        self._before = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)

    def understand(self, *asked: Any, **options: Any) -> Any:
        return self._pipe.understand(*asked, callback_on_step_end=self._count, **options)

    def generate(self, *asked: Any, **options: Any) -> Any:
        return self._pipe.generate(*asked, callback_on_step_end=self._count, **options)

    def _count(self, pipe: Any, step: int, timestep: int, values: dict[str, Any]) -> None:
        if values["stage"] == "decode":
            return
        state = values["state"]
        before = 0 if state.block == state.step == 0 else self._before
        # A step that had nothing to compute made no pass.
        if state.forwards > before:
            self.forwards += len(state.samples)
        self._before = state.forwards


def draw(found: Mapping[str, Any], path: str | Path) -> None:
    """Writes the plot, one panel per task, as PNG.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError('the plot needs matplotlib: pip install "unimodal[plot]"') from error
    tasks = [task for task in TITLES if any(point["task"] == task for point in found["points"])]
    labels = list(dict.fromkeys(point["label"] for point in found["points"]))
    figure = Figure(figsize=(5.2 * len(tasks), 4.4), dpi=150, layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for place, label in enumerate(labels):
            own = [point for point in found["points"] if (point["task"], point["label"]) == (task, label)]
            if own:
                own.sort(key=lambda point: point["forwards"])
                style = {"color": _COLORS[place % len(_COLORS)], "marker": _MARKERS[place % len(_MARKERS)]}
                forwards, quality = ([point[name] for point in own] for name in ("forwards", "quality"))
                axes.plot(forwards, quality, label=label, markersize=5, linewidth=1.4, clip_on=False, **style)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_ylim(0, 1.02)
        axes.set_title(TITLES[task], fontsize=10)
        axes.set_xlabel("forward passes per sample")
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("score")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", facecolor="white")


# The colours of Okabe and Ito, which people with any kind of colour vision tell apart.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
_MARKERS = "osD^vPX*"
