"""Traces: what a run wrote, step by step, in a JSON file from which it can be played again without a model.

    recorder = TraceRecorder(facts={"prompt": prompt, "seed": 7})
    output = pipe.generate(prompt, callback_on_step_end=recorder)
    recorder.trace(codes=output.codes).save("cat.trace.json")
    for state in Trace.load("cat.trace.json").states(): ...

A job may sample several times (thoughts, then a picture): a trace has one part for each.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from unimodal.diffusion.options import Plan
from unimodal.diffusion.states import SampleState, StepState, drain
from unimodal.diffusion.trace_file import PartRecord, SampleRecord, StepRecord, TraceRecord
from unimodal_configs.atomic import replacing


@dataclass(frozen=True, kw_only=True)
class TracePart:
    """One stream of states.

    Args:
        stage: what was written, as "text", "thinking" or "picture".
        sizes: (H, W) of the grid of each sample, for pictures.
    """

    stage: str
    plan: Plan
    sizes: Sequence[tuple[int, int]] | None
    record: PartRecord

    def states(self) -> Iterator[StepState]:
        """The states as the sampler yielded them.

        Raises:
            ValueError: the steps do not fit together.
        """
        return replay(self.plan, self.record.steps)

    def tokens(self) -> list[Tensor]:
        """The result of each sample, int64 [n].

        Raises:
            ValueError: the run was ended before all samples were done.
        """
        tokens = drain(self.states()).tokens
        done = sum(len(answer) > 0 for answer in tokens)
        if done < len(self.plan.lengths):
            raise ValueError(f"steps: {done} of {len(self.plan.lengths)} samples were done when the run ended")
        return tokens


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A run.

    Args:
        parts: its streams in order.
        codes: int64 [H, W] of each picture that came out.
        facts: whatever describes the run: model, prompt, seed.
    """

    parts: Sequence[TracePart]
    codes: Sequence[Tensor] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def states(self) -> Iterator[StepState]:
        """The states of all parts, one part after the other."""
        for part in self.parts:
            yield from part.states()

    def save(self, path: str | Path) -> None:
        """Writes the trace; the file appears whole or not at all.

        Raises:
            ValueError: facts that JSON cannot hold.
        """
        text = TraceRecord.of(
            facts=self.facts, codes=[grid.tolist() for grid in self.codes], parts=[part.record for part in self.parts]
        ).to_json()
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a trace and plays it once, so that `states` cannot fail later.

        Raises:
            ValueError: no such file, or one that is damaged; the message says what is wrong in it.
        """
        record = TraceRecord.read(path)
        trace = cls(
            parts=[
                TracePart(stage=part.stage, plan=part.plan(), sizes=part.sizes, record=part) for part in record.parts
            ],
            codes=[torch.tensor(grid, dtype=torch.long) for grid in record.codes],
            facts=record.facts,
        )
        try:
            for _ in trace.states():
                pass
        except ValueError as error:
            raise ValueError(f"path: {str(path)!r} is no whole trace ({error})") from None
        return trace


class TraceRecorder:
    """Collects the states of a run. It is a `callback_on_step_end` of the pipeline's jobs; `add` takes states from
    anywhere else.
    """

    def __init__(self, facts: Mapping[str, Any] | None = None):
        self._facts = dict(facts or {})
        self._parts: list[TracePart] = []
        self._plan: Plan | None = None

    def __call__(self, pipe: Any, step: int, timestep: int, values: Mapping[str, Any]) -> None:
        state = values["state"]
        if isinstance(state, StepState):
            grids = values.get("grids")
            self.add(state, stage=values["stage"], sizes=grids and [(grid.shape[0], grid.shape[1]) for grid in grids])

    def add(self, state: StepState, *, stage: str = "text", sizes: Sequence[tuple[int, int]] | None = None) -> None:
        """Takes a state. Those of one stream come in order; a new stream begins a new part.

        Args:
            sizes: (H, W) of the grid of each sample of the state; those of the first state of a stream count.
        """
        if state.plan is not self._plan:
            self._plan = state.plan
            shown = None if sizes is None else [(height, width) for height, width in sizes]
            record = PartRecord.of_plan(state.plan, stage=stage, sizes=shown)
            self._parts.append(TracePart(stage=stage, plan=state.plan, sizes=shown, record=record))
        self._parts[-1].record.steps.append(StepRecord.of_state(state))

    def trace(self, codes: Iterable[Tensor] = ()) -> Trace:
        """What was collected, with the codes [H, W] of the pictures that came out of it."""
        return Trace(parts=list(self._parts), codes=[grid.cpu() for grid in codes], facts=self._facts)


def replay(plan: Plan, steps: Sequence[StepRecord]) -> Iterator[StepState]:
    """The states of a stream from what each step wrote.

    Raises:
        ValueError: a step writes where nothing is to be written, or follows the end of its sample.
    """
    answers = [
        torch.full((length,), plan.mask_id) if given is None else torch.tensor(list(given), dtype=torch.long)
        for length, given in zip(plan.lengths, plan.given, strict=True)
    ]
    ended: set[int] = set()
    before = (-1, 0)
    for number, step in enumerate(steps):
        if (step.block, step.step) <= before:
            raise ValueError(f"step {number}: block {step.block}, step {step.step} comes after {before}")
        before, samples = (step.block, step.step), []
        for record in step.samples:
            if not 0 <= record.index < len(answers) or record.index in ended:
                raise ValueError(f"step {number}: there is no sample {record.index} at work")
            try:
                samples.append(_after(answers[record.index], record, plan.mask_id))
            except ValueError as error:
                raise ValueError(f"step {number}, sample {record.index}: {error}") from None
            if record.done:
                ended.add(record.index)
        yield StepState(
            block=step.block,
            step=step.step,
            samples=tuple(samples),
            results={sample.index: sample.tokens for sample in samples if sample.done},
            forwards=step.forwards,
            computed=step.computed,
            seconds=step.seconds,
            plan=plan,
        )


def _after(answer: Tensor, record: SampleRecord, mask_id: int) -> SampleState:
    """Writes what a step wrote into an answer [length]."""
    places = [*record.committed, *record.replaced]
    if any(not 0 <= place < len(answer) for place in places):
        raise ValueError(f"positions are {places}, there are {len(answer)}")
    committed, replaced = torch.tensor(record.committed).long(), torch.tensor(record.replaced).long()
    twice = len(set(places)) < len(places) or bool((answer[committed] != mask_id).any())
    if twice or (answer[replaced] == mask_id).any():
        raise ValueError("a position is filled twice, or replaced before it is filled")
    answer[committed] = torch.tensor(record.tokens).long()
    answer[replaced] = torch.tensor(record.replaced_tokens).long()
    tokens = answer.clone()
    if record.done:
        if record.length is None or not 0 < record.length <= len(answer):
            raise ValueError(f"its result has {record.length} of {len(answer)} tokens")
        tokens = tokens[: record.length]
        if (tokens == mask_id).any():
            raise ValueError("its result has positions that no step fills")
    return SampleState(
        index=record.index,
        tokens=tokens,
        committed=committed,
        confidence=torch.tensor(record.confidence, dtype=torch.float32),
        replaced=replaced,
        replaced_confidence=torch.tensor(record.replaced_confidence, dtype=torch.float32),
        done=record.done,
    )
