"""Block diffusion: fills masks block by block, the surest tokens first (arXiv 2512.15745; LLaDA, arXiv 2502.09992).

`stream` is a generator of states, one per step; `sample` drains it. A step

1. computes the logits of the block in all guidance branches and combines them,
2. proposes one token per masked position, with its probability,
3. commits those that the unmasking rule chooses; a committed token is never masked again.

A sample is done when its last block is full, when a block is full and holds a stop token, or, with `eos_early_stop`,
as soon as nothing is masked before its first stop token. Samples of a batch work on their n-th block together and
leave the batch when they are done.

Legend: N samples, G branches, B positions of a block, V vocabulary.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unimodal.diffusion.canvas import Canvas, Locate
from unimodal.diffusion.denoiser import CachedDenoiser, Denoiser, MakeDenoiser, PlainDenoiser
from unimodal.diffusion.filtering import propose
from unimodal.diffusion.guidance import Guidance, NoGuidance
from unimodal.diffusion.schedule import AdaptiveRule, QuotaRule, UnmaskingRule


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How a block is filled.

    Args:
        num_inference_steps: steps per block; more than the block has positions changes nothing.
        block_length: positions that are filled together.
        threshold: a proposal that is strictly more probable is committed at once; 1 leaves it to the steps alone.
        temperature: 0 takes the most probable token, above it tokens are drawn.
        top_k, top_p: limits of what is drawn from.
        eos_early_stop: ends a sample within a block, once its first stop token has no mask before it.
        minimal_topk: tokens that a step commits at least; it limits the steps of short generations.
        adaptive: the unmasking rule of SPRINT in the place of quotas.

    Raises:
        ValueError: a value out of its range.
    """

    num_inference_steps: int = 32
    block_length: int = 32
    threshold: float = 0.95
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    eos_early_stop: bool = True
    minimal_topk: int = 1
    adaptive: bool = False

    def __post_init__(self) -> None:
        for name in ("num_inference_steps", "block_length", "minimal_topk", "top_k"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}: got {value!r}, it must be a whole number of at least 1")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: got {self.threshold}, it must be between 0 and 1")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature: got {self.temperature}, it must be a finite number of 0 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: got {self.top_p}, it must be above 0 and at most 1")

    def rule(self) -> UnmaskingRule:
        if self.adaptive:
            return AdaptiveRule(threshold=self.threshold, minimal_topk=self.minimal_topk)
        return QuotaRule(threshold=self.threshold)

    def steps_for(self, length: int) -> int:
        """Steps per block when `length` tokens are generated."""
        return max(1, min(self.num_inference_steps, length // self.minimal_topk))


@dataclass(frozen=True, kw_only=True)
class SamplingTask:
    """What to fill, for one sample.

    Args:
        prompt: tokens that it goes on from.
        length: tokens to generate at most.
        others: the prompts of the other guidance branches.
        given: tokens that stand already, int [length], the mask id where one is to be found. They are never changed.
        generator: draws this sample's tokens; without one a newly seeded one does.
    """

    prompt: Sequence[int]
    length: int
    others: Sequence[Sequence[int]] = ()
    given: Sequence[int] | None = None
    generator: torch.Generator | None = None


@dataclass(frozen=True, kw_only=True)
class SampleState:
    """One sample after a step. Positions count from the end of its prompt.

    Args:
        tokens: int64 [length], the mask id where nothing is known; only the result, [≤ length], if `done`.
        committed: the positions that this step filled, int64 [n].
        confidence: the probabilities of the proposals at those positions, float32 [n].
        done: no more states of this sample follow.
    """

    index: int
    tokens: Tensor
    committed: Tensor
    confidence: Tensor
    done: bool


@dataclass(frozen=True, kw_only=True)
class StepState:
    """A batch after one step: the samples that took part in it, and what it has cost so far.

    Args:
        block: blocks finished before this one.
        step: steps that the block had before this one.
        forwards: passes through the model so far.
        computed: columns that they computed, of each row.
        seconds: time since the start.
    """

    block: int
    step: int
    samples: tuple[SampleState, ...]
    forwards: int
    computed: int
    seconds: float


@dataclass(kw_only=True)
class SamplingResult:
    """The generated tokens of each sample, int64, and what they cost."""

    tokens: list[Tensor] = field(default_factory=list)
    forwards: int = 0
    computed: int = 0
    seconds: float = 0.0


def sample(model: Any, tasks: Sequence[SamplingTask], options: SamplingOptions, **settings: Any) -> SamplingResult:
    """Drains `stream`, which takes the same arguments."""
    return drain(stream(model, tasks, options, **settings))


def drain(states: Iterator[StepState]) -> SamplingResult:
    """The result of a stream of states."""
    found: dict[int, Tensor] = {}
    result = SamplingResult()
    for state in states:
        found |= {sample.index: sample.tokens for sample in state.samples if sample.done}
        result.forwards, result.computed, result.seconds = state.forwards, state.computed, state.seconds
    result.tokens = [found[index] for index in sorted(found)]
    return result


@torch.no_grad()
def stream(
    model: Any,
    tasks: Sequence[SamplingTask],
    options: SamplingOptions,
    *,
    mask_id: int,
    stop_ids: Sequence[int] = (),
    vocab_range: tuple[int, int] | None = None,
    guidance: Guidance | None = None,
    use_cache: bool = True,
    denoiser: MakeDenoiser | None = None,
    device: torch.device | str = "cpu",
    locate: Locate | None = None,
    joined: bool = False,
) -> Iterator[StepState]:
    """Yields a state after every step.

    Args:
        model: called like `MaskedDiffusionTransformer.forward`.
        mask_id: marks what is to fill; it is never proposed.
        stop_ids: a result ends with the first of these, if there is one.
        vocab_range: proposals come from these ids only, first and one past the last.
        use_cache: False computes all that came before in every step; the result is the same.
        denoiser: makes what is used in place of both, from the model and the range of the vocabulary.
        locate: rows and columns of picture codes, for a model that wants them (`SequenceBuilder.coordinates`).
        joined: everything from the block on in which the longest prompt ends is filled as one block, whose positions
            see each other; then `given` tokens on the right are seen as well.

    Raises:
        ValueError: no tasks, an empty prompt, a length below 1, or a number of prompts that the guidance does not have.
    """
    guidance = guidance or NoGuidance()
    if not tasks:
        raise ValueError("tasks: got none, at least one is needed")
    for task in tasks:
        if 1 + len(task.others) != guidance.num_branches:
            raise ValueError(
                f"others: got {len(task.others)} prompts, the guidance has {guidance.num_branches} branches"
            )
    canvas = Canvas.lay_out(
        [[task.prompt, *task.others] for task in tasks],
        [task.length for task in tasks],
        block_length=options.block_length,
        mask_id=mask_id,
        device=device,
        locate=locate,
        given=[task.given for task in tasks],
        joined=joined,
    )
    # Guided logits depend on the whole vocabulary through their spread; then the range is cut out afterwards.
    head_range = None if guidance.needs_whole_vocabulary else vocab_range
    make = denoiser or (CachedDenoiser if use_cache else PlainDenoiser)
    source: Denoiser = make(model, head_range)
    run = _Run(canvas, tasks, options, mask_id=mask_id, stop_ids=stop_ids)
    started = time.perf_counter()
    block = canvas.first_block

    def state(step: int, samples: tuple[SampleState, ...]) -> StepState:
        return StepState(
            block=block - canvas.first_block,
            step=step,
            samples=samples,
            forwards=source.forwards,
            computed=source.computed,
            seconds=time.perf_counter() - started,
        )

    while run.active:
        step = 0
        while bool((run.masked(block) & run.alive[:, None]).any()):
            logits = source.logits(canvas, block)
            logits = guidance.combine(logits.unflatten(0, (canvas.num_branches, -1)))
            if vocab_range is not None and head_range is None:
                logits = logits[..., slice(*vocab_range)]
            yield state(step, run.commit(block, step, logits, first_id=vocab_range[0] if vocab_range else 0))
            step += 1
        if complete := run.complete(block):
            yield state(step, complete)
        survivors = run.survivors()
        if survivors is not None:
            source.keep(canvas.rows(survivors))
            run.keep(survivors)
        block += 1


class _Run:
    """The samples that are still in the batch: which they are, and when each is done."""

    def __init__(
        self,
        canvas: Canvas,
        tasks: Sequence[SamplingTask],
        options: SamplingOptions,
        *,
        mask_id: int,
        stop_ids: Sequence[int],
    ):
        self._canvas = canvas
        self._options = options
        self._rule = options.rule()
        self._mask_id = mask_id
        device = canvas.tokens.device
        self._stop_ids = torch.tensor(list(stop_ids), dtype=torch.long, device=device)
        self._steps = torch.tensor([options.steps_for(task.length) for task in tasks], device=device)
        self._lengths = [task.length for task in tasks]
        self._given = any(task.given is not None for task in tasks)
        self._generators = (
            [task.generator or _unseeded() for task in tasks] if options.temperature else [None] * len(tasks)
        )
        self.active = list(range(len(tasks)))
        self.alive = torch.ones(len(tasks), dtype=torch.bool, device=device)

    def masked(self, block: int) -> Tensor:
        """Positions of the block that are to fill, bool [N, B]."""
        return self._canvas.samples()[:, self._canvas.columns(block)] == self._mask_id

    def commit(self, block: int, step: int, logits: Tensor, first_id: int) -> tuple[SampleState, ...]:
        """Takes one step from the logits [N, B, V], whose first entry is that of token `first_id`."""
        options, columns = self._options, self._canvas.columns(block)
        forbidden = self._mask_id - first_id
        masked = self.masked(block) & self.alive[:, None]
        working = masked.any(dim=1).tolist()
        # A sample that waits for the others draws nothing, so that it goes on with the same numbers as alone.
        generators = [source if works else None for source, works in zip(self._generators, working, strict=True)]
        choice, confidence = propose(
            logits,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            forbidden=forbidden if 0 <= forbidden < logits.shape[-1] else None,
            generators=generators,
        )
        chosen = self._rule.choose(confidence, masked, step, self._steps)
        self._canvas.fill(block, choice + first_id, chosen)
        full = (~self.masked(block)).all(dim=1).tolist()
        states = []
        for row, index in enumerate(self.active):
            if not working[row]:
                continue
            start = int(self._canvas.starts[row])
            tokens, done = self._result(row, start, columns.stop, block_full=full[row])
            places = chosen[row].nonzero().squeeze(1)
            inside = places + columns.start - start < self._lengths[index]
            states.append(
                SampleState(
                    index=index,
                    tokens=tokens.clone(),
                    committed=(places + columns.start - start)[inside],
                    confidence=confidence[row, places][inside],
                    done=done,
                )
            )
            if done:
                self.alive[row] = False
        return tuple(states)

    def complete(self, block: int) -> tuple[SampleState, ...]:
        """The samples that end with a block in which they had nothing to fill, because it was given."""
        states = []
        for row, index in enumerate(self.active if self._given else []):
            tokens, done = self._result(
                row, int(self._canvas.starts[row]), self._canvas.columns(block).stop, block_full=True
            )
            if done and self.alive[row]:
                self.alive[row] = False
                nothing = torch.zeros(0, device=tokens.device)
                states.append(
                    SampleState(
                        index=index, tokens=tokens.clone(), committed=nothing.long(), confidence=nothing, done=True
                    )
                )
        return tuple(states)

    def _result(self, row: int, start: int, stop: int, *, block_full: bool) -> tuple[Tensor, bool]:
        """The tokens of a sample, cut to its result if it is done; blocks are filled or in work up to column `stop`."""
        length = self._lengths[self.active[row]]
        tokens = self._canvas.tokens[row, start : start + length]
        known = self._canvas.tokens[row, start:stop]
        first_stop = torch.isin(known, self._stop_ids).nonzero()
        if len(first_stop):
            end = int(first_stop[0]) + 1
            settled = self._options.eos_early_stop and not bool((known[:end] == self._mask_id).any())
            if block_full or settled:
                return tokens[:end], True
        return tokens, block_full and stop - start >= length

    def survivors(self) -> Tensor | None:
        """Indices of the samples to go on with, None if all do."""
        return None if bool(self.alive.all()) else self.alive.nonzero().squeeze(1)

    def keep(self, samples: Tensor) -> None:
        kept = samples.tolist()
        self._canvas.keep(samples)
        self._steps, self.alive = self._steps[samples], self.alive[samples]
        self.active = [self.active[row] for row in kept]
        self._generators = [self._generators[row] for row in kept]


def _unseeded() -> torch.Generator:
    generator = torch.Generator()
    generator.seed()
    return generator
