"""The states that a sampler yields, one per step, and the result that they add up to.

Legend: N samples.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import torch
from torch import Tensor

from unimodal.diffusion.options import Plan


def _no_places() -> Tensor:
    return torch.zeros(0, dtype=torch.long)


def _no_shares() -> Tensor:
    return torch.zeros(0)


@dataclass(frozen=True, kw_only=True)
class SampleState:
    """One sample after a step. Positions count from the end of its prompt. All tensors are on the CPU.

    Args:
        tokens: int64 [length], the mask id where nothing is known; only the result, [≤ length], if `done`.
        committed: the positions that this step filled, int64 [n].
        confidence: the probabilities of the tokens that it wrote there, float32 [n].
        replaced: the positions whose token this step replaced by another, int64 [m].
        replaced_confidence: the probabilities of the new tokens, float32 [m].
        done: no more states of this sample follow.
    """

    index: int
    tokens: Tensor
    committed: Tensor
    confidence: Tensor
    replaced: Tensor = field(default_factory=_no_places)
    replaced_confidence: Tensor = field(default_factory=_no_shares)
    done: bool


@dataclass(frozen=True, kw_only=True)
class StepState:
    """A batch after one step: the samples that took part in it, and what it has cost so far.

    Args:
        block: blocks finished before this one.
        step: steps that the block had before this one.
        samples: read from the device when they are first looked at.
        results: the tokens of the samples that are done with this step, int64 [≤ length], by index.
        forwards: passes through the model so far.
        computed: columns that they computed, of each row.
        seconds: time since the start.
        plan: what was asked for, the same in all states of a stream.
    """

    block: int
    step: int
    samples: Sequence[SampleState]
    results: Mapping[int, Tensor]
    forwards: int
    computed: int
    seconds: float
    plan: Plan


class LazySamples(Sequence[SampleState]):
    """Sample states that are made when they are first looked at."""

    def __init__(self, make: Callable[[], Sequence[SampleState]]):
        self._make: Callable[[], Sequence[SampleState]] | None = make
        self._made: Sequence[SampleState] = ()

    def _samples(self) -> Sequence[SampleState]:
        if self._make is not None:
            self._made, self._make = tuple(self._make()), None
        return self._made

    @overload
    def __getitem__(self, place: int) -> SampleState: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[SampleState]: ...

    def __getitem__(self, place: int | slice) -> SampleState | Sequence[SampleState]:
        return self._samples()[place]

    def __len__(self) -> int:
        return len(self._samples())


@dataclass(kw_only=True)
class SamplingResult:
    """The generated tokens of each sample, int64 [≤ length] on the CPU, and what they cost; none, [0], of a sample that
    has no result.
    """

    tokens: list[Tensor] = field(default_factory=list)
    forwards: int = 0
    computed: int = 0
    seconds: float = 0.0


def drain(states: Iterable[StepState]) -> SamplingResult:
    """The result of a stream of states."""
    found: dict[int, Tensor] = {}
    result, count = SamplingResult(), 0
    for state in states:
        found |= state.results
        result.forwards, result.computed, result.seconds = state.forwards, state.computed, state.seconds
        count = len(state.plan.lengths)
    result.tokens = [found.get(index, _no_places()) for index in range(count)]
    return result
