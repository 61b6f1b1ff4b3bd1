"""Flow matching: the loss that trains the normal decoder, and the check that it reads where its codes are.

‖v(x_t, t) - (x₁ - x₀)‖² on straight paths (arXiv 2210.02747), with more draws near the noise for larger pictures
(arXiv 2403.03206) and the condition sometimes replaced by zeros, which is what guidance subtracts.
"""

from __future__ import annotations

import math

import torch
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from torch import Tensor

from unimodal_decoders.conditioner import Conditioner
from unimodal_decoders.flow import LATENTS_PER_CODE, time_shift
from unimodal_decoders.transformer import velocity

SHIFT_ANCHORS = (256, 0.5), (4096, 1.15)
"""Two points of the line from a picture's number of patches to the logarithm of its time shift (released code)."""


def flow_matching_loss(
    transformer: ZImageTransformer2DModel,
    conditioner: Conditioner,
    latents: Tensor,
    codes: Tensor,
    generator: torch.Generator,
    drop_probability: float = 0.1,
) -> Tensor:
    """The mean squared error of the velocity of each picture, [B].

    Args:
        transformer: predicts velocities.
        conditioner: turns codes into features; trained along.
        latents: data x₁ [B, C, Y, X].
        codes: int [B, H, W] of the same pictures.
        generator: draws noise, then times, then dropped conditions.
        drop_probability: how often a picture's features are zeros instead.

    Raises:
        ValueError: the grids do not fit each other, or the probability is outside [0, 1].
    """
    noise = draw_like(latents, generator)
    times = training_times(latents, transformer.all_patch_size[0], generator)
    features = training_features(conditioner, codes, latents, generator, drop_probability)
    prediction = velocity(transformer, blend(noise, latents, times), times, features)
    return (prediction.float() - (latents - noise).float()).square().mean(dim=(1, 2, 3))


def blend(noise: Tensor, data: Tensor, times: Tensor) -> Tensor:
    """x_t = t·x₁ + (1 - t)·x₀ for times [B]."""
    times = times.view(-1, *[1] * (data.ndim - 1))
    return times * data + (1 - times) * noise


def draw_like(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise in the shape and type of `latents`, drawn where the generator lives."""
    return torch.randn(latents.shape, generator=generator, device=generator.device, dtype=latents.dtype).to(
        latents.device
    )


def training_times(latents: Tensor, patch_size: int, generator: torch.Generator) -> Tensor:
    """Uniform times shifted towards the noise, float32 [B]; the shift grows with the number of patches."""
    (few, low), (many, high) = SHIFT_ANCHORS
    num_patches = latents.shape[2] * latents.shape[3] / patch_size**2
    logarithm = low + (high - low) * (num_patches - few) / (many - few)
    uniform = torch.rand(len(latents), generator=generator, device=generator.device).to(latents.device)
    return time_shift(uniform, math.exp(logarithm))


def training_features(
    conditioner: Conditioner, codes: Tensor, latents: Tensor, generator: torch.Generator, drop_probability: float
) -> Tensor:
    """Features [B, N, D] of `codes`, each picture's replaced by zeros with probability `drop_probability`."""
    if not 0 <= drop_probability <= 1:
        raise ValueError(f"drop_probability: {drop_probability}, expected in [0, 1]")
    resolution_multiplier(codes, latents)  # refuses grids that do not fit each other
    features = conditioner(codes)
    kept = torch.rand(len(codes), generator=generator, device=generator.device) >= drop_probability
    return features * kept.to(features)[:, None, None]


def resolution_multiplier(codes: Tensor, latents: Tensor) -> int:
    """How many times larger per side the latents' picture is than the one the codes describe.

    Raises:
        ValueError: not the same whole number for both sides.
    """
    height, width = codes.shape[1:]
    multiplier = latents.shape[2] // (LATENTS_PER_CODE * height)
    scale = LATENTS_PER_CODE * multiplier
    if len(codes) != len(latents) or multiplier < 1 or latents.shape[2:] != (height * scale, width * scale):
        raise ValueError(
            f"latents: {list(latents.shape)} for codes {list(codes.shape)}, expected "
            f"[{len(codes)}, C, {LATENTS_PER_CODE}m·{height}, {LATENTS_PER_CODE}m·{width}] for a whole m"
        )
    return multiplier


@torch.no_grad()
def condition_gap(
    transformer: ZImageTransformer2DModel,
    conditioner: Conditioner,
    latents: Tensor,
    codes: Tensor,
    generator: torch.Generator,
) -> dict[str, float]:
    """Mean loss with the `true` codes, with their positions `shuffled`, with the `other` picture's, and with `none`.

    All four see the same noise and times. A decoder that ignores where its codes are has true = shuffled; the total
    loss alone hides that.
    """
    order = torch.randperm(codes[0].numel(), generator=generator, device=generator.device).to(codes.device)
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    variants = {"true": codes, "shuffled": codes.flatten(1)[:, order].view_as(codes), "other": codes.roll(1, 0)}

    def loss(variant: Tensor, drop_probability: float) -> float:
        same_draws = torch.Generator(generator.device).manual_seed(seed)
        losses = flow_matching_loss(transformer, conditioner, latents, variant, same_draws, drop_probability)
        return losses.mean().item()

    gaps = {name: loss(variant, 0.0) for name, variant in variants.items()}
    return gaps | {"none": loss(codes, 1.0)}
