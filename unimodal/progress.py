"""Progress of a call: a bar per stage, and the caller's own function after every step."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from unimodal.vocab import UnifiedVocab
from unimodal.writer import WritingStep
from unimodal_decoders.flow import FlowState

Value = TypeVar("Value")

StepCallback = Callable[[Any, int, int, dict[str, Any]], object]

TITLES = {"text": "Writing", "thinking": "Thinking", "picture": "Drawing", "decode": "Decoding"}


class Progress(AbstractContextManager["Progress"]):
    """Shows steps in a bar and hands them to the caller's function.

    The function is called as `callback(pipe, step, timestep, values)`: `step` counts the steps of the whole call,
    `timestep` those of the block or of the decoder. `values` has `stage` ("text", "thinking", "picture" or "decode"),
    `state` (a `StepState` or `FlowState`) and, for pictures, `grids`: for each sample of the state the codes [H, W],
    -1 where nothing is decided. What it raises ends the call.

    It may return a mapping. Under `dropped` that has the places of samples that are not wanted any more, counted over
    the call: they leave before the next step, which makes no difference to the others, and the call returns those of
    the others alone. Other keys count for nothing, and while pixels are decoded nobody leaves.

    Args:
        num_samples: of the call; None where the only one is an answer in parts, which only an error ends.
    """

    def __init__(
        self,
        pipe: Any,
        vocab: UnifiedVocab,
        callback: StepCallback | None,
        bar_options: Mapping[str, Any],
        num_samples: int | None = None,
    ) -> None:
        self._pipe = pipe
        self._vocab = vocab
        self._callback = callback
        self._bar_options = dict(bar_options)
        self._bar: tqdm | None = None
        self._goals: Sequence[int] | None = None
        self._done: dict[int, int] = {}
        self._steps = 0
        self._num_samples = num_samples
        self._dropped: set[int] = set()

    @property
    def dropped(self) -> list[int]:
        """Places of the samples that have left."""
        return sorted(self._dropped)

    def wanted(self, place: int) -> bool:
        return place not in self._dropped

    def stayed(self, values: Iterable[Value]) -> list[Value]:
        """Of values for each sample those of the samples that have not left."""
        return [value for place, value in enumerate(values) if self.wanted(place)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def writing(self, step: WritingStep) -> None:
        """After a step of the sampler."""
        state = step.state
        # All steps of one run have the same goals. The first is not always in the first block, which may be given.
        if step.goals is not self._goals:
            self._goals = step.goals
            self._open(step.stage, sum(step.goals), "token")
            self._done = dict.fromkeys(range(len(step.goals)), 0)
        for sample in state.samples:
            # A sample that ends early has nothing left to do.
            self._done[sample.index] += len(sample.committed)
            if sample.done:
                self._done[sample.index] = step.goals[sample.index]
        self._show(sum(self._done.values()))
        if self._callback is not None:
            returned = self._call(state.step, self.values(step))
            if isinstance(returned, Mapping) and returned.get("dropped"):
                self._drop(returned["dropped"])

    def values(self, step: WritingStep) -> dict[str, Any]:
        """What the caller's function is told about a step of the sampler."""
        values: dict[str, Any] = {"stage": step.stage, "state": step.state}
        if step.sizes is not None:
            sizes = step.sizes
            values["grids"] = [self._grid(sample.tokens, *sizes[sample.index]) for sample in step.state.samples]
        return values

    def decoding(self, state: FlowState) -> None:
        """After a step of the pixel decoder."""
        if state.step <= 1:
            self._open("decode", state.num_steps, "step")
        self._show(state.step)
        if self._callback is not None:
            self._call(state.step, {"stage": "decode", "state": state})

    def _grid(self, tokens: Tensor, height: int, width: int) -> Tensor:
        known = tokens != self._vocab.mask_id
        codes = torch.full_like(tokens, -1)
        codes[known] = self._vocab.tokens_to_codes(tokens[known])
        return codes.reshape(height, width)

    def _call(self, timestep: int, values: dict[str, Any]) -> object:
        assert self._callback is not None
        returned = self._callback(self._pipe, self._steps, timestep, values)
        self._steps += 1
        return returned

    def _drop(self, places: Iterable[int]) -> None:
        if self._num_samples is None:
            raise ValueError("callback_on_step_end: it dropped the only sample of a call; to end it, raise an error")
        left = set(places)
        if not left <= set(range(self._num_samples)):
            raise ValueError(
                f"callback_on_step_end: it dropped {sorted(left)}, the call has samples 0 to {self._num_samples - 1}"
            )
        self._dropped |= left

    def _open(self, stage: str, total: int, unit: str) -> None:
        self.close()
        options = {"leave": False, "unit": unit, **self._bar_options}
        self._bar = tqdm(total=total, desc=TITLES[stage], **options)

    def _show(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
