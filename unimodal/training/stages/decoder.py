"""The pixel decoder: the flow transformer and its conditioner from codes, then the few-step one distilled from it.

`decoder` trains the velocity by flow matching on latents of the autoencoder. `distill` starts from it, learns velocity
and flow map with two heads against the guided velocity, and exports the flow map as `decoder-turbo`.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

import unimodal_configs
from unimodal.training.code_directions import code_directions
from unimodal.training.loop import Stage, StepOutput
from unimodal.training.pictures import sample_picture, sample_random, save_rows, to_tensor, torch_generator
from unimodal.training.recipe import Recipe
from unimodal.training.stages.autoencoder import psnr
from unimodal.training.stages.tokenizer import patch_labels
from unimodal.world.sampling import Split
from unimodal.world.scene import Scene, load_level
from unimodal_decoders.autoencoder import encode_latents, load_autoencoder
from unimodal_decoders.conditioner import Conditioner, build_conditioner
from unimodal_decoders.distillation import TwoHeadTransformer, distillation_loss
from unimodal_decoders.flow import guided
from unimodal_decoders.losses import blend, condition_gap, training_times
from unimodal_decoders.pixel_decoder import PixelDecoder
from unimodal_decoders.transformer import (
    build_transformer,
    initialise_gates,
    load_transformer,
    save_transformer,
    velocity,
)
from unimodal_tokenizers.siglip_vq import ImageTokenizer

_CROPS_WITH_THINGS = 0.8


class DecoderRecipe(Recipe):
    """`pool`: pictures whose latents and codes are computed once and then used again. `thing_weight` multiplies the
    loss where things are; it moves effort, not the optimum. `gate_start`: head start of the modulation gates.
    `code_directions`: length of the codebook's directions that the conditioner's embedding starts with, besides its
    random start. Until the last `whole_fraction` of the run, steps see crops of `crop_size` codes a side (0: whole
    pictures always), `crop_batch` for each picture of the batch, most of them where a thing is: cheaper by their area,
    and exact, since the transformer knows relative places only."""

    picture_size: int = Field(gt=0)
    pool: int = Field(gt=0)
    drop_probability: float = Field(ge=0, lt=1)
    thing_weight: float = Field(gt=0)
    gate_start: float = 0.0
    code_directions: float = Field(default=0.0, ge=0)
    crop_size: int = Field(default=0, ge=0)
    crop_batch: int = Field(default=1, gt=0)
    whole_fraction: float = Field(default=1.0, ge=0, le=1)
    evaluation_pictures: int = Field(default=16, gt=0)


class DistillRecipe(DecoderRecipe):
    """`guidance_scale` of the teacher, in the decoder's convention (0 = none); `head`: what the turbo decoder keeps."""

    guidance_scale: float = Field(ge=0)
    head: Literal["flow_map", "velocity"] = "flow_map"
    flow_map_weight: float = Field(default=1.0, ge=0)


class DecoderModule(nn.Module):
    def __init__(self, transformer: Any, conditioner: Conditioner):
        super().__init__()
        self.transformer, self.conditioner = transformer, conditioner

    def forward(self, batch: dict[str, Any]) -> StepOutput:
        data, noise, times = batch["latents"], batch["noise"], batch["times"]
        features = self.features(batch)
        predicted = velocity(self.transformer, blend(noise, data, times), times, features)
        error = (predicted.float() - (data - noise)).square().mean(dim=1)
        loss = (error * batch["importance"]).mean(dim=(1, 2)).sum()
        return StepOutput(loss, {"plain": error.detach().mean()})

    def features(self, batch: dict[str, Any]) -> Tensor:
        features = self.conditioner(batch["codes"])
        return features * batch["kept"].to(features)[:, None, None]


class DecoderStage(Stage):
    recipe: DecoderRecipe
    module: Any

    def __init__(self, recipe: DecoderRecipe, checkpoint: Path):
        self.recipe, self.checkpoint = recipe, checkpoint
        self.level = load_level(recipe.level)
        self.tokenizer = ImageTokenizer.from_pretrained(checkpoint / "image_tokenizer")
        self.autoencoder = load_autoencoder(checkpoint / "vae", dtype=torch.float32)
        self.configuration = unimodal_configs.read_model(recipe.model)
        self._pool: dict[tuple[str, int], tuple[Tensor, Tensor, Tensor]] = {}
        torch.manual_seed(recipe.seed)
        self.module = self._build()

    def _build(self) -> nn.Module:
        transformer = build_transformer(self.configuration["decoder"])
        initialise_gates(transformer, self.recipe.gate_start)
        conditioner = build_conditioner(self.configuration["conditioner"])
        embedding = conditioner.prior_token_embedding.weight.data
        generator = torch.Generator().manual_seed(self.recipe.seed)
        codebook = self.tokenizer.codebook.detach()
        embedding += self.recipe.code_directions * code_directions(codebook, embedding.shape[1], generator)
        return DecoderModule(transformer, conditioner)

    def batch(self, step: int, indices: range) -> dict[str, Any]:
        first = step * self.recipe.batch_size
        pool = [self._sample("train", (first + index) % self.recipe.pool) for index in indices]
        randoms = [sample_random(self.recipe.seed, step, i) for i in indices]
        if self.recipe.crop_size and self.recipe.steps - step > self.recipe.whole_fraction * self.recipe.steps:
            copies = self.recipe.crop_batch
            pool = [
                crop(*one, self.recipe.crop_size, random)
                for one, random in zip(pool, randoms, strict=True)
                for _ in range(copies)
            ]
            randoms = [random for random in randoms for _ in range(copies)]
        generators = [torch_generator(random) for random in randoms]
        codes, latents, importance = (torch.stack(parts) for parts in zip(*pool, strict=True))
        patch = self.configuration["decoder"]["all_patch_size"][0]
        return {
            "codes": codes,
            "latents": latents,
            "importance": importance,
            "noise": torch.stack([torch.randn(latents[0].shape, generator=g) for g in generators]),
            "times": torch.cat([training_times(latents[:1], patch, g) for g in generators]),
            "kept": torch.cat([torch.rand(1, generator=g) >= self.recipe.drop_probability for g in generators]),
            "weight": torch.tensor(float(len(codes))),
        }

    def evaluate(self, module: nn.Module, samples: Path, step: int) -> dict[str, float]:
        """Losses with true, shuffled, other and no codes, and the quality of decoded held-out pictures."""
        conditioner, transformer = self._parts(module)
        device = next(module.parameters()).device
        drawn = [self._sample("test", index) for index in range(self.recipe.evaluation_pictures)]
        codes, latents, _ = (torch.stack(parts).to(device) for parts in zip(*drawn, strict=True))
        pixels = to_tensor([self._draw("test", index)[1] for index in range(len(drawn))]).to(device)
        gaps = condition_gap(transformer, conditioner, latents, codes, torch.Generator().manual_seed(self.recipe.seed))
        decoder = PixelDecoder.from_pretrained(self.checkpoint, device, torch.float32)
        name = "turbo" if isinstance(self.recipe, DistillRecipe) else "normal"
        with torch.autocast(device.type, enabled=False):
            decoded = decoder.decode(codes, decoder=name, generator=torch.Generator().manual_seed(0))
        save_rows(str(samples / f"{step:06d}.png"), [pixels[:8], decoded[:8]])
        return {f"gap.{k}": v for k, v in gaps.items()} | {"psnr": float(psnr(decoded.float(), pixels))}

    def export(self, module: nn.Module) -> None:
        conditioner, transformer = self._parts(module)
        conditioner.save_pretrained(self.checkpoint / "image_tokenizer")
        save_transformer(transformer, self.checkpoint / "decoder")

    def is_matrix(self, name: str, parameter: Tensor) -> bool:
        return parameter.ndim == 2 and ("attention" in name or "feed_forward" in name)

    def _parts(self, module: nn.Module) -> tuple[Conditioner, Any]:
        assert isinstance(module, DecoderModule)
        return module.conditioner, module.transformer

    def _draw(self, split: Split, index: int) -> tuple[Scene, Image.Image]:
        return sample_picture(self.level, sample_random(self.recipe.seed, 0, index, f"decoder/{split}"), split)

    @torch.no_grad()
    def _sample(self, split: Split, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Codes [H, W], latents [C, Y, X] and the loss weight of every latent [Y, X] of one picture of the pool."""
        if (split, index) not in self._pool:
            scene, picture = self._draw(split, index)
            size = (self.recipe.picture_size, self.recipe.picture_size)
            codes = self.tokenizer.encode(to_tensor([picture.resize(size, Image.Resampling.BICUBIC)]))[0]
            latents = encode_latents(self.autoencoder, to_tensor([picture]))[0].float()
            importance = 1 + (self.recipe.thing_weight - 1) * (
                patch_labels(scene, self.level, latents.shape[-1], 0.05)["kind"] > 0
            )
            self._pool[split, index] = codes, latents, importance / importance.mean()
        return self._pool[split, index]


def crop(codes: Tensor, latents: Tensor, importance: Tensor, size: int, random: Random) -> tuple[Tensor, ...]:
    """A square of `size` codes a side, with the latents and loss weights that belong to it.

    Four of five contain a place where a thing is (a weight above the least), if there is one.

    Raises:
        ValueError: the picture has fewer codes a side.
    """
    if size > min(codes.shape):
        raise ValueError(f"crop_size: got {size}, the pictures have {' × '.join(map(str, codes.shape))} codes")
    scale = latents.shape[-1] // codes.shape[-1]
    weights = importance.unflatten(1, (-1, scale)).unflatten(0, (-1, scale)).amax(dim=(1, 3))
    things = (weights > importance.min()).nonzero().tolist()
    low, high = [0, 0], [side - size for side in codes.shape]
    if things and random.random() < _CROPS_WITH_THINGS:
        place = random.choice(things)
        low = [max(0, position - size + 1) for position in place]
        high = [min(most, position) for most, position in zip(high, place, strict=True)]
    top, left = (random.randint(*ends) for ends in zip(low, high, strict=True))
    rows, columns = slice(top * scale, (top + size) * scale), slice(left * scale, (left + size) * scale)
    return codes[top : top + size, left : left + size], latents[:, rows, columns], importance[rows, columns]


class DistillModule(nn.Module):
    def __init__(self, student: TwoHeadTransformer, conditioner: Conditioner, teacher: Any, recipe: DistillRecipe):
        super().__init__()
        self.student, self.recipe = student, recipe
        self.conditioner = conditioner.requires_grad_(False)
        self.teacher = teacher.requires_grad_(False)

    def forward(self, batch: dict[str, Any]) -> StepOutput:
        codes, latents = batch["codes"], batch["latents"]
        features = self.conditioner(codes)

        def teach(points: Tensor, times: Tensor) -> Tensor:
            with_codes = velocity(self.teacher, points, times, features).float()
            if not self.recipe.guidance_scale:
                return with_codes
            without = velocity(self.teacher, points, times, torch.zeros_like(features)).float()
            return guided(with_codes, without, self.recipe.guidance_scale)

        loss = distillation_loss(
            lambda x, t: self.student(x, t, features), latents, batch["noise"], batch["times"], teach
        )
        total = loss.velocity + self.recipe.flow_map_weight * loss.flow_map
        return StepOutput(
            total.sum(), {"velocity": loss.velocity.detach().mean(), "flow_map": loss.flow_map.detach().mean()}
        )


class DistillStage(DecoderStage):
    recipe: DistillRecipe

    def _build(self) -> nn.Module:
        conditioner = Conditioner.from_pretrained(self.checkpoint / "image_tokenizer").float()
        teacher = load_transformer(self.checkpoint / "decoder", dtype=torch.float32)
        student = TwoHeadTransformer(load_transformer(self.checkpoint / "decoder", dtype=torch.float32))
        return DistillModule(student, conditioner, teacher, self.recipe)

    def export(self, module: nn.Module) -> None:
        save_transformer(self._parts(module)[1], self.checkpoint / "decoder-turbo")

    def is_matrix(self, name: str, parameter: Tensor) -> bool:
        return name.startswith("student.") and super().is_matrix(name, parameter)

    def _parts(self, module: nn.Module) -> tuple[Conditioner, Any]:
        assert isinstance(module, DistillModule)
        return module.conditioner, module.student.export(self.recipe.head)
