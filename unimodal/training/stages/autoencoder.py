"""The KL autoencoder (`vae/`): pixels ↔ latents, on diffusers' `AutoencoderKL`.

A linear PCA of 8 × 8 patches is the baseline to beat, and the start: for the first part of the run the encoder
regresses the PCA's coefficients and the decoder learns to paint from them, each on its own; then both train together.
Latents so begin as a smooth, nearly linear code, which the flow transformer can model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from pydantic import Field
from torch import Tensor, nn

import unimodal_configs
from unimodal.training.loop import Stage, StepOutput
from unimodal.training.pictures import sample_picture, sample_random, save_rows, to_tensor, torch_generator
from unimodal.training.recipe import Recipe
from unimodal.world.scene import load_level
from unimodal_decoders.autoencoder import build_autoencoder, save_autoencoder


class AutoencoderRecipe(Recipe):
    """`crop_size` in pixels; `pca_fraction` of the run is spent on the linear start, and the last `whole_fraction` on
    `whole_batch` whole pictures a step instead of crops, since normalisation over a crop differs from that over a
    picture. `gradient_weight` weighs the L1 distance of picture gradients, which keeps outlines sharp."""

    crop_size: int = Field(gt=0)
    pca_fraction: float = Field(ge=0, lt=1)
    whole_fraction: float = Field(default=0.0, ge=0, lt=1)
    whole_batch: int = Field(default=1, gt=0)
    pca_pictures: int = Field(default=256, gt=0)
    gradient_weight: float = Field(ge=0)
    kl_weight: float = Field(ge=0)
    evaluation_pictures: int = Field(default=32, gt=0)


class AutoencoderModule(nn.Module):
    pca_mean: Tensor
    pca_axes: Tensor

    def __init__(self, autoencoder: AutoencoderKL, recipe: AutoencoderRecipe, pca: tuple[Tensor, Tensor]):
        super().__init__()
        self.autoencoder, self.recipe = autoencoder, recipe
        self.register_buffer("pca_mean", pca[0])
        self.register_buffer("pca_axes", pca[1])
        self.joint = False

    def forward(self, batch: dict[str, Any]) -> StepOutput:
        pixels, noise = batch["pixels"], batch["noise"]
        posterior = self.autoencoder.encode(pixels).latent_dist  # type: ignore[union-attr]
        target = self.linear_latents(pixels)
        if self.joint:
            latents = posterior.mean + posterior.std * noise
            latent_loss = self.recipe.kl_weight * posterior.kl().sum() / noise[0].numel()
        else:
            latents = target
            latent_loss = (posterior.mean - target).square().mean(dim=(1, 2, 3)).sum()
        decoded = self.autoencoder.decode(latents).sample.float()  # type: ignore[union-attr]
        error = decoded - pixels
        distance = error.abs().mean(dim=(1, 2, 3)) + error.square().mean(dim=(1, 2, 3))
        gradients = sum(error.diff(dim=dim).abs().mean(dim=(1, 2, 3)) for dim in (2, 3))
        loss = (distance + self.recipe.gradient_weight * gradients).sum() + latent_loss
        return StepOutput(loss, {"psnr": psnr(decoded.detach(), pixels), "latent": latent_loss.detach() / len(pixels)})

    def linear_latents(self, pixels: Tensor) -> Tensor:
        """PCA coefficients [B, C, Y/8, X/8] of unit variance."""
        return F.conv2d(pixels - self.pca_mean.view(1, -1, 1, 1), self.pca_axes, stride=self.pca_axes.shape[-1])

    def linear_reconstruction(self, pixels: Tensor) -> Tensor:
        axes = self.pca_axes
        scale = axes.flatten(1).norm(dim=1).square().view(1, -1, 1, 1)  # rows are unit axes over their deviation
        return F.conv_transpose2d(
            self.linear_latents(pixels) / scale, axes, stride=axes.shape[-1]
        ) + self.pca_mean.view(1, -1, 1, 1)


class AutoencoderStage(Stage):
    recipe: AutoencoderRecipe
    module: AutoencoderModule

    def __init__(self, recipe: AutoencoderRecipe, checkpoint: Path):
        self.recipe, self.checkpoint = recipe, checkpoint
        self.level = load_level(recipe.level)
        torch.manual_seed(recipe.seed)
        autoencoder = build_autoencoder(unimodal_configs.read_model(recipe.model)["vae"])
        zero_residual_branches(autoencoder)
        autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        pictures = [
            sample_picture(self.level, sample_random(recipe.seed, 0, i, "pca"))[1] for i in range(recipe.pca_pictures)
        ]
        factor = 2 ** (len(autoencoder.config["block_out_channels"]) - 1)
        pca = principal_axes(to_tensor(pictures), factor, autoencoder.config["latent_channels"])
        self.module = AutoencoderModule(autoencoder, recipe, pca)

    def batch(self, step: int, indices: range) -> dict[str, Any]:
        size, crops, noise = self.recipe.crop_size, [], []
        if step >= (1 - self.recipe.whole_fraction) * self.recipe.steps:
            size, indices = self.level.picture_size, indices[: self.recipe.whole_batch]
        channels, factor = self.module.pca_axes.shape[0], self.module.pca_axes.shape[-1]
        for index in indices:
            source = sample_random(self.recipe.seed, step, index)
            picture = sample_picture(self.level, source)[1]
            left, top = (source.randint(0, side - size) for side in picture.size)
            crops.append(picture.crop((left, top, left + size, top + size)))
            generator = torch_generator(source)
            noise.append(torch.randn(channels, size // factor, size // factor, generator=generator))
        return {"pixels": to_tensor(crops), "noise": torch.stack(noise), "weight": torch.tensor(float(len(indices)))}

    def before_step(self, step: int, module: nn.Module) -> None:
        self.module.joint = step >= self.recipe.pca_fraction * self.recipe.steps

    def evaluate(self, module: nn.Module, samples: Path, step: int) -> dict[str, float]:
        assert isinstance(module, AutoencoderModule)
        pixels = self._evaluation_pixels(module)
        decode: Any = module.autoencoder.decode
        decoded = torch.cat([decode(latents).sample for latents in self._latents(module, pixels).split(8)]).float()
        linear = module.linear_reconstruction(pixels)
        save_rows(str(samples / f"{step:06d}.png"), [pixels[:6], decoded[:6]])
        return {"psnr": float(psnr(decoded, pixels)), "psnr_pca": float(psnr(linear, pixels))}

    def export(self, module: nn.Module) -> None:
        """Sets scaling and shift so that latents have zero mean and unit variance, then saves."""
        assert isinstance(module, AutoencoderModule)
        latents = self._latents(module, self._evaluation_pixels(module)).float()
        module.autoencoder.register_to_config(
            shift_factor=float(latents.mean()), scaling_factor=float(1 / latents.std())
        )
        save_autoencoder(module.autoencoder, self.checkpoint / "vae")

    def _evaluation_pixels(self, module: nn.Module) -> Tensor:
        sources = (sample_random(self.recipe.seed, 0, i, "test") for i in range(self.recipe.evaluation_pictures))
        pixels = to_tensor([sample_picture(self.level, source, "test")[1] for source in sources])
        return pixels.to(next(module.parameters()).device)

    def _latents(self, module: AutoencoderModule, pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([module.autoencoder.encode(p).latent_dist.mean for p in pixels.split(8)])  # type: ignore[union-attr]


def psnr(decoded: Tensor, pixels: Tensor) -> Tensor:
    """Mean over pictures of the peak signal-to-noise ratio in dB, for pixels in [-1, 1]."""
    error = (decoded.clamp(-1, 1) - pixels).square().mean(dim=(1, 2, 3)).clamp(min=1e-10)
    return (10 * torch.log10(4 / error)).mean()


def principal_axes(pixels: Tensor, size: int, channels: int) -> tuple[Tensor, Tensor]:
    """The mean colour [3] and `channels` principal axes [channels, 3, size, size], each divided by its deviation."""
    mean = pixels.mean(dim=(0, 2, 3))
    patches = F.unfold(pixels - mean.view(1, -1, 1, 1), size, stride=size).transpose(1, 2).flatten(0, 1).double()
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    axes = vectors[:, -channels:].flip(1).T / values[-channels:].flip(0).clamp(min=1e-8).sqrt().unsqueeze(1)
    return mean, axes.float().view(channels, 3, size, size)


def zero_residual_branches(autoencoder: AutoencoderKL) -> None:
    """Residual blocks start as the identity, so that signal passes from the first step."""
    for name, module in autoencoder.named_modules():
        if name.endswith("conv2") and isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
