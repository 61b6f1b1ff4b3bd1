"""The picture tokenizer (`image_tokenizer/`): vision transformer and cosine vector quantiser.

The run has two phases. First features stay continuous while they learn what is where; then the codebook starts from
k-means over them, and features go through the quantiser with straight-through gradients. Losses: caption alignment
(sigmoid contrastive), per-patch labels (kind, colour, background, offset to the thing's centre) and patch pixels, with
patches of things weighted above the background.
"""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from open_clip.loss import SigLipLoss
from open_clip.transformer import TextTransformer
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

import unimodal_configs
from unimodal.training.loop import Stage, StepOutput, sum_over_processes
from unimodal.training.pictures import sample_picture, sample_random, save_rows, to_tensor
from unimodal.training.recipe import Recipe, Strict
from unimodal.world.scene import Level, Scene, load_level
from unimodal.world.words import description
from unimodal_tokenizers.losses import (
    MovingCodebook,
    Quantized,
    SemanticHeads,
    assignment_sums,
    codebook_perplexity,
    merge_twins,
    quantize,
)
from unimodal_tokenizers.siglip_vq import ImageTokenizer
from unimodal_tokenizers.text import TextTokenizer

PATCH_LABELS = ("kind", "color", "background")
EMPTY = 0.02  # a patch of which things cover less shows the background alone


class TokenizerLossWeights(Strict):
    labels: float = Field(ge=0)
    offset: float = Field(ge=0)
    pixels: float = Field(ge=0)
    contrastive: float = Field(ge=0)
    commitment: float = Field(ge=0)


class TokenizerRecipe(Recipe):
    """`picture_size`: side of the tokenised picture in pixels. `codebook_starts`: the shares of the run at which the
    codebook starts from k-means; before the first, features are not quantised, and a later one gives codes to what
    features have learned to tell apart since. Dead codes are revived every `revive_every` steps until `revive_until` of
    the run. `thing_weight` multiplies patches that things cover; k-means sees `kmeans_background` of the others. At
    the end, codes of the background within a cosine of `merge_similarity` become one."""

    picture_size: int = Field(gt=0)
    codebook_starts: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(min_length=1)
    codebook_decay: float = Field(gt=0, lt=1)
    revive_below: float = Field(gt=0, lt=1)
    revive_every: int = Field(gt=0)
    revive_until: float = Field(gt=0, le=1)
    kmeans_batches: int = Field(gt=0)
    kmeans_iterations: int = Field(default=10, gt=0)
    kmeans_background: float = Field(default=0.05, gt=0, le=1)
    merge_similarity: float = Field(gt=0, le=1)
    thing_weight: float = Field(gt=0)
    caption_length: int = Field(default=64, gt=0)
    embedding_width: int = Field(default=128, gt=0)
    losses: TokenizerLossWeights
    evaluation_pictures: int = Field(default=128, gt=0)


class TokenizerModule(nn.Module):
    """The tokenizer with everything that only training needs: heads, text tower, codebook statistics."""

    def __init__(self, tokenizer: ImageTokenizer, recipe: TokenizerRecipe, level: Level, vocabulary_size: int):
        super().__init__()
        self.tokenizer, self.recipe, self.quantizing = tokenizer, recipe, False
        tokenizer.codebook.requires_grad_(False)
        classes = {"kind": len(level.kinds) + 1, "color": len(level.colors) + 1, "background": len(level.backgrounds)}
        width, patch = tokenizer.quantizer.config.latent_channels, tokenizer.patch_size
        self.heads = SemanticHeads(width, classes, 3 * patch**2, recipe.embedding_width)
        self.text = TextTransformer(
            context_length=recipe.caption_length,
            vocab_size=vocabulary_size,
            width=recipe.embedding_width,
            heads=4,
            layers=2,
            output_dim=recipe.embedding_width,
            pool_type="last",
            no_causal_mask=True,
        )
        self.logit_scale = nn.Parameter(torch.tensor(2.3))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0))
        self.contrastive = SigLipLoss()
        self.statistics = MovingCodebook(tokenizer.codebook, recipe.codebook_decay, recipe.revive_below)

    def forward(self, batch: dict[str, Any]) -> StepOutput:
        pixels, count = batch["pixels"], len(batch["pixels"])
        quantized, outputs = self.read(pixels)
        losses = self.patch_losses(outputs, batch)
        caption = F.normalize(self.text(batch["captions"]), dim=-1)
        picture = F.normalize(outputs["pooled"], dim=-1)
        contrastive = self.contrastive(picture, caption, self.logit_scale.exp(), self.logit_bias)
        losses["contrastive"] = contrastive.expand(count)
        losses["commitment"] = quantized.commitment if self.quantizing else torch.zeros_like(quantized.commitment)
        weights = self.recipe.losses.model_dump()
        total = reduce(torch.add, [weights[name] * value for name, value in losses.items()])
        metrics = {name: value.detach().float().mean() for name, value in losses.items()}
        return StepOutput(total.sum(), metrics, (quantized, losses["pixels"].detach(), batch["cover"]))

    def read(self, pixels: Tensor) -> tuple[Quantized, dict[str, Tensor]]:
        vectors = self.tokenizer.project(self.tokenizer.features(pixels))
        quantized = quantize(vectors, self.tokenizer.codebook)
        passed = quantized.straight if self.quantizing else quantized.unit
        features = self.tokenizer.quantizer.post_quant_conv(passed.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return quantized, self.heads(features)

    def patch_losses(self, outputs: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Per-picture losses [B] of labels, offsets and pixels, averaged over patches weighted by what they show."""
        covered = (batch["kind"] > 0).float()
        weight = 1 + (self.recipe.thing_weight - 1) * covered
        weight = weight / weight.sum(dim=(1, 2), keepdim=True)
        labels = torch.zeros_like(weight)
        for name in PATCH_LABELS:
            scores = outputs[name].flatten(0, 2).float()
            labels = labels + F.cross_entropy(scores, batch[name].flatten(), reduction="none").view_as(weight)
        offset = (outputs["offset"].float() - batch["offset"]).square().sum(dim=-1) * covered
        patch = self.tokenizer.patch_size
        target = F.pixel_unshuffle(batch["pixels"], patch).permute(0, 2, 3, 1)
        error = outputs["pixels"].float() - target
        pixels = error.abs().mean(dim=-1) + error.square().mean(dim=-1)
        return {
            name: (value * weight).sum(dim=(1, 2))
            for name, value in (("labels", labels), ("offset", offset), ("pixels", pixels))
        }


class TokenizerStage(Stage):
    recipe: TokenizerRecipe
    module: TokenizerModule

    def __init__(self, recipe: TokenizerRecipe, checkpoint: Path):
        self.recipe, self.checkpoint = recipe, checkpoint
        self.level = load_level(recipe.level)
        self.text = TextTokenizer.from_pretrained(checkpoint)
        torch.manual_seed(recipe.seed)
        tokenizer = ImageTokenizer.from_config(unimodal_configs.read_model(recipe.model)["image_tokenizer"])
        self.module = TokenizerModule(tokenizer, recipe, self.level, len(self.text))

    def batch(self, step: int, indices: range) -> dict[str, Any]:
        return self._collate([sample_picture(self.level, sample_random(self.recipe.seed, step, i)) for i in indices])

    def before_step(self, step: int, module: nn.Module) -> None:
        starts = [round(share * self.recipe.steps) for share in self.recipe.codebook_starts]
        self.module.quantizing = step >= min(starts)
        if step in starts:
            self._start_codebook()

    def after_step(self, step: int, module: nn.Module, outputs: list[StepOutput], accelerator: Accelerator) -> None:
        recipe, codebook, statistics = self.recipe, self.module.tokenizer.codebook, self.module.statistics
        if not self.module.quantizing:
            return
        flat = [(q.codes, q.unit) for q in (o.state[0] for o in outputs)]
        totals = [assignment_sums(codes, unit, len(codebook)) for codes, unit in flat]
        counts, sums = (sum_over_processes(accelerator, part) for part in zip(*totals, strict=True))
        statistics.update(codebook, counts, sums)
        if step % recipe.revive_every == 0 and step < recipe.revive_until * recipe.steps:
            vectors = torch.cat([unit.detach().flatten(0, 2) for _, unit in flat])
            distance = torch.cat(
                [(o.state[0].unit - o.state[0].straight).detach().square().sum(-1).flatten() for o in outputs]
            )
            cover = torch.cat([o.state[2].flatten() for o in outputs])
            errors = distance * (1 + (recipe.thing_weight - 1) * cover)
            generator = torch.Generator().manual_seed(recipe.seed + step)
            vectors, errors = accelerator.gather((vectors, errors))
            statistics.revive(codebook, vectors, errors, generator)

    def evaluate(self, module: nn.Module, samples: Path, step: int) -> dict[str, float]:
        """Accuracy of the labels read back from quantised features, and how many codes things and all patches use."""
        assert isinstance(module, TokenizerModule)
        module.quantizing = self.module.quantizing
        sources = (sample_random(self.recipe.seed, 0, i, "test") for i in range(self.recipe.evaluation_pictures))
        batch = self._collate([sample_picture(self.level, s, "test") for s in sources])
        batch = {k: v.to(next(module.parameters()).device) for k, v in batch.items()}
        quantized, outputs = module.read(batch["pixels"])
        covered = batch["kind"] > 0
        right = {name: outputs[name].argmax(-1) == batch[name] for name in PATCH_LABELS}
        size = len(module.tokenizer.codebook)
        counts = assignment_sums(quantized.codes, quantized.unit, size)[0]
        thing_counts = assignment_sums(quantized.codes[covered], quantized.unit[covered], size)[0]
        pixels = F.pixel_shuffle(outputs["pixels"].permute(0, 3, 1, 2).float(), module.tokenizer.patch_size)
        save_rows(str(samples / f"{step:06d}.png"), [batch["pixels"][:8], pixels[:8]])
        return {
            "kind": float(right["kind"][covered].float().mean()),
            "color": float(right["color"][covered].float().mean()),
            "background": float(right["background"].float().mean()),
            "all_patches": float(torch.stack(list(right.values())).all(dim=0).float().mean()),
            "scenes": float(torch.stack(list(right.values())).all(dim=0).all(dim=(1, 2)).float().mean()),
            "codes_used": float((counts > 0).sum()),
            "perplexity": float(codebook_perplexity(counts)),
            "thing_perplexity": float(codebook_perplexity(thing_counts)),
        }

    def export(self, module: nn.Module) -> None:
        assert isinstance(module, TokenizerModule)
        module.tokenizer.save_pretrained(self.checkpoint / "image_tokenizer")

    def finish(self, module: nn.Module) -> None:
        """Merges the background's twin codes, counted over fresh training pictures."""
        assert isinstance(module, TokenizerModule)
        size = len(module.tokenizer.codebook)
        background_counts, thing_counts = torch.zeros(len(self.level.backgrounds), size), torch.zeros(size)
        for draw in range(self.recipe.kmeans_batches):
            batch = self.batch(-1 - draw, range(self.recipe.batch_size))
            codes = module.tokenizer.encode(batch["pixels"].to(module.logit_scale.device)).cpu()
            empty = batch["cover"] < EMPTY
            thing_counts += torch.bincount(codes[~empty], minlength=size)
            pairs = batch["background"][empty] * size + codes[empty]
            background_counts += torch.bincount(pairs, minlength=background_counts.numel()).view_as(background_counts)
        merge_twins(module.tokenizer.codebook, background_counts, thing_counts, self.recipe.merge_similarity)

    def _start_codebook(self) -> None:
        vectors = []
        with torch.no_grad():
            for draw in range(self.recipe.kmeans_batches):
                batch = self.batch(-1 - draw, range(self.recipe.batch_size))
                unit = self.module.read(batch["pixels"].to(self.module.logit_scale.device))[0].unit
                # Things decide what codes are for: background patches enter at the rate that balances both.
                chance = torch.rand(batch["kind"].shape, generator=torch.Generator().manual_seed(draw))
                keep = (batch["kind"] > 0) | (chance < self.recipe.kmeans_background)
                vectors.append(unit[keep.to(unit.device)])
        generator = torch.Generator().manual_seed(self.recipe.seed)
        self.module.statistics.start(
            self.module.tokenizer.codebook, torch.cat(vectors), self.recipe.kmeans_iterations, generator
        )

    def _collate(self, samples: list[tuple[Scene, Image.Image]]) -> dict[str, Any]:
        size, patch = self.recipe.picture_size, self.module.tokenizer.patch_size
        pixels = to_tensor([picture.resize((size, size), Image.Resampling.BICUBIC) for _, picture in samples])
        labels = [patch_labels(scene, self.level, size // patch) for scene, _ in samples]
        captions = [
            self.text.encode(description(scene, self.level))[: self.recipe.caption_length] for scene, _ in samples
        ]
        padded = torch.zeros(len(samples), self.recipe.caption_length, dtype=torch.long)
        for row, caption in enumerate(captions):
            padded[row, : len(caption)] = torch.tensor(caption)
        stacked = {name: torch.stack([label[name] for label in labels]) for name in labels[0]}
        return stacked | {"pixels": pixels, "captions": padded, "weight": torch.tensor(float(len(samples)))}


def patch_labels(scene: Scene, level: Level, grid: int, covered_from: float = 0.25) -> dict[str, Tensor]:
    """What each patch of a `grid` × `grid` picture shows, from the scene alone.

    A patch belongs to the thing whose box covers most of it, if that is at least `covered_from` of the patch.

    Returns:
        `kind`, `color` int [grid, grid], 0 for none; `background` int; `offset` [grid, grid, 2]: (x, y) from the patch
        centre to the thing's centre in patches; `cover` [grid, grid] in [0, 1]: the share that
        some thing covers, however small.
    """
    side = level.picture_size / grid
    edges = torch.arange(grid + 1) * side
    kind, color = (torch.zeros(grid, grid, dtype=torch.long) for _ in range(2))
    cover, offset = torch.zeros(grid, grid), torch.zeros(grid, grid, 2)
    middle = (torch.arange(grid) + 0.5) * side
    for thing in scene.things:
        half = level.sizes[thing.size] / 2
        along = [
            (
                torch.minimum(edges[1:], torch.tensor(c + half)) - torch.maximum(edges[:-1], torch.tensor(c - half))
            ).clamp(min=0)
            / side
            for c in (thing.x, thing.y)
        ]
        share = along[1][:, None] * along[0][None, :]
        mine = (share >= covered_from) & (share > cover)
        kind[mine] = level.kinds.index(thing.kind) + 1
        color[mine] = level.colors.index(thing.color) + 1
        toward = torch.stack(
            torch.meshgrid((thing.y - middle) / side, (thing.x - middle) / side, indexing="ij")[::-1], dim=-1
        )
        offset[mine] = toward[mine]
        cover = torch.maximum(cover, share)
    background = torch.full((grid, grid), level.backgrounds.index(scene.background))
    return {"kind": kind, "color": color, "background": background, "offset": offset, "cover": cover}
