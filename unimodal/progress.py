"""Progress of a call: a bar per stage, and the caller's own function after every step."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from tqdm.auto import tqdm

from unimodal.vocab import UnifiedVocab
from unimodal.writer import WritingStep
from unimodal_decoders.flow import FlowState

StepCallback = Callable[[Any, int, int, dict[str, Any]], object]

TITLES = {"text": "Writing", "thinking": "Thinking", "picture": "Drawing", "decode": "Decoding"}


class Progress(AbstractContextManager["Progress"]):
    """Shows steps in a bar and hands them to the caller's function.

    The function is called as `callback(pipe, step, timestep, values)`: `step` counts the steps of the whole call,
    `timestep` those of the block or of the decoder. `values` has `stage` ("text", "thinking", "picture" or "decode"),
    `state` (a `StepState` or `FlowState`) and, for pictures, `grids`: for each sample of the state the codes [H, W],
    -1 where nothing is decided. What it returns is ignored; what it raises ends the call.
    """

    def __init__(
        self, pipe: Any, vocab: UnifiedVocab, callback: StepCallback | None, bar_options: Mapping[str, Any]
    ) -> None:
        self._pipe = pipe
        self._vocab = vocab
        self._callback = callback
        self._bar_options = dict(bar_options)
        self._bar: tqdm | None = None
        self._goals: Sequence[int] | None = None
        self._done: dict[int, int] = {}
        self._steps = 0

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
            self._call(state.step, self.values(step))

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

    def _call(self, timestep: int, values: dict[str, Any]) -> None:
        assert self._callback is not None
        self._callback(self._pipe, self._steps, timestep, values)
        self._steps += 1

    def _open(self, stage: str, total: int, unit: str) -> None:
        self.close()
        options = {"leave": False, "unit": unit, **self._bar_options}
        self._bar = tqdm(total=total, desc=TITLES[stage], **options)

    def _show(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
