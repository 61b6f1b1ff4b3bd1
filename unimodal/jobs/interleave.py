"""Answers of text and pictures in turn."""

from typing import Unpack

import torch
from PIL import Image
from torch import Tensor

from unimodal.arguments import Pictures, read_generators, read_texts
from unimodal.jobs.job import Job
from unimodal.jobs.options import TextSampling, spelled_out
from unimodal.picture_input import read_pictures
from unimodal.progress import StepCallback
from unimodal.results import InterleaveOutput, Stats
from unimodal.writer import Interleaver


class Interleave(Job):
    @spelled_out
    def interleave(
        self,
        prompt: str,
        images: Pictures = (),
        *,
        image_num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        text_guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        max_images: int | None = None,
        decoder: str | None = None,
        decoder_steps: int | None = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
        **sampling: Unpack[TextSampling],
    ) -> InterleaveOutput:
        """Answers with text and pictures in turn.

        Args:
            images: pictures that the prompt speaks of.
            guidance_scale: of the first picture; 0 takes `text_guidance_scale`.
            max_images: the answer ends with this many.
            sampling: see `TextSampling`; `gen_length` tokens of each text at most.

        Raises:
            ValueError: an argument that cannot be used; the message names it.
        """
        settings = self.settings.interleave.but(
            image_num_inference_steps=image_num_inference_steps,
            guidance_scale=guidance_scale,
            text_guidance_scale=text_guidance_scale,
            image_guidance_scale=image_guidance_scale,
            guidance_rescale=guidance_rescale,
            max_images=max_images,
            **sampling,
        )
        texts = read_texts("prompt", prompt)
        if len(texts) > 1:
            raise ValueError(f"prompt: got {len(texts)} texts, an interleaved answer has one")
        references = read_pictures(images)
        [source] = read_generators(generator, 1)
        drawing = self._drawing(decoder, decoder_steps)
        stats = Stats()
        grids = [self._encode(picture, stats) for picture in self.sizes.for_understanding(references)]
        segments: list[str | Image.Image] = []
        drawn: list[Tensor] = []
        with self._progress(callback_on_step_end) as progress:
            answer = Interleaver(
                self.writer, texts[0], grids, settings, generator=source, stats=stats, watch=progress.writing
            )
            for segment in answer:
                if isinstance(segment, str):
                    segments.append(segment)
                else:
                    drawn.append(segment)
                    segments += self._draw([segment], drawing, [source], stats, progress)
        return InterleaveOutput(segments=segments, codes=drawn, finish_reason=answer.finish_reason, stats=stats)
