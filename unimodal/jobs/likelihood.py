"""How likely the model finds a text or a picture."""

import time
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from unimodal.arguments import read_generators
from unimodal.diffusion.likelihood import estimate_likelihood
from unimodal.jobs.job import Job
from unimodal.picture_input import Picture, read_pictures
from unimodal.results import LikelihoodOutput, Stats
from unimodal.sequence import LEFT_OUT


class Likelihood(Job):
    def likelihood(
        self,
        prompt: str | None = None,
        *,
        answer: str | None = None,
        image: Picture | Tensor | None = None,
        images: Picture | Sequence[Picture] = (),
        samples: int = 128,
        block_length: int | None = None,
        generator: torch.Generator | None = None,
    ) -> LikelihoodOutput:
        """Estimates a lower bound of the log-likelihood of a text or of a picture, given a prompt.

        A text is judged as what the model says when it is asked `prompt`, with its end; a picture as what it draws
        for `prompt`, in codes, without guidance. The bound is that of the absorbing diffusion (see
        `unimodal.diffusion.likelihood`); estimates of several answers can be compared with their standard errors.

        Args:
            prompt: None judges a text by itself, and a picture with the prompt left out.
            answer: a text, or
            image: a picture, as codes int [H, W] that the model has drawn, or as a PIL image or a path, which is
                encoded in the size of a picture to edit.
            images: pictures that come before the prompt: those a text is about, or those that were edited.
            samples: random masks of each block. The standard error shrinks with their square root.
            block_length: None = that of the checkpoint's answers, or of its pictures.
            generator: draws the masks.

        Raises:
            ValueError: an argument that cannot be used; neither or both of a text and a picture; too long for the
                context.
        """
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise ValueError(f"samples: got {samples!r}, it must be a whole number of at least 1")
        if (answer is None) == (image is None):
            raise ValueError("answer: got a text and a picture, or neither; exactly one of answer and image is judged")
        if prompt is not None and (not isinstance(prompt, str) or not prompt.strip()):
            raise ValueError(f"prompt: got {prompt!r}, it must be a text that is not empty, or None")
        references = read_pictures(images)
        [source] = read_generators(generator, 1)
        vocab, stats = self.vocab, Stats()
        if image is None:
            settings = self.settings.understand.but(block_length=block_length)
            before, judged = self._text(prompt, answer, references, stats)
            span = None
        else:
            settings = (self.settings.edit if references else self.settings.generate).but(block_length=block_length)
            before, judged = self._picture(prompt, image, references, stats)
            span = vocab.image_range
        self._check_room([before], len(judged), "prompt" if answer is None else "prompt, answer")
        started = time.perf_counter()
        found = estimate_likelihood(
            self.backbone,
            before,
            judged,
            block_length=settings.block_length,
            mask_id=vocab.mask_id,
            samples=samples,
            generator=source,
            vocab_range=span,
            locate=self.sequences.locate_for(self.backbone.config.grid_rotary_dim),
            device=self.device,
        )
        stats.forwards = found.forwards
        stats.add_seconds("likelihood", time.perf_counter() - started)
        return LikelihoodOutput(
            log_likelihood=found.log_likelihood,
            standard_error=found.standard_error,
            tokens=found.tokens,
            samples=len(found.samples),
            stats=stats,
        )

    def _text(
        self, prompt: str | None, answer: str | None, references: Sequence[Image.Image], stats: Stats
    ) -> tuple[list[int], list[int]]:
        """What comes before a text, and the text with its end."""
        if not isinstance(answer, str):
            raise ValueError(f"answer: got {answer!r}, it must be a text")
        if prompt is None and references:
            raise ValueError("images: got pictures without a prompt that asks about them")
        tokens = self.sequences.text(answer)
        if self.vocab.mask_id in tokens:
            raise ValueError(f"answer: {answer!r} holds the mask token of the model")
        before = [] if prompt is None else self._question(prompt, references, stats)
        return before, [*tokens, self.vocab.eos_id]

    def _picture(
        self, prompt: str | None, image: Picture | Tensor, references: Sequence[Image.Image], stats: Stats
    ) -> tuple[list[int], list[int]]:
        """What comes before a picture, its header included, and its codes."""
        codes = self._codes(image, stats)
        text = LEFT_OUT if prompt is None else prompt
        if references:
            grids = [self._encode(self.sizes.for_editing(picture), stats) for picture in references]
            branches = self.sequences.editing(grids, text, codes.shape[0], codes.shape[1])
        else:
            branches = self.sequences.generation(text, codes.shape[0], codes.shape[1])
        return branches.prompt, self.vocab.codes_to_tokens(codes).flatten().tolist()

    def _codes(self, image: Picture | Tensor, stats: Stats) -> Tensor:
        if isinstance(image, Tensor):
            if image.dim() != 2:
                raise ValueError(f"image: got codes of shape {tuple(image.shape)}, allowed is [height, width]")
            return image.cpu()
        pictures = read_pictures(image)
        if len(pictures) != 1:
            raise ValueError(f"image: got {len(pictures)} pictures, one is judged")
        return self._encode(self.sizes.for_editing(pictures[0]), stats)
