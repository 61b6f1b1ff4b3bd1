"""The backbone as a writer of text and of pictures, in tokens: prompts in, tokens or grids of codes out.

All jobs are made of two acts. Text may use any token and ends at a stop token. A picture is exactly its grid of
codes, drawn from the picture range of the vocabulary under guidance. An interleaved answer is the two in turn.

Legend: N samples, H, W height and width of a grid of codes.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from unimodal.backbone import MaskedDiffusionTransformer
from unimodal.diffusion.denoiser import MakeDenoiser, PlainDenoiser
from unimodal.diffusion.guidance import Guidance
from unimodal.diffusion.prefixes import PrefixStore
from unimodal.diffusion.sampler import SampleState, SamplingOptions, SamplingResult, SamplingTask, StepState, stream
from unimodal.diffusion.sprint import SprintDenoiser, SprintOptions
from unimodal.diffusion.static_steps import denoiser_for
from unimodal.results import Stats
from unimodal.sequence import Branches, SequenceBuilder

Value = TypeVar("Value")
Generators = Sequence[torch.Generator | None]
Grid = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class WritingStep:
    """A step of the sampler, for those who watch.

    Args:
        stage: "text", "thinking" or "picture".
        state: tokens, confidences and cost.
        sizes: (H, W) of the grid of each sample in a "picture" stage.
        goals: tokens that each sample has room for.
        settled: how many of its first tokens no later step changes, for a sample of the state.
    """

    stage: str
    state: StepState
    sizes: Sequence[Grid] | None
    goals: Sequence[int]
    settled: Callable[[SampleState], int]


Watcher = Callable[[WritingStep], None]
Wanted = Callable[[int], bool]
Writing = Generator[WritingStep, None, Value]


def drained(steps: Writing[Value], watch: Watcher | None = None) -> Value:
    """Takes all steps, showing each to `watch`, and returns what they lead to."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value
        if watch is not None:
            watch(step)


class Writer:
    """Writes with one model and the sequences of its checkpoint.

    Args:
        use_cache: False is the slow twin, which computes everything in every step.
        prefixes: what calls leave for later ones that begin alike.
        sprint: prunes what a step reads; None reads everything.

    Raises:
        ValueError: `sprint` or `prefixes` without the cache that they work on.
    """

    def __init__(
        self,
        model: MaskedDiffusionTransformer,
        sequences: SequenceBuilder,
        *,
        use_cache: bool = True,
        prefixes: PrefixStore | None = None,
        sprint: SprintOptions | None = None,
    ):
        if not use_cache and (prefixes is not None or sprint is not None):
            raise ValueError(f"{'prefixes' if sprint is None else 'sprint'}: it needs use_cache=True")
        self.model = model
        self.sequences = sequences
        self.use_cache = use_cache
        self._denoiser: MakeDenoiser = PlainDenoiser
        if sprint is not None:
            is_picture = sequences.vocab.is_code
            self._denoiser = partial(SprintDenoiser, options=sprint, is_picture=is_picture, prefixes=prefixes)
        elif use_cache:
            self._denoiser = partial(denoiser_for(model.device, model.dtype), prefixes=prefixes)
        self._locate = sequences.locate_for(model.config.grid_rotary_dim)

    def text_steps(
        self,
        prompts: Sequence[Sequence[int]],
        options: SamplingOptions,
        length: int,
        *,
        generators: Generators | None = None,
        stops_at_picture: bool = False,
        stage: str = "text",
        stats: Stats | None = None,
        wanted: Wanted | None = None,
    ) -> Writing[list[Tensor]]:
        """The steps, and then the tokens that follow each prompt, through the first stop token, at most `length`;
        int64 [n].

        Args:
            stops_at_picture: also stops where a picture begins, and uses text tokens only.
            wanted: see `unimodal.diffusion.sampler.stream`; a text that nobody wanted before it was done is empty.
        """
        vocab = self.sequences.vocab
        sources = generators or [None] * len(prompts)
        tasks = [
            SamplingTask(prompt=prompt, length=length, generator=source)
            for prompt, source in zip(prompts, sources, strict=True)
        ]
        states = stream(
            self.model,
            tasks,
            options,
            mask_id=vocab.mask_id,
            stop_ids=[vocab.eos_id, vocab.boi_id] if stops_at_picture else [vocab.eos_id],
            vocab_range=vocab.text_range if stops_at_picture else None,
            denoiser=self._denoiser,
            device=self.model.device,
            locate=self._locate,
            wanted=wanted,
        )
        goals = [length] * len(tasks)
        return (yield from _steps(states, stage, None, goals, stats, tasks, options)).tokens

    def picture_steps(
        self,
        branches: Sequence[Branches],
        sizes: Sequence[Grid],
        options: SamplingOptions,
        guidance: Guidance,
        *,
        given: Sequence[Tensor | None] | None = None,
        generators: Generators | None = None,
        stats: Stats | None = None,
        wanted: Wanted | None = None,
    ) -> Writing[list[Tensor]]:
        """The steps, and then the codes [H, W] of one picture per prompt, of the given (H, W).

        Args:
            given: for each picture the codes [H, W] that stand already, -1 where one is to be drawn; None = draw all.
            wanted: as in `text_steps`; a picture that nobody wanted before it was done is -1 everywhere.
        """
        vocab = self.sequences.vocab
        sources = generators or [None] * len(branches)
        tasks = [
            SamplingTask(
                prompt=branch.prompt,
                length=height * width,
                others=branch.others[: guidance.num_branches - 1],
                given=None if known is None else self.sequences.partial_grid(known),
                generator=source,
            )
            for branch, (height, width), known, source in zip(
                branches, sizes, given or [None] * len(branches), sources, strict=True
            )
        ]
        states = stream(
            self.model,
            tasks,
            options,
            mask_id=vocab.mask_id,
            vocab_range=vocab.image_range,
            guidance=guidance,
            denoiser=self._denoiser,
            device=self.model.device,
            locate=self._locate,
            wanted=wanted,
        )
        goals = [task.length if task.given is None else list(task.given).count(vocab.mask_id) for task in tasks]
        result = yield from _steps(states, "picture", sizes, goals, stats, tasks, options)
        return [
            self.sequences.grid(tokens.cpu(), *size) if len(tokens) else torch.full(size, -1)
            for tokens, size in zip(result.tokens, sizes, strict=True)
        ]

    def fill(
        self,
        tasks: Sequence[SamplingTask],
        options: SamplingOptions,
        allowed: Guidance,
        *,
        stats: Stats | None = None,
        wanted: Wanted | None = None,
        watch: Watcher | None = None,
    ) -> list[Tensor]:
        """What was given in each task with its masks filled, int64 [length]; the last blocks of all are as long, and
        each is filled as one block.

        Args:
            allowed: which tokens may stand where, as `AllowedTokens`.
            wanted: as in `text_steps`.
        """
        vocab = self.sequences.vocab
        states = stream(
            self.model,
            tasks,
            options,
            mask_id=vocab.mask_id,
            vocab_range=vocab.text_range,
            guidance=allowed,
            denoiser=self._denoiser,
            device=self.model.device,
            locate=self._locate,
            joined=True,
            wanted=wanted,
        )
        goals = [list(task.given or []).count(vocab.mask_id) for task in tasks]
        return drained(_steps(states, "text", None, goals, stats, tasks, options), watch).tokens

    def thoughts(
        self,
        prompts: Sequence[str],
        options: SamplingOptions,
        length: int,
        *,
        generators: Generators | None = None,
        stats: Stats | None = None,
        wanted: Wanted | None = None,
        watch: Watcher | None = None,
    ) -> list[list[int]]:
        """What the model thinks before it draws, without the header of the picture that it announces.

        The size asked for counts, not the one the model wrote: the caller appends its own header.
        """
        steps = self.text_steps(
            [self.sequences.thinking(prompt) for prompt in prompts],
            options,
            length,
            generators=generators,
            stops_at_picture=True,
            stage="thinking",
            stats=stats,
            wanted=wanted,
        )
        return [self._without_end(tokens.tolist()) for tokens in drained(steps, watch)]

    def _without_end(self, tokens: list[int]) -> list[int]:
        """Leaves out the stop token, and the header that it ends, whole or broken."""
        vocab = self.sequences.vocab
        if tokens and tokens[-1] == vocab.eos_id:
            return tokens[:-1]
        if tokens and tokens[-1] == vocab.boi_id:
            header = tokens[-4:]
            return (
                tokens[: len(tokens) - len(header) + header.index(vocab.soi_id)]
                if vocab.soi_id in header
                else tokens[:-1]
            )
        return tokens


def _steps(
    states: Iterator[StepState],
    stage: str,
    sizes: Sequence[Grid] | None,
    goals: Sequence[int],
    stats: Stats | None,
    tasks: Sequence[SamplingTask],
    options: SamplingOptions,
) -> Writing[SamplingResult]:
    result = SamplingResult()
    found: dict[int, Tensor] = {}
    for state in states:
        found |= state.results
        result.forwards, result.computed, result.seconds = state.forwards, state.computed, state.seconds
        settled = partial(_settled, state.block * options.block_length, options.block_length, tasks)
        yield WritingStep(stage=stage, state=state, sizes=sizes, goals=goals, settled=settled)
    result.tokens = [found.get(index, torch.zeros(0, dtype=torch.long)) for index in range(len(tasks))]
    if stats is not None:
        stats.forwards += result.forwards
        # What stood already is not counted.
        stats.tokens += sum(len(found[index]) - tasks[index].length + goals[index] for index in found)
        stats.add_seconds(stage, result.seconds)
    return result


def _settled(finished: int, block_length: int, tasks: Sequence[SamplingTask], sample: SampleState) -> int:
    """All tokens in the `finished` positions of whole blocks, in which the prompt ends, or of a sample that is done."""
    before = len(tasks[sample.index].prompt) % block_length
    return len(sample.tokens) if sample.done else max(finished - before, 0)
