"""Answers as they are made: text alone, or text and pictures in turn.

They yield the steps of the sampler and, where they end, their segments: text as str, pictures as codes [H, W]. What is
yielded is the same whether somebody looks at the steps or not.

Several answers of text and pictures are made in rounds. In a round each answer asks for its next text or picture, all
texts are written together, and all pictures that are guided alike are drawn together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unimodal.diffusion.guidance import Guidance, edit_guidance, prompt_guidance
from unimodal.results import FinishReason, Stats
from unimodal.sequence import Branches, Opening, SequenceBuilder
from unimodal.settings import InterleaveSettings, TextSettings
from unimodal.writer import Grid, Writer, Writing, WritingStep

Segment = str | Tensor
Part = WritingStep | Segment


class Answer(Protocol):
    """Iterating makes the answer; afterwards `finish_reason` tells why it ended."""

    @property
    def finish_reason(self) -> FinishReason: ...

    def __iter__(self) -> Iterator[Part]: ...


class TextAnswer:
    """One text, until the model ends it or there is no room."""

    def __init__(
        self,
        writer: Writer,
        prompt: Sequence[int],
        settings: TextSettings,
        *,
        generator: torch.Generator | None = None,
        stats: Stats | None = None,
    ):
        self.finish_reason: FinishReason = "stop"
        self._writer, self._prompt, self._settings = writer, prompt, settings
        self._generator, self._stats = generator, stats

    def __iter__(self) -> Iterator[Part]:
        sequences, settings = self._writer.sequences, self._settings
        [tokens] = yield from self._writer.text_steps(
            [self._prompt],
            settings.sampling(),
            settings.gen_length,
            generators=[self._generator],
            stats=self._stats,
        )
        self.finish_reason = "stop" if tokens[-1] == sequences.vocab.eos_id else "length"
        if text := sequences.plain_text(tokens.tolist()).strip():
            yield text


class InterleavedAnswer:
    """Text and pictures in turn, until the model ends or a limit is reached."""

    def __init__(
        self,
        writer: Writer,
        opening: Opening,
        settings: InterleaveSettings,
        *,
        generator: torch.Generator | None = None,
        stats: Stats | None = None,
    ):
        self._answers = InterleavedAnswers(writer, [opening], settings, generators=[generator], stats=stats)

    @property
    def finish_reason(self) -> FinishReason:
        return self._answers.finish_reasons[0]

    def __iter__(self) -> Iterator[Part]:
        for part in self._answers:
            if isinstance(part, WritingStep):
                yield part
            else:
                yield from part.values()


class InterleavedAnswers:
    """Several such answers, each as alone.

    Iterating yields the steps and, after each round, the segments that it has finished, by the places of their answers.
    The samples of a step are those that write or draw together, in the order of the answers.
    """

    def __init__(
        self,
        writer: Writer,
        openings: Sequence[Opening],
        settings: InterleaveSettings,
        *,
        generators: Sequence[torch.Generator | None],
        stats: Stats | None = None,
    ):
        context = writer.model.config.max_position_embeddings
        self._stories = [_Story(writer.sequences, opening, settings, context) for opening in openings]
        self._writer, self._settings, self._generators, self._stats = writer, settings, generators, stats

    @property
    def finish_reasons(self) -> list[FinishReason]:
        return [story.finish_reason for story in self._stories]

    def __iter__(self) -> Iterator[WritingStep | dict[int, Segment]]:
        stories = self._stories
        wishes: dict[int, _Text | _Picture | None] = {place: story.next_text() for place, story in enumerate(stories)}
        while any(wishes.values()):
            # 1. who can be served together
            texts: dict[int, dict[int, _Text]] = {}
            pictures: dict[Guidance, dict[int, _Picture]] = {}
            for place, wish in wishes.items():
                if isinstance(wish, _Text):
                    texts.setdefault(wish.length, {})[place] = wish
                elif isinstance(wish, _Picture):
                    pictures.setdefault(wish.guidance, {})[place] = wish
            # 2. what each makes of it, and what it wants next
            wishes = {}
            for length, asked in texts.items():
                for place, tokens in zip(asked, (yield from self._write(asked, length)), strict=True):
                    wishes[place] = stories[place].written(tokens.tolist())
            for guidance, asked in pictures.items():
                for place, codes in zip(asked, (yield from self._draw(asked, guidance)), strict=True):
                    wishes[place] = stories[place].drawn(codes)
            # 3. show it
            finished = {place: story.finished() for place, story in enumerate(stories)}
            if segments := {place: segment for place, segment in finished.items() if segment is not None}:
                yield segments
            wishes = dict(sorted(wishes.items()))

    def _write(self, asked: Mapping[int, "_Text"], length: int) -> Writing[list[Tensor]]:
        return self._writer.text_steps(
            [text.prompt for text in asked.values()],
            self._settings.sampling(),
            length,
            generators=[self._generators[place] for place in asked],
            stops_at_picture=True,
            stats=self._stats,
        )

    def _draw(self, asked: Mapping[int, "_Picture"], guidance: Guidance) -> Writing[list[Tensor]]:
        return self._writer.picture_steps(
            [picture.branches for picture in asked.values()],
            [picture.size for picture in asked.values()],
            self._settings.sampling(num_inference_steps=self._settings.image_num_inference_steps),
            guidance,
            generators=[self._generators[place] for place in asked],
            stats=self._stats,
        )


@dataclass(frozen=True, kw_only=True)
class _Text:
    """Wanted: what follows a prompt, at most so many tokens."""

    prompt: list[int]
    length: int


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """Wanted: a picture of a size, (height, width) in codes."""

    branches: Branches
    size: Grid
    guidance: Guidance


class _Story:
    """One answer: what it has, and what it wants next; None once it has ended."""

    def __init__(self, sequences: SequenceBuilder, opening: Opening, settings: InterleaveSettings, context: int):
        self.finish_reason: FinishReason = "stop"
        self._sequences, self._opening, self._settings = sequences, opening, settings
        self._context = context
        self._answer: list[int] = []
        self._num_images = 0
        self._finished: Segment | None = None

    def finished(self) -> Segment | None:
        """The segment that it has got since the last call, of one round."""
        segment, self._finished = self._finished, None
        return segment

    def next_text(self) -> _Text | None:
        length = min(self._settings.gen_length, self._room())
        if length < 1:
            return self._end("length")
        return _Text(prompt=[*self._opening.prompt, *self._answer], length=length)

    def written(self, tokens: list[int]) -> _Picture | None:
        """Goes on from the text that it wanted."""
        sequences, settings = self._sequences, self._settings
        header = sequences.split_header(tokens)
        if text := sequences.plain_text(tokens if header is None else header[0]).strip():
            self._finished = text
        if not tokens or tokens[-1] != sequences.vocab.boi_id:
            return self._end("stop" if tokens and tokens[-1] == sequences.vocab.eos_id else "length")
        if self._num_images == settings.max_images:
            return self._end("max_images")
        if header is None or header[1] * header[2] > settings.max_image_tokens:
            return self._end("broken_header")
        before, height, width = header
        if self._room() < len(tokens) + height * width + 1:
            return self._end("length")
        self._answer += before
        branches = sequences.interleaved_picture(self._opening, self._answer, height, width)
        return _Picture(branches=branches, size=(height, width), guidance=self._guidance(branches))

    def drawn(self, codes: Tensor) -> _Text | None:
        """Goes on from the picture that it wanted."""
        self._finished = codes
        self._answer += self._sequences.picture(codes)
        self._num_images += 1
        return self._end("max_images") if self._num_images == self._settings.max_images else self.next_text()

    def _end(self, reason: FinishReason) -> None:
        self.finish_reason = reason

    def _room(self) -> int:
        """Tokens that the context still has room for."""
        return self._context - len(self._opening.prompt) - len(self._answer)

    def _guidance(self, branches: Branches) -> Guidance:
        settings = self._settings
        if len(branches.others) == 1:
            # A scale of 0 is "not set" here, unlike in `generate`.
            scale = settings.guidance_scale or settings.text_guidance_scale or 1.0
            return prompt_guidance(scale, settings.guidance_rescale)
        scales = settings.text_guidance_scale, settings.image_guidance_scale
        return edit_guidance(*scales, settings.guidance_rescale)
