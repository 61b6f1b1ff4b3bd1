"""Names of the stages, and the one call that runs any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from unimodal.training.loop import Stage, train
from unimodal.training.recipe import Recipe, read_recipe

STAGES = ("text-tokenizer", "tokenizer", "autoencoder", "decoder", "distill", "backbone")


def run_stage(
    name: str,
    checkpoint: str | Path,
    recipe: str | Path | None = None,
    output: str | Path | None = None,
    overrides: Sequence[str] = (),
    cpu: bool = False,
    stop_after: int | None = None,
) -> dict[str, float]:
    """Trains one part into the checkpoint folder, continuing where an earlier run of the same recipe stopped.

    Args:
        name: one of `STAGES`, which is also the order in which they build on each other.
        checkpoint: the folder, in the published layout, that parts are read from and the trained part is written to.
        recipe: a packaged recipe's name or a YAML file; the tiny model's recipe of this stage unless given.
        output: folder of log, samples and state; `<checkpoint>/training/<name>` unless given.
        overrides: dotted assignments, `optimizer.learning_rate=1e-3`.

    Raises:
        ValueError: unknown stage, a wrong recipe, or a part that the stage builds on is missing.
    """
    if name not in STAGES:
        raise ValueError(f"stage: {name!r} is not one of {', '.join(STAGES)}")
    checkpoint = Path(checkpoint)
    recipe = recipe if recipe is not None else "tiny_" + name.replace("-", "_")
    output = Path(output) if output is not None else checkpoint / "training" / name
    if name == "text-tokenizer":
        from unimodal.training.stages.text_tokenizer import TextTokenizerRecipe, train_text_tokenizer

        text_settings = read_recipe(TextTokenizerRecipe, recipe, overrides, stage=name)
        checkpoint.mkdir(parents=True, exist_ok=True)
        train_text_tokenizer(text_settings, checkpoint)
        return {}
    recipe_class, stage_class = _stage_classes(name)
    settings = read_recipe(recipe_class, recipe, overrides, stage=name)
    stage = stage_class(settings, checkpoint)
    checkpoint.mkdir(parents=True, exist_ok=True)
    return train(stage, output, cpu=cpu, stop_after=stop_after)


def _stage_classes(name: str) -> tuple[type[Recipe], Callable[..., Stage]]:
    if name == "tokenizer":
        from unimodal.training.stages.tokenizer import TokenizerRecipe, TokenizerStage

        return TokenizerRecipe, TokenizerStage
    if name == "autoencoder":
        from unimodal.training.stages.autoencoder import AutoencoderRecipe, AutoencoderStage

        return AutoencoderRecipe, AutoencoderStage
    if name == "backbone":
        from unimodal.training.stages.backbone import BackboneRecipe, BackboneStage

        return BackboneRecipe, BackboneStage
    from unimodal.training.stages.decoder import DecoderRecipe, DecoderStage, DistillRecipe, DistillStage

    return (DecoderRecipe, DecoderStage) if name == "decoder" else (DistillRecipe, DistillStage)
