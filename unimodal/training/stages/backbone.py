"""The backbone: block-diffusion training on documents of every task, mixed and packed.

Follows LLaDA2.0 (arXiv 2512.15745) and LLaDA2.0-Uni (arXiv 2604.20796): masks per modality, complementary masking, 1/t
weights, one over the square root of the masked tokens per sample, and router biases that balance the experts without an
auxiliary loss.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

import unimodal_configs
from unimodal.backbone.config import BackboneConfig
from unimodal.backbone.model import MaskedDiffusionTransformer
from unimodal.checkpoint import save_backbone
from unimodal.diffusion.objective import Noise, Streams, collate, lay_out, weighted_loss
from unimodal.evaluation.prompts import sample_prompts
from unimodal.pipeline import Pipeline
from unimodal.sequence import SequenceBuilder
from unimodal.training.code_directions import code_directions
from unimodal.training.documents import DocumentBuilder, Dropout, scenes_of
from unimodal.training.loop import Stage, StepOutput, sum_over_processes
from unimodal.training.pictures import sample_random, save_rows, to_tensor
from unimodal.training.recipe import Recipe, Strict
from unimodal.vocab import UnifiedVocab
from unimodal.world.render import render
from unimodal.world.sampling import Split
from unimodal.world.scene import Scene, load_level
from unimodal.world.tasks import TASKS, sample_example
from unimodal_tokenizers.siglip_vq import ImageTokenizer
from unimodal_tokenizers.text import TextTokenizer


class CodeDirections(Strict):
    """Lengths of the codebook's directions that are added to the picture rows of embedding and head at the start."""

    embedding: float = Field(ge=0)
    head: float = Field(ge=0)


class BackboneRecipe(Recipe):
    """`row_length`: documents are packed into rows of up to so many positions. `tasks`: relative shares of the samples.
    `questions`: questions per picture. `easy_fraction` of the run is spent on scenes that grow from one thing to all.
    `balance_rate`: step of the router biases. `mask_ratios`: the band that a block's mask ratio is drawn from.
    `code_directions`: codes of alike patches start alike."""

    picture_size: int = Field(gt=0)
    block_length: int = Field(gt=0)
    row_length: int = Field(gt=0)
    tasks: dict[str, float]
    questions: int = Field(gt=0)
    dropout: Dropout
    mask_ratios: tuple[float, float]
    easy_fraction: float = Field(ge=0, lt=1)
    balance_rate: float = Field(ge=0)
    evaluation_samples: int = Field(default=32, gt=0)
    code_directions: CodeDirections | None = None
    evaluation_pictures: int = Field(default=6, gt=0)
    gradient_checkpointing: bool = False


class BackboneModule(nn.Module):
    def __init__(self, model: MaskedDiffusionTransformer):
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Any]) -> StepOutput:
        """Rows of similar lengths go through the model together; `batch["parts"]` holds these packs."""
        losses, *others, part_counts = zip(*[self._part(part) for part in batch["parts"]], strict=True)
        hits, entropies = (torch.cat(parts) for parts in others)
        counts = None if part_counts[0] is None else torch.stack(part_counts).sum(dim=0)
        metrics = {"accuracy": hits.mean(), "entropy": entropies.mean()}
        return StepOutput(torch.stack(losses).sum(), metrics, (hits, entropies, counts))

    def _part(self, part: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        output = self.model(
            part["tokens"],
            position_ids=part["position_ids"],
            attention_mask=part["attention_mask"],
            logits_for=(part["rows"], part["columns"]),
        )
        loss, entropies = weighted_loss(output.logits, part["labels"], part["weights"])
        hits = (output.logits.detach().argmax(dim=-1) == part["labels"]).float()
        return loss, hits, entropies, output.router_counts


class BackboneStage(Stage):
    recipe: BackboneRecipe
    module: BackboneModule

    def __init__(self, recipe: BackboneRecipe, checkpoint: Path):
        self.recipe, self.checkpoint = recipe, checkpoint
        unknown = set(recipe.tasks) - set(TASKS)
        if unknown:
            raise ValueError(f"tasks: got {', '.join(sorted(unknown))}, allowed are {', '.join(TASKS)}")
        self.level = load_level(recipe.level)
        self.tokenizer = ImageTokenizer.from_pretrained(checkpoint / "image_tokenizer")
        torch.manual_seed(recipe.seed)
        config = BackboneConfig(**unimodal_configs.read_model(recipe.model)["backbone"])
        model = MaskedDiffusionTransformer(config)
        if recipe.gradient_checkpointing:
            recompute_activations(model)
        self.module = BackboneModule(model)
        text = TextTokenizer.from_pretrained(checkpoint)
        self.vocab = UnifiedVocab.from_tokenizer(
            text,
            vocab_size=config.vocab_size,
            image_token_offset=config.image_token_offset,
            codebook_size=self.tokenizer.codebook_size,
        )
        if recipe.code_directions:
            generator = torch.Generator().manual_seed(recipe.seed)
            directions = code_directions(self.tokenizer.codebook.detach(), config.hidden_size, generator)
            rows = slice(*self.vocab.image_range)
            model.embedding.weight.data[rows] += recipe.code_directions.embedding * directions
            model.head.weight.data[rows] += recipe.code_directions.head * directions
        self.sequences = SequenceBuilder(text, self.vocab)
        self.locate = self.sequences.locate_for(config.grid_rotary_dim)
        self.documents = DocumentBuilder(
            self.sequences, self.level, recipe.block_length, recipe.dropout, recipe.questions
        )

    def batch(self, step: int, indices: range) -> dict[str, Any]:
        growth = step / max(1.0, self.recipe.easy_fraction * self.recipe.steps)
        easiest = 1 / self.level.max_things
        difficulty = min(1.0, easiest + (1 - easiest) * growth)
        names, shares = zip(*self.recipe.tasks.items(), strict=True)
        sources = [sample_random(self.recipe.seed, step, index) for index in indices]
        tasks = [source.choices(names, shares)[0] for source in sources]
        samples = self._lay_out(tasks, sources, "train", difficulty, self.recipe.mask_ratios)
        rows = pack([streams for streams, _ in samples], self.recipe.row_length)
        parts = [self._collate(part) for part in by_length(rows, self.recipe.row_length)]
        return {"parts": parts, "weight": torch.tensor(float(sum(weight for _, weight in samples)))}

    def after_step(self, step: int, module: nn.Module, outputs: list[StepOutput], accelerator: Accelerator) -> None:
        """Moves each router's bias toward equal load: b += u · (target − share) / rms, arXiv 2408.15664."""
        counts = sum_over_processes(accelerator, [output.state[2].float() for output in outputs])
        error = 1 / counts.shape[1] - counts / counts.sum(dim=1, keepdim=True)
        scale = error.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-6)
        for router, row in zip(self.module.model.routers(), error / scale, strict=True):
            router.expert_bias += self.recipe.balance_rate * row

    def evaluate(self, module: nn.Module, samples: Path, step: int) -> dict[str, float]:
        """Per task, everything masked at once: the loss per token, the share of tokens and of whole answers right."""
        metrics: dict[str, float] = {}
        device = next(module.parameters()).device
        for task in self.recipe.tasks:
            sources = [
                sample_random(self.recipe.seed, 0, i, f"test/{task}") for i in range(self.recipe.evaluation_samples)
            ]
            laid_out = self._lay_out([task] * len(sources), sources, "test", 1.0, (1.0, 1.0))
            part = self._collate([[streams] for streams, _ in laid_out])
            part = {name: value.to(device) for name, value in part.items()}
            hits, entropies = module({"parts": [part]}).state[:2]
            wrong = torch.zeros(len(part["tokens"]), device=device).index_add_(0, part["rows"], 1 - hits)
            metrics |= {
                f"{task}.loss": float(entropies.mean()),
                f"{task}.tokens": float(hits.mean()),
                f"{task}.whole": float((wrong == 0).float().mean()),
            }
        if (self.checkpoint / "decoder").is_dir():
            self._draw(samples / f"{step:06d}.png", str(device))
        return metrics

    def _draw(self, path: Path, device: str) -> None:
        """Pictures for held-out prompts, drawn as a user would, above what they should show."""
        captions = sample_prompts(self.level, self.recipe.evaluation_pictures, self.recipe.seed)
        pipe = Pipeline.from_pretrained(self.checkpoint, device=device, dtype=torch.float32)
        with torch.autocast(device.split(":")[0], enabled=False):
            turbo = (self.checkpoint / "decoder-turbo").is_dir()
            generator = torch.Generator().manual_seed(self.recipe.seed)
            decoder = "turbo" if turbo else "normal"
            drawn = pipe.generate([c.prompt for c in captions], decoder=decoder, decoder_steps=8, generator=generator)
        wanted = to_tensor([render(caption.scene, self.level) for caption in captions])
        save_rows(str(path), [wanted, to_tensor(drawn.images)])
        path.with_suffix(".txt").write_text("\n".join(caption.prompt for caption in captions), encoding="utf-8")

    def export(self, module: nn.Module) -> None:
        assert isinstance(module, BackboneModule)
        save_backbone(module.model, self.checkpoint)

    def is_matrix(self, name: str, parameter: Tensor) -> bool:
        return super().is_matrix(name, parameter) and "router" not in name

    def _lay_out(
        self, tasks: list[str], sources: list[Random], split: Split, difficulty: float, ratios: tuple[float, float]
    ) -> list[tuple[Streams, float]]:
        """One example per task and source, all pictures tokenised together; single documents in the test split."""
        noise = Noise(self.vocab.mask_id, self.vocab.image_range, ratios)
        examples = [sample_example(t, self.level, s, split, difficulty) for t, s in zip(tasks, sources, strict=True)]
        grids = self._grids([scene for example in examples for scene in scenes_of(example)])
        laid_out = []
        for example, source in zip(examples, sources, strict=True):
            group = self.documents.write(example, source, grids)
            documents, shared = (group.documents, group.shared) if split == "train" else (group.documents[:1], 0)
            draws = np.random.default_rng(source.getrandbits(63))
            laid_out.append(lay_out(documents, shared, self.recipe.block_length, noise, draws, self.locate))
        return laid_out

    def _collate(self, rows: list[list[Streams]]) -> dict[str, Tensor]:
        return collate(rows, self.recipe.block_length, self.vocab.eos_id)

    @torch.no_grad()
    def _grids(self, scenes: list[Scene]) -> dict[Scene, Tensor]:
        size = (self.recipe.picture_size, self.recipe.picture_size)
        pixels = to_tensor([render(scene, self.level).resize(size, Image.Resampling.BICUBIC) for scene in scenes])
        with torch.autocast(pixels.device.type, enabled=False):
            return dict(zip(scenes, self.tokenizer.encode(pixels), strict=True))


def recompute_activations(model: MaskedDiffusionTransformer) -> None:
    """Keeps the inputs of layers only and computes the rest again in the backward pass."""
    # The older name is deprecated since transformers 5.23, which brought the newer one.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()


def pack(groups: list[Streams], row_length: int) -> list[list[Streams]]:
    """Groups into rows, the longest first, each into the first row with room; longer ones have a row of their own."""
    rows: list[list[Streams]] = []
    for group in sorted(groups, key=lambda group: -group.length):
        fitting = (row for row in rows if sum(other.length for other in row) + group.length <= row_length)
        row = next(fitting, None)
        if row is None:
            rows.append([group])
        else:
            row.append(group)
    return rows


def by_length(rows: list[list[Streams]], row_length: int) -> list[list[list[Streams]]]:
    """Rows that are longer than `row_length` apart from the others, so that padding stays small."""
    longer = [row for row in rows if sum(group.length for group in row) > row_length]
    others = [row for row in rows if sum(group.length for group in row) <= row_length]
    return [part for part in (others, longer) if part]
