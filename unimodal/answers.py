"""Answers to one prompt as they are made: text alone, or text and pictures in turn.

Both yield the steps of the sampler and, where they end, their segments: text as str, pictures as codes [H, W]. What is
yielded is the same whether somebody looks at the steps or not.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from unimodal.diffusion.guidance import edit_guidance, prompt_guidance
from unimodal.results import FinishReason, Stats
from unimodal.sequence import Opening
from unimodal.settings import InterleaveSettings, TextSettings
from unimodal.writer import Writer, Writing, WritingStep

Part = WritingStep | str | Tensor


class Answer(Protocol):
    """Iterating makes the answer; afterwards `finish_reason` tells why it ended."""

    finish_reason: FinishReason

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
        self.finish_reason: FinishReason = "stop"
        self._writer = writer
        self._opening = opening
        self._settings = settings
        self._generators = [generator]
        self._stats = stats
        self._answer: list[int] = []

    def __iter__(self) -> Iterator[Part]:
        sequences, settings = self._writer.sequences, self._settings
        num_images = 0
        while True:
            tokens = yield from self._text()
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
            codes = yield from self._picture(before, height, width)
            yield codes
            self._answer += [*before, *sequences.picture(codes)]
            num_images += 1
            if num_images == settings.max_images:
                self.finish_reason = "max_images"
                return

    def _room(self) -> int:
        """Tokens that the context still has room for."""
        return self._writer.model.config.max_position_embeddings - len(self._opening.prompt) - len(self._answer)

    def _text(self) -> Writing[list[int]]:
        length = min(self._settings.gen_length, self._room())
        if length < 1:
            return []
        [tokens] = yield from self._writer.text_steps(
            [[*self._opening.prompt, *self._answer]],
            self._settings.sampling(),
            length,
            generators=self._generators,
            stops_at_picture=True,
            stats=self._stats,
        )
        return tokens.tolist()

    def _picture(self, before: Sequence[int], height: int, width: int) -> Writing[Tensor]:
        settings = self._settings
        branches = self._writer.sequences.interleaved_picture(self._opening, [*self._answer, *before], height, width)
        if len(branches.others) == 1:
            # A scale of 0 is "not set" here, unlike in `generate`.
            scale = settings.guidance_scale or settings.text_guidance_scale or 1.0
            guidance = prompt_guidance(scale, settings.guidance_rescale)
        else:
            scales = settings.text_guidance_scale, settings.image_guidance_scale
            guidance = edit_guidance(*scales, settings.guidance_rescale)
        [codes] = yield from self._writer.picture_steps(
            [branches],
            [(height, width)],
            settings.sampling(num_inference_steps=settings.image_num_inference_steps),
            guidance,
            generators=self._generators,
            stats=self._stats,
        )
        return codes
