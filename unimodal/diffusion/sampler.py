"""Block diffusion: fills masks block by block (arXiv 2512.15745; LLaDA, arXiv 2502.09992).

`stream` is a generator of states, one per step; `sample` drains it. A step

1. computes the logits of the block in all guidance branches and combines them,
2. proposes one token per position, with its probability,
3. writes those that the policy chooses.

A sample is done when all it asked for is filled, when a block is full and holds a stop token, or, with
`eos_early_stop`, as soon as nothing is masked before its first stop token. Samples of a batch work on their n-th block
together and leave the batch when they are done, or before the next step when nobody wants them any more. A step reads
from the device once.

Legend: N samples, G branches, B positions of a block, V vocabulary.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from unimodal.diffusion.canvas import Canvas, Locate
from unimodal.diffusion.denoiser import CachedDenoiser, Denoiser, MakeDenoiser, PlainDenoiser
from unimodal.diffusion.guidance import Guidance, NoGuidance
from unimodal.diffusion.options import Plan, SamplingOptions, SamplingTask
from unimodal.diffusion.run import Run
from unimodal.diffusion.states import SampleState, SamplingResult, StepState, drain

__all__ = ["SampleState", "SamplingOptions", "SamplingResult", "SamplingTask", "StepState", "drain", "sample", "stream"]


def sample(model: Any, tasks: Sequence[SamplingTask], options: SamplingOptions, **settings: Any) -> SamplingResult:
    """Drains `stream`, which takes the same arguments."""
    return drain(stream(model, tasks, options, **settings))


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
    wanted: Callable[[int], bool] | None = None,
) -> Iterator[StepState]:
    """Yields a state after every step. The generator may be closed at any time; nothing but the random generators of
    the tasks outlives it.

    Args:
        model: called like `MaskedDiffusionTransformer.forward`.
        mask_id: marks what is to fill; it is never proposed.
        stop_ids: a result ends with the first of these, if there is one.
        vocab_range: proposals come from these ids only, first and one past the last.
        use_cache: False computes all that came before in every step; the result is the same.
        denoiser: makes what is used in place of both, from the model and the range of the vocabulary.
        locate: rows and columns of picture codes, for a model that wants them (`SequenceBuilder.coordinates`).
        joined: as the span `answer`, whatever the options say; then `given` tokens on the right are seen as well.
        wanted: asked before each step for the index of every sample in the batch. One for which it says False leaves at
            once and has no result; to the others it makes no difference.

    Raises:
        ValueError: no tasks, an empty prompt, a length below 1, a number of prompts that the guidance does not have, or
            stop ids with a policy that is for pictures only.
    """
    guidance = guidance or NoGuidance()
    _check(tasks, options, guidance, stop_ids, joined)
    canvas = Canvas.lay_out(
        [[task.prompt, *task.others] for task in tasks],
        [task.length for task in tasks],
        block_length=options.block_length,
        mask_id=mask_id,
        device=device,
        locate=locate,
        given=[task.given for task in tasks],
        joined=joined or options.span == "answer",
        whole=options.span == "sequence",
    )
    # Guided logits depend on the whole vocabulary through their spread; then the range is cut out afterwards.
    head_range = None if guidance.needs_whole_vocabulary else vocab_range
    first_id = vocab_range[0] if vocab_range else 0
    make = denoiser or (CachedDenoiser if use_cache else PlainDenoiser)
    source: Denoiser = make(model, head_range)
    run = Run(canvas, tasks, options, mask_id=mask_id, stop_ids=stop_ids)
    plan = _plan(tasks, options, guidance, mask_id)
    started = time.perf_counter()
    block = canvas.first_block

    def state(step: int, samples: Sequence[SampleState], results: dict[int, Tensor]) -> StepState:
        return StepState(
            block=block - canvas.first_block,
            step=step,
            samples=samples,
            results=results,
            forwards=source.forwards,
            computed=source.computed,
            seconds=time.perf_counter() - started,
            plan=plan,
        )

    def go_on_with(kept: Sequence[int]) -> Tensor:
        rows = torch.tensor(kept, device=canvas.tokens.device, dtype=torch.long)
        source.keep(canvas.rows(rows))
        run.keep(kept, rows)
        return rows

    while run.active:
        step, logits, places = 0, None, None
        run.begin(block)
        while run.busy:
            if wanted is not None and (kept := run.wanted(wanted)) is not None:
                if not kept:
                    return
                # First, since a denoiser may own them: see `RecordedSteps`.
                logits = None if logits is None else logits[kept]
                guidance = guidance.select(go_on_with(kept))
                continue
            if logits is None or run.changed:
                places = run.places_in_question()
                branches = source.logits(canvas, block, places).unflatten(0, (canvas.num_branches, -1))
                logits = guidance.combine(branches, places)
                if vocab_range is not None and head_range is None:
                    logits = logits[..., slice(*vocab_range)]
            yield state(step, *run.step(step, logits, first_id, places))
            step += 1
        if run.complete:
            yield state(step, *run.end_complete())
        if (kept := run.survivors()) is not None:
            guidance = guidance.select(go_on_with(kept))
        block += 1


def _check(
    tasks: Sequence[SamplingTask],
    options: SamplingOptions,
    guidance: Guidance,
    stop_ids: Sequence[int],
    joined: bool,
) -> None:
    if not tasks:
        raise ValueError("tasks: got none, at least one is needed")
    for task in tasks:
        if 1 + len(task.others) != guidance.num_branches:
            raise ValueError(
                f"others: got {len(task.others)} prompts, the guidance has {guidance.num_branches} branches"
            )
    if joined and options.span == "sequence":
        raise ValueError("span: got 'sequence', what is filled here is one block behind its prompt: block or answer")
    if stop_ids and not options.make_policy().ends_text:
        raise ValueError(
            f"policy: got {options.policy!r}, it is for pictures; text that ends at a stop token needs another"
        )


def _plan(tasks: Sequence[SamplingTask], options: SamplingOptions, guidance: Guidance, mask_id: int) -> Plan:
    fields = dataclasses.fields(guidance) if dataclasses.is_dataclass(guidance) else ()
    values = {field.name: getattr(guidance, field.name) for field in fields}
    scales = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return Plan(
        prompts=[list(task.prompt) for task in tasks],
        lengths=[task.length for task in tasks],
        given=[None if task.given is None else list(task.given) for task in tasks],
        mask_id=mask_id,
        settings={**options.stated(), "guidance": scales},
    )
