"""`PixelDecoder`: codes to pixels through the conditioner, the flow transformer and the autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Self

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from torch import Tensor

from unimodal_decoders import flow
from unimodal_decoders.autoencoder import decode_latents, load_autoencoder, save_autoencoder
from unimodal_decoders.conditioner import Conditioner
from unimodal_decoders.transformer import load_transformer, save_transformer, velocity

Variant = Literal["turbo", "normal"]
FOLDERS: Mapping[Variant, str] = {"turbo": "decoder-turbo", "normal": "decoder"}


class PixelDecoder:
    """Turns codes [B, H, W] into pixels [B, 3, Y, X]; the transformers are read when first used, then kept.

    Args:
        conditioner: shared by both variants.
        autoencoder: latents to pixels.
        transformers: those already loaded.
        folder: a checkpoint's root, where the others are found.
    """

    def __init__(
        self,
        conditioner: Conditioner,
        autoencoder: AutoencoderKL,
        transformers: Mapping[Variant, ZImageTransformer2DModel] | None = None,
        folder: str | Path | None = None,
    ) -> None:
        self.conditioner = conditioner
        self.autoencoder = autoencoder
        self.folder = None if folder is None else Path(folder)
        self._transformers = dict(transformers or {})

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> Self:
        """Reads a checkpoint's conditioner and autoencoder, transformers later; `dtype` None keeps the files'.

        Raises:
            ValueError: a file is missing or does not fit.
        """
        folder = Path(folder)
        autoencoder = load_autoencoder(folder / "vae", device, dtype)
        # The published conditioner is stored in float32 beside a bfloat16 decoder: run it as the rest runs.
        conditioner = Conditioner.from_pretrained(folder / "image_tokenizer", device, dtype or autoencoder.dtype)
        return cls(conditioner, autoencoder, folder=folder)

    @property
    def device(self) -> torch.device:
        return self.autoencoder.device

    def transformer(self, decoder: Variant) -> ZImageTransformer2DModel:
        """The transformer of a variant, read from disk on first use.

        Raises:
            ValueError: an unknown variant, or the checkpoint lacks it.
        """
        if decoder not in FOLDERS:
            raise ValueError(f"decoder: {decoder!r}, expected {' or '.join(map(repr, FOLDERS))}")
        if decoder not in self._transformers:
            path = None if self.folder is None else self.folder / FOLDERS[decoder]
            if path is None or not path.is_dir():
                raise ValueError(f"decoder: this checkpoint has no {decoder!r} decoder ({path or 'no folder given'})")
            self._transformers[decoder] = load_transformer(path, self.device, self.autoencoder.dtype)
        return self._transformers[decoder]

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes conditioner, autoencoder and the transformers that there are, in the published layout."""
        folder = Path(folder)
        self.conditioner.save_pretrained(folder / "image_tokenizer")
        save_autoencoder(self.autoencoder, folder / "vae")
        for decoder, name in FOLDERS.items():
            was_loaded = decoder in self._transformers
            if was_loaded or (self.folder is not None and (self.folder / name).is_dir()):
                save_transformer(self.transformer(decoder), folder / name)
            if not was_loaded:
                self.release(decoder)

    def release(self, decoder: Variant) -> None:
        """Forgets a loaded transformer, to free its memory; it is read again when needed."""
        self._transformers.pop(decoder, None)

    def decode(
        self,
        codes: Tensor,
        decoder: Variant = "turbo",
        num_steps: int | None = None,
        generator: flow.Generators = None,
        guidance_scale: float = 1.0,
        resolution_multiplier: int = 2,
        callback: Callable[[flow.FlowState], None] | None = None,
    ) -> Tensor:
        """Codes to float32 pixels [B, 3, 16·m·H, 16·m·W] in [-1, 1], for m = `resolution_multiplier`.

        Args:
            codes: int [B, H, W], any height and width.
            decoder: `turbo`, few steps without guidance, or `normal`.
            num_steps: evaluations of `turbo`, or points of time of `normal` (one more than evaluations); None is the
                published number.
            generator: the source of all noise; one per picture makes a picture independent of its batch.
            guidance_scale: of `normal`, 0 is none.
            resolution_multiplier: output pixels per side for each pixel the codes describe.
            callback: called after every step.

        Raises:
            ValueError: a code, a size or an option is out of range; the message names it.
        """
        state = None
        for state in self.states(codes, decoder, num_steps, generator, guidance_scale, resolution_multiplier):
            if callback is not None:
                callback(state)
        assert state is not None
        return self.pixels(state.latents)

    @torch.no_grad()
    def pixels(self, latents: Tensor) -> Tensor:
        """Latents [B, C, Y, X] of a `FlowState` to float32 pixels in [-1, 1], each picture by itself."""
        decoded = [decode_latents(self.autoencoder, latent) for latent in latents.float().split(1)]
        return torch.cat(decoded).float().clamp(-1, 1)

    def states(
        self,
        codes: Tensor,
        decoder: Variant = "turbo",
        num_steps: int | None = None,
        generator: flow.Generators = None,
        guidance_scale: float = 1.0,
        resolution_multiplier: int = 2,
    ) -> Iterator[flow.FlowState]:
        """The steps of `decode`, one `FlowState` each; `pixels(state.estimate)` is a preview."""
        self._check(codes, resolution_multiplier)
        transformer = self.transformer(decoder)
        codes = codes.to(self.device).long()
        batch, height, width = codes.shape
        scale = flow.LATENTS_PER_CODE * resolution_multiplier
        shape = (batch, transformer.in_channels, height * scale, width * scale)
        noise = next(flow.normal_draws(shape, generator, self.device, torch.float32))
        if decoder == "normal":
            steps = flow.NORMAL_STEPS if num_steps is None else num_steps
            field = self.velocity_field(codes, decoder, guidance_scale)
            states = flow.euler(field, noise, steps)
        else:
            steps = flow.TURBO_STEPS if num_steps is None else num_steps
            field = self.velocity_field(codes, decoder, 0.0)
            step_noise = flow.normal_draws(shape, generator, self.device, flow.state_dtype(noise.device))
            states = flow.turbo(field, noise, steps, step_noise)
        return _without_gradients(states)

    def velocity_field(self, codes: Tensor, decoder: Variant, guidance_scale: float) -> flow.Velocity:
        """The velocity of latents at a time, given `codes`; with guidance both conditions go through in one batch.

        Pictures go through one by one: sums are rounded differently in batches of another size, and a seed shall draw
        the same pixels whatever is drawn beside it.
        """
        fields = [self._field_of_one(picture, decoder, guidance_scale) for picture in codes.split(1)]
        return lambda latents, times: torch.cat(
            [field(*state) for field, *state in zip(fields, latents.split(1), times.split(1), strict=True)]
        )

    def _field_of_one(self, codes: Tensor, decoder: Variant, guidance_scale: float) -> flow.Velocity:
        transformer = self.transformer(decoder)
        with torch.no_grad():
            features = self.conditioner(codes)
        if not guidance_scale:
            return lambda latents, times: velocity(transformer, latents, times, features)
        both = torch.cat((features, self.conditioner.zero_features(codes)))

        def with_guidance(latents: Tensor, times: Tensor) -> Tensor:
            doubled = velocity(transformer, torch.cat((latents, latents)), torch.cat((times, times)), both)
            return flow.guided(doubled[: len(latents)], doubled[len(latents) :], guidance_scale)

        return with_guidance

    def _check(self, codes: Tensor, resolution_multiplier: int) -> None:
        size = self.conditioner.codebook_size
        if codes.ndim != 3 or codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
            raise ValueError(f"codes: {codes.dtype} {list(codes.shape)}, expected integers [B, H, W]")
        if not codes.numel():
            raise ValueError(f"codes: {list(codes.shape)} is empty")
        if codes.min() < 0 or codes.max() >= size:
            raise ValueError(f"codes: values {codes.min()} to {codes.max()}, expected 0 to {size - 1}")
        if resolution_multiplier < 1:
            raise ValueError(f"resolution_multiplier: {resolution_multiplier}, expected at least 1")


def _without_gradients(states: Iterator[flow.FlowState]) -> Iterator[flow.FlowState]:
    """Each step runs without gradients, the caller's code between steps as it likes."""
    while True:
        with torch.no_grad():
            state = next(states, None)
        if state is None:
            return
        yield state
