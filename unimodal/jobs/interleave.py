"""Answers of text and pictures in turn."""

from typing import Unpack

import torch
from PIL import Image
from torch import Tensor

from unimodal.answers import InterleavedAnswer
from unimodal.arguments import Pictures, read_generators, read_texts
from unimodal.diffusion.sprint import SprintOptions
from unimodal.jobs.job import Job
from unimodal.jobs.options import InterleavedSampling, spelled_out
from unimodal.picture_input import read_pictures
from unimodal.progress import StepCallback
from unimodal.results import InterleaveOutput, Stats
from unimodal.sequence import INTERLEAVE, Turn
from unimodal.writer import WritingStep


class Interleave(Job):
    @spelled_out
    def interleave(
        self,
        prompt: str,
        images: Pictures = (),
        *,
        decoder: str | None = None,
        decoder_steps: int | None = None,
        sprint: SprintOptions | None = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
        **sampling: Unpack[InterleavedSampling],
    ) -> InterleaveOutput:
        """Answers with text and pictures in turn.

        Args:
            images: pictures that the prompt speaks of, and that the answer goes on from.
            sprint: steps read only a part of what came before.
            sampling: see `InterleavedSampling`.

        Raises:
            ValueError: an argument that cannot be used; the message names it.
        """
        settings = self.settings.interleave.but(**sampling)
        texts = read_texts("prompt", prompt)
        if len(texts) > 1:
            raise ValueError(f"prompt: got {len(texts)} texts, an interleaved answer has one")
        references = read_pictures(images)
        [source] = read_generators(generator, 1)
        drawing = self._drawing(decoder, decoder_steps)
        stats = Stats()
        grids = [self._encode(picture, stats) for picture in self.sizes.for_understanding(references)]
        opening = self.sequences.conversation(INTERLEAVE, [Turn(role="user", parts=[*grids, texts[0]])])
        self._check_room([opening.prompt], 1, "prompt, images")
        answer = InterleavedAnswer(self._writer(sprint), opening, settings, generator=source, stats=stats)
        segments: list[str | Image.Image] = []
        drawn: list[Tensor] = []
        with self._progress(callback_on_step_end) as progress:
            for part in answer:
                if isinstance(part, WritingStep):
                    progress.writing(part)
                elif isinstance(part, str):
                    segments.append(part)
                else:
                    drawn.append(part)
                    segments += self._draw([part], drawing, [source], stats, progress)
        return InterleaveOutput(segments=segments, codes=drawn, finish_reason=answer.finish_reason, stats=stats)
