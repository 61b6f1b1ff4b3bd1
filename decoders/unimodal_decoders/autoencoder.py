"""Latents and pixels: diffusers' `AutoencoderKL`, with the scaling that its configuration file states."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from unimodal_decoders.weight_files import fill, read_config, read_weights, write_config, write_weights

FILE_NAME = "diffusion_pytorch_model.safetensors"


def build_autoencoder(config: Mapping[str, Any]) -> AutoencoderKL:
    """Fresh weights from the library's configuration keys; keys starting with `_` are skipped.

    Raises:
        ValueError: an unknown key.
    """
    known = set(inspect.signature(AutoencoderKL.__init__).parameters) - {"self"}
    options = {key: value for key, value in config.items() if not key.startswith("_")}
    if unknown := set(options) - known:
        raise ValueError(f"config: unknown keys {sorted(unknown)}, expected some of {sorted(known)}")
    return AutoencoderKL(**options)


def load_autoencoder(
    folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> AutoencoderKL:
    """Loads a `vae` folder; `dtype` None keeps that of the file.

    Raises:
        ValueError: a file is missing, or a tensor is missing, extra or misshapen.
    """
    weights = read_weights(folder, (FILE_NAME,))
    with torch.device("meta"):
        autoencoder = build_autoencoder(read_config(folder))
    fill(autoencoder, weights, folder, device, dtype)
    return autoencoder


def save_autoencoder(autoencoder: AutoencoderKL, folder: str | Path) -> None:
    """Writes `config.json` and `diffusion_pytorch_model.safetensors`."""
    write_weights(Path(folder) / FILE_NAME, autoencoder.state_dict())
    known = inspect.signature(AutoencoderKL.__init__).parameters
    config = {key: value for key, value in autoencoder.config.items() if key in known}
    write_config(folder, {"_class_name": "AutoencoderKL"} | config)


def encode_latents(autoencoder: AutoencoderKL, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Pixels [B, 3, Y, X] in [-1, 1] to latents [B, C, Y/f, X/f] as the flow transformer sees them.

    The posterior's mean, or a draw from it when a generator is given.
    """
    posterior = cast(Any, autoencoder.encode(pixels.to(autoencoder.dtype))).latent_dist
    latents = posterior.mode() if generator is None else posterior.sample(generator)
    return (latents - _shift(autoencoder)) * autoencoder.config["scaling_factor"]


def decode_latents(autoencoder: AutoencoderKL, latents: Tensor) -> Tensor:
    """Latents [B, C, Y, X] to pixels [B, 3, f·Y, f·X], about in [-1, 1] and not clamped."""
    latents = (latents / autoencoder.config["scaling_factor"] + _shift(autoencoder)).to(autoencoder.dtype)
    return cast(Any, autoencoder.decode(cast(torch.FloatTensor, latents))).sample


def downsampling(autoencoder: AutoencoderKL) -> int:
    """f: pixels per latent along each side."""
    return 2 ** (len(autoencoder.config["block_out_channels"]) - 1)


def _shift(autoencoder: AutoencoderKL) -> float:
    return autoencoder.config["shift_factor"] or 0.0
