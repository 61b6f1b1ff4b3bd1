"""What all jobs share: sequences, a writer, progress, pictures to codes and codes to pictures."""

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unimodal.components import Components
from unimodal.diffusion.prefixes import PrefixStore
from unimodal.diffusion.sprint import SprintOptions
from unimodal.picture_cache import PictureCache
from unimodal.picture_input import PictureSizes
from unimodal.progress import Progress, StepCallback
from unimodal.results import Stats, UnderstandOutput
from unimodal.sequence import SequenceBuilder, Turn
from unimodal.settings import DecoderSettings, TextSettings
from unimodal.writer import Writer, drained
from unimodal_tokenizers.images import to_images, to_pixels


class Job(Components):
    """The parts of a checkpoint at work; each job adds its method to this."""

    _bar_options: Mapping[str, Any] = MappingProxyType({})

    @property
    def sequences(self) -> SequenceBuilder:
        return SequenceBuilder(self.text_tokenizer, self.vocab)

    @property
    def writer(self) -> Writer:
        return Writer(self.backbone, self.sequences, prefixes=self.prefixes)

    def _writer(self, sprint: SprintOptions | None) -> Writer:
        if sprint is None:
            return self.writer
        if not isinstance(sprint, SprintOptions):
            raise ValueError(f"sprint: got {sprint!r}, it must be SprintOptions or None")
        return Writer(self.backbone, self.sequences, prefixes=self.prefixes, sprint=sprint)

    @cached_property
    def prefixes(self) -> PrefixStore:
        """What calls leave for later ones that begin alike."""
        return PrefixStore()

    @cached_property
    def encoded_pictures(self) -> PictureCache:
        """The codes of the pictures that were shown last."""
        return PictureCache()

    @property
    def sizes(self) -> PictureSizes:
        return PictureSizes(self.settings.images, self.patch_size, self.vocab.size_ids)

    def set_progress_bar_config(self, **options: Any) -> None:
        """Options of the tqdm bars; `disable=True` shows none."""
        self._bar_options = options

    def _progress(self, callback: StepCallback | None, num_samples: int | None = None) -> Progress:
        return Progress(self, self.vocab, callback, self._bar_options, num_samples)

    def _drawing(self, decoder: str | None, decoder_steps: int | None) -> DecoderSettings:
        """How codes become pixels; loads what that needs, so that it cannot fail after the codes are made."""
        drawing = self.settings.decoder.choose(decoder, decoder_steps)
        self.decoder.transformer(drawing.decoder)
        return drawing

    def _check_room(self, prompts: Iterable[Sequence[int]], length: int, shorten: str) -> None:
        """Refuses prompts that leave no room for `length` more tokens.

        Args:
            shorten: the arguments that the message asks to shorten.
        """
        room, longest = self.backbone.config.max_position_embeddings, max(map(len, prompts))
        if longest + length > room:
            raise ValueError(
                f"{shorten}: the prompt has {longest} tokens and {length} more are asked for, together at most {room} "
                "have room in the context of this model; shorten one of them"
            )

    def _question(self, prompt: str, images: Sequence[Image.Image], stats: Stats) -> list[int]:
        """The tokens up to where an answer begins: as `understand` asks about pictures, and as `chat` asks in a
        conversation of text alone.
        """
        if not images:
            plain = self.sequences.plain_conversation(None, [Turn(role="user", parts=[prompt])])
            if plain is not None:
                return plain
        grids = [self._encode(picture, stats) for picture in self.sizes.for_understanding(images)] if images else []
        return self.sequences.understanding(grids, prompt, self.settings.understand.prompt_style)

    def _answered(
        self,
        prompts: Sequence[Sequence[int]],
        settings: TextSettings,
        writer: Writer,
        generators: Sequence[torch.Generator],
        stats: Stats,
        progress: Progress,
    ) -> UnderstandOutput:
        """A text for each prompt."""
        with progress:
            steps = writer.text_steps(
                prompts,
                settings.sampling(),
                settings.gen_length,
                generators=generators,
                stats=stats,
                wanted=progress.wanted,
            )
            tokens = progress.stayed(drained(steps, progress.writing))
        texts = [self.sequences.plain_text(row.tolist()).strip() for row in tokens]
        return UnderstandOutput(texts=texts, tokens=tokens, dropped=progress.dropped, stats=stats)

    def _encode(self, picture: Image.Image, stats: Stats) -> Tensor:
        """Codes [H, W] of a picture of the right size."""
        started = time.perf_counter()
        tokenizer = self.image_tokenizer
        weight = tokenizer.codebook

        def encode(picture: Image.Image) -> Tensor:
            return tokenizer.encode(to_pixels([picture]).to(weight.device, weight.dtype))[0].cpu()

        codes = self.encoded_pictures.codes(picture, tokenizer, encode)
        stats.add_seconds("encode", time.perf_counter() - started)
        return codes

    def _draw(
        self,
        codes: Sequence[Tensor],
        drawing: DecoderSettings,
        generators: Sequence[torch.Generator],
        stats: Stats,
        progress: Progress,
    ) -> list[Image.Image]:
        """Pictures from codes, those of one size together."""
        started = time.perf_counter()
        images: dict[int, Image.Image] = {}
        for size in dict.fromkeys(grid.shape for grid in codes):
            places = [place for place, grid in enumerate(codes) if grid.shape == size]
            pixels = self.decoder.decode(
                torch.stack([codes[place] for place in places]),
                decoder=drawing.decoder,
                num_steps=drawing.steps,
                generator=[generators[place] for place in places],
                guidance_scale=drawing.guidance_scale,
                callback=progress.decoding,
            )
            images |= dict(zip(places, to_images(pixels), strict=True))
        stats.add_seconds("decode", time.perf_counter() - started)
        return [images[place] for place in range(len(codes))]
