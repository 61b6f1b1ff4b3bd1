"""The backbone as a writer of text and of pictures, in tokens: prompts in, tokens or grids of codes out.

All jobs are made of two acts. Text may use any token and ends at a stop token. A picture is exactly its grid of
codes, drawn from the picture range of the vocabulary under guidance. An interleaved answer is the two in turn.

Legend: N samples, H, W height and width of a grid of codes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unimodal.backbone import MaskedDiffusionTransformer
from unimodal.diffusion.guidance import Guidance, edit_guidance, prompt_guidance
from unimodal.diffusion.sampler import SamplingOptions, SamplingResult, SamplingTask, StepState, stream
from unimodal.results import FinishReason, Stats
from unimodal.sequence import Branches, SequenceBuilder
from unimodal.settings import InterleaveSettings

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
    """

    stage: str
    state: StepState
    sizes: Sequence[Grid] | None
    goals: Sequence[int]


Watcher = Callable[[WritingStep], None]


class Writer:
    """Writes with one model and the sequences of its checkpoint; `use_cache=False` is the slow twin."""

    def __init__(self, model: MaskedDiffusionTransformer, sequences: SequenceBuilder, *, use_cache: bool = True):
        self.model = model
        self.sequences = sequences
        self.use_cache = use_cache
        self._locate = sequences.coordinates if model.config.grid_rotary_dim else None

    def text(
        self,
        prompts: Sequence[Sequence[int]],
        options: SamplingOptions,
        length: int,
        *,
        generators: Generators | None = None,
        stops_at_picture: bool = False,
        stage: str = "text",
        stats: Stats | None = None,
        watch: Watcher | None = None,
    ) -> list[Tensor]:
        """The tokens that follow each prompt, through the first stop token, at most `length`; int64 [n].

        Args:
            stops_at_picture: also stops where a picture begins, and uses text tokens only.
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
            use_cache=self.use_cache,
            device=self.model.device,
            locate=self._locate,
        )
        return self._watched(states, stage, None, [length] * len(tasks), stats, watch).tokens

    def pictures(
        self,
        branches: Sequence[Branches],
        sizes: Sequence[Grid],
        options: SamplingOptions,
        guidance: Guidance,
        *,
        generators: Generators | None = None,
        stats: Stats | None = None,
        watch: Watcher | None = None,
    ) -> list[Tensor]:
        """The codes [H, W] of one picture per prompt, of the given (H, W)."""
        vocab = self.sequences.vocab
        sources = generators or [None] * len(branches)
        tasks = [
            SamplingTask(
                prompt=branch.prompt,
                length=height * width,
                others=branch.others[: guidance.num_branches - 1],
                generator=source,
            )
            for branch, (height, width), source in zip(branches, sizes, sources, strict=True)
        ]
        states = stream(
            self.model,
            tasks,
            options,
            mask_id=vocab.mask_id,
            vocab_range=vocab.image_range,
            guidance=guidance,
            use_cache=self.use_cache,
            device=self.model.device,
            locate=self._locate,
        )
        result = self._watched(states, "picture", sizes, [task.length for task in tasks], stats, watch)
        return [self.sequences.grid(tokens.cpu(), *size) for tokens, size in zip(result.tokens, sizes, strict=True)]

    def fill(
        self,
        tasks: Sequence[SamplingTask],
        options: SamplingOptions,
        allowed: Guidance,
        *,
        stats: Stats | None = None,
        watch: Watcher | None = None,
    ) -> list[Tensor]:
        """What was given in each task with its masks filled, int64 [length]; the last blocks of all are as long, and
        each is filled as one block.

        Args:
            allowed: which tokens may stand where, as `AllowedTokens`.
        """
        vocab = self.sequences.vocab
        states = stream(
            self.model,
            tasks,
            options,
            mask_id=vocab.mask_id,
            vocab_range=vocab.text_range,
            guidance=allowed,
            use_cache=self.use_cache,
            device=self.model.device,
            locate=self._locate,
            joined=True,
        )
        goals = [list(task.given or []).count(vocab.mask_id) for task in tasks]
        filled = self._watched(states, "text", None, goals, stats, watch).tokens
        if stats is not None:
            stats.tokens -= sum(task.length for task in tasks) - sum(goals)
        return filled

    def thoughts(
        self,
        prompts: Sequence[str],
        options: SamplingOptions,
        length: int,
        *,
        generators: Generators | None = None,
        stats: Stats | None = None,
        watch: Watcher | None = None,
    ) -> list[list[int]]:
        """What the model thinks before it draws, without the header of the picture that it announces.

        The size asked for counts, not the one the model wrote: the caller appends its own header.
        """
        written = self.text(
            [self.sequences.thinking(prompt) for prompt in prompts],
            options,
            length,
            generators=generators,
            stops_at_picture=True,
            stage="thinking",
            stats=stats,
            watch=watch,
        )
        return [self._without_end(tokens.tolist()) for tokens in written]

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

    def _watched(
        self,
        states: Iterator[StepState],
        stage: str,
        sizes: Sequence[Grid] | None,
        goals: Sequence[int],
        stats: Stats | None,
        watch: Watcher | None,
    ) -> SamplingResult:
        result = SamplingResult()
        found: dict[int, Tensor] = {}
        for state in states:
            found |= {sample.index: sample.tokens for sample in state.samples if sample.done}
            result.forwards, result.computed, result.seconds = state.forwards, state.computed, state.seconds
            if watch is not None:
                watch(WritingStep(stage=stage, state=state, sizes=sizes, goals=goals))
        result.tokens = [found[index] for index in sorted(found)]
        if stats is not None:
            stats.forwards += result.forwards
            stats.tokens += sum(len(tokens) for tokens in result.tokens)
            stats.add_seconds(stage, result.seconds)
        return result


class Interleaver:
    """Text and pictures in turn, until the model ends or a limit is reached.

    Iterating yields segments as they are made: text as str, pictures as codes [H, W]. Afterwards `finish_reason`
        tells why it ended.
    """

    def __init__(
        self,
        writer: Writer,
        prompt: str,
        grids: Sequence[Tensor],
        settings: InterleaveSettings,
        *,
        generator: torch.Generator | None = None,
        stats: Stats | None = None,
        watch: Watcher | None = None,
    ):
        self.finish_reason: FinishReason = "stop"
        self._writer = writer
        self._grids = grids
        self._settings = settings
        self._generators = [generator]
        self._stats, self._watch = stats, watch
        self._prompt = writer.sequences.interleaving(prompt, grids)
        self._answer: list[int] = []

    def __iter__(self) -> Iterator[str | Tensor]:
        sequences, settings = self._writer.sequences, self._settings
        num_images = 0
        while True:
            tokens = self._text()
            header = sequences.split_header(tokens)
            ends_at_picture = bool(tokens) and tokens[-1] == sequences.vocab.boi_id
            text = sequences.plain_text(tokens if header is None else header[0]).strip()
            if text:
                yield text
            if not ends_at_picture:
                stopped = bool(tokens) and tokens[-1] == sequences.vocab.eos_id
                self.finish_reason = "stop" if stopped else "length"
                return
            if num_images == settings.max_images:
                self.finish_reason = "max_images"
                return
            if header is None or header[1] * header[2] > settings.max_image_tokens:
                self.finish_reason = "broken_header"
                return
            before, height, width = header
            if self._room() < len(tokens) + height * width + 1:
                self.finish_reason = "length"
                return
            codes = self._picture(before, height, width)
            yield codes
            self._answer += [*before, *sequences.picture(codes)]
            num_images += 1
            if num_images == settings.max_images:
                self.finish_reason = "max_images"
                return

    def _room(self) -> int:
        """Tokens that the context still has room for."""
        return self._writer.model.config.max_position_embeddings - len(self._prompt) - len(self._answer)

    def _text(self) -> list[int]:
        length = min(self._settings.gen_length, self._room())
        if length < 1:
            return []
        [tokens] = self._writer.text(
            [[*self._prompt, *self._answer]],
            self._settings.sampling(),
            length,
            generators=self._generators,
            stops_at_picture=True,
            stats=self._stats,
            watch=self._watch,
        )
        return tokens.tolist()

    def _picture(self, before: Sequence[int], height: int, width: int) -> Tensor:
        settings = self._settings
        branches = self._writer.sequences.interleaved_picture(
            self._grids, self._prompt, [*self._answer, *before], height, width
        )
        if len(branches.others) == 1:
            # A scale of 0 is "not set" here, unlike in `generate`.
            scale = settings.guidance_scale or settings.text_guidance_scale or 1.0
            guidance = prompt_guidance(scale, settings.guidance_rescale)
        else:
            scales = settings.text_guidance_scale, settings.image_guidance_scale
            guidance = edit_guidance(*scales, settings.guidance_rescale)
        [codes] = self._writer.pictures(
            [branches],
            [(height, width)],
            settings.sampling(num_inference_steps=settings.image_num_inference_steps),
            guidance,
            generators=self._generators,
            stats=self._stats,
            watch=self._watch,
        )
        return codes
