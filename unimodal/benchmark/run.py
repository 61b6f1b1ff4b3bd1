"""Runs cases and describes what they took, as a tree that can be written as JSON.

settings     seed, repeats, threads, device, dtypes
machine      processor, memory, accelerator, and how busy it was
versions     of Python and the libraries
cases        one entry for each case and dtype: what was measured, medians over the repeats
skipped      cases that the model cannot run, and why
comparisons  ratios of two cases, with their targets
against      `diffusers`: the least `speedup` over all dtypes, and whether all wrote the `same_tokens`
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from statistics import median
from typing import Any

import torch
from tqdm.auto import tqdm

from unimodal.benchmark.cases import (
    AGAINST_DIFFUSERS,
    COMPARISONS,
    Case,
    Comparison,
    DecodingCase,
    JobCase,
    WritingCase,
)
from unimodal.benchmark.machine import describe_machine, forget_peak, peak_memory, versions
from unimodal.benchmark.measuring import STAGES, Measurement, measure, why_not
from unimodal.benchmark.subject import Subject, build_random, open_checkpoint
from unimodal.components import pick_device

Results = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How cases are run.

    Args:
        checkpoint: runs the jobs, and every other case unless there is a `configuration`; None runs no jobs.
        configuration: a packaged configuration that is built with random weights.
        dtypes: each case runs in each; None is that which the device takes by default.
        threads: of the processor; None leaves them as they are.
        repeats: runs of each case, after one that does not count.

    Raises:
        ValueError: a number below 1, or nothing to measure.
    """

    checkpoint: str | None = None
    configuration: str | None = None
    device: str | None = None
    dtypes: tuple[str | None, ...] = (None,)
    threads: int | None = None
    repeats: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("threads", "repeats"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}: got {value!r}, it must be a whole number of at least 1")
        if self.checkpoint is None and self.configuration is None:
            raise ValueError("model: there is neither a checkpoint nor a configuration")


def run(cases: Sequence[Case], settings: Settings, progress: bool = True) -> Results:
    """Runs cases, one model and dtype after the other.

    Raises:
        ValueError: an unknown model, device or dtype, or too little memory.
    """
    device = pick_device(settings.device)
    found: list[Results] = []
    skipped: list[Results] = []
    written: dict[tuple[str, str], list[int]] = {}
    with with_threads(settings.threads), tqdm(total=0, disable=not progress, unit="run") as bar:
        for dtype in settings.dtypes:
            for subject, own in _subjects(cases, settings, dtype):
                able = [case for case in own if why_not(case, subject) is None]
                skipped += [
                    {"case": case.name, "model": subject.name, "why": why_not(case, subject)}
                    for case in own
                    if case not in able
                ]
                bar.total = bar.n + len(able) * (settings.repeats + 1)
                for case, (entry, tokens) in zip(able, _measured(able, subject, settings, bar), strict=True):
                    found.append(entry)
                    written[case.name, subject.dtype] = tokens
        threads = torch.get_num_threads()
    comparisons = compare(found, written)
    return {
        "settings": {
            "seed": settings.seed,
            "repeats": settings.repeats,
            "threads": threads,
            "device": str(device),
            "dtypes": list(dict.fromkeys(entry["dtype"] for entry in found)),
        },
        "machine": describe_machine(device),
        "versions": versions(),
        "cases": found,
        "skipped": skipped,
        "comparisons": comparisons,
        "against": _against(comparisons),
    }


def _subjects(cases: Sequence[Case], settings: Settings, dtype: str | None) -> Iterator[tuple[Subject, list[Case]]]:
    """The models, one at a time, each with its cases."""
    jobs = [case for case in cases if isinstance(case, JobCase)]
    rest = [case for case in cases if not isinstance(case, JobCase)]
    if settings.checkpoint is not None:
        own = [*jobs, *(rest if settings.configuration is None else [])]
        if own:
            yield open_checkpoint(settings.checkpoint, settings.device, dtype), own
    if settings.configuration is not None:
        own = [*(jobs if settings.checkpoint is None else []), *rest]
        if own:
            with_pixels = any(isinstance(case, DecodingCase) for case in own)
            yield (
                build_random(settings.configuration, settings.device, dtype, settings.seed, with_pixels=with_pixels),
                own,
            )


def _measured(
    cases: Sequence[Case], subject: Subject, settings: Settings, bar: tqdm
) -> list[tuple[Results, list[int]]]:
    """For each case its entry, and the tokens that it wrote."""

    def run(case: Case) -> Measurement:
        bar.set_description(f"{case.name}, {subject.dtype}")
        measurement = measure(case, subject, settings.seed)
        bar.update()
        return measurement

    # The first pass through a shape is slower than those that follow: it is made, and not counted.
    for case in cases:
        run(_shortened(case))
    runs: list[list[Measurement]] = [[] for _ in cases]
    peaks: list[list[int]] = [[] for _ in cases]
    # In turn: what else the machine does, and when it slows down, falls on all cases alike.
    for _ in range(settings.repeats):
        for place, case in enumerate(cases):
            gc.collect()
            forget_peak(subject.device)
            runs[place].append(run(case))
            if (peak := peak_memory(subject.device)) is not None:
                peaks[place].append(peak)
    return [
        (_entry(case, subject, made, max(own, default=None)), made[-1].tokens)
        for case, made, own in zip(cases, runs, peaks, strict=True)
    ]


def _shortened(case: Case) -> Case:
    return replace(case, length=case.options.block_length) if isinstance(case, WritingCase) else case


def _entry(case: Case, subject: Subject, runs: Sequence[Measurement], memory: int | None) -> Results:
    last = runs[-1]
    seconds = {stage: median(run.seconds.get(stage, 0.0) for run in runs) for stage in STAGES}
    seconds["total"] = median(run.total for run in runs)
    writing = seconds["prefill"] + seconds["denoise"]
    return {
        **{name: value for name, value in asdict(case).items() if name not in ("name", "options")},
        **({"options": case.options.stated()} if isinstance(case, WritingCase) else {}),
        "case": case.name,
        "model": subject.name,
        "weights": subject.weights,
        "parameters": sum(parameter.numel() for parameter in subject.backbone.parameters()),
        "dtype": subject.dtype,
        "seconds": {stage: _rounded(value) for stage, value in seconds.items()},
        "repeats": [_rounded(run.total) for run in runs],
        "forwards": last.forwards,
        "tokens": last.written,
        "tokens_per_forward": _rounded(last.written / last.forwards) if last.forwards else None,
        "tokens_per_second": _rounded(last.written / writing) if writing else None,
        "seconds_per_picture": _rounded(seconds["total"] / last.pictures) if last.pictures else None,
        "peak_memory_bytes": memory,
        "tokens_sha256": sha256(str(last.tokens).encode()).hexdigest() if last.tokens else None,
    }


def compare(entries: Sequence[Results], written: dict[tuple[str, str], list[int]]) -> list[Results]:
    """The comparisons of which both cases were run, for each dtype.

    Args:
        written: the tokens of each case and dtype.
    """
    by_name = {(entry["case"], entry["dtype"]): entry for entry in entries}
    dtypes = list(dict.fromkeys(entry["dtype"] for entry in entries))
    found = []
    for comparison in COMPARISONS:
        for dtype in dtypes:
            slow, fast = by_name.get((comparison.slow, dtype)), by_name.get((comparison.fast, dtype))
            if slow is None or fast is None or slow["model"] != fast["model"]:
                continue
            value, target = _seconds(slow, comparison) / _seconds(fast, comparison), comparison.target
            entry = {
                "name": comparison.name,
                "model": fast["model"],
                "dtype": dtype,
                "value": _rounded(value),
                "target": target,
                "at_most": comparison.at_most,
                "reached": None if target is None else value <= target if comparison.at_most else value >= target,
            }
            if comparison.tokens is not None:
                entry["token_agreement"] = agreement(written[comparison.slow, dtype], written[comparison.fast, dtype])
            found.append(entry)
    return found


def agreement(first: Sequence[int], second: Sequence[int]) -> float:
    """The share of positions at which two texts of one length have the same token, in [0, 1]."""
    return sum(one == other for one, other in zip(first, second, strict=True)) / len(first)


def _seconds(entry: Results, comparison: Comparison) -> float:
    return entry["seconds"]["denoise" if comparison.denoising_only else "total"]


def _against(comparisons: Sequence[Results]) -> Results:
    own = [entry for entry in comparisons if entry["name"] == AGAINST_DIFFUSERS]
    if not own:
        return {}
    return {
        "diffusers": {
            "speedup": min(entry["value"] for entry in own),
            "same_tokens": all(entry["token_agreement"] == 1 for entry in own),
            "speedups": {entry["dtype"]: entry["value"] for entry in own},
        }
    }


def _rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


@contextmanager
def with_threads(count: int | None) -> Iterator[None]:
    """Computes with so many threads; None leaves them as they are."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
