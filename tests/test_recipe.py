"""Recipes are strict, take overrides, and may come from files, as may the sizes of models."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import unimodal_configs
from unimodal.training import loop
from unimodal.training.recipe import OptimizerRecipe, Recipe, Strict, read_recipe
from unimodal.training.run import STAGES
from unimodal.training.stages.autoencoder import AutoencoderRecipe
from unimodal.training.stages.backbone import BackboneRecipe
from unimodal.training.stages.decoder import DecoderRecipe, DistillRecipe
from unimodal.training.stages.text_tokenizer import TextTokenizerRecipe
from unimodal.training.stages.tokenizer import TokenizerRecipe

CLASSES: dict[str, type[Strict]] = dict(
    zip(
        STAGES,
        (TextTokenizerRecipe, TokenizerRecipe, AutoencoderRecipe, DecoderRecipe, DistillRecipe, BackboneRecipe),
        strict=True,
    )
)
PLAIN = "stage: plain\nmodel: tiny\nlevel: standard\nsteps: 5\nbatch_size: 2\noptimizer: {learning_rate: 1.0e-3}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "plain.yaml"
    path.write_text(PLAIN, encoding="utf-8")
    return path


@pytest.mark.parametrize("stage", STAGES)
def test_packaged_recipes_are_valid(stage: str) -> None:
    recipe = read_recipe(CLASSES[stage], "tiny_" + stage.replace("-", "_"), stage=stage)
    assert recipe.model_dump()["stage"] == stage


def test_a_file_with_defaults_and_overrides(path: Path) -> None:
    recipe = read_recipe(Recipe, path)
    assert (recipe.steps, recipe.seed, recipe.precision, recipe.optimizer.betas) == (5, 0, "bf16", (0.9, 0.95))
    overrides = [
        "steps=7",
        "optimizer.learning_rate=1e-2",
        "optimizer.betas=[0.8, 0.9]",
        "precision=no",
        "compile=true",
    ]
    changed = read_recipe(Recipe, str(path), overrides)
    assert (changed.steps, changed.precision, changed.compile) == (7, "no", True)
    assert changed.optimizer == OptimizerRecipe(learning_rate=0.01, betas=(0.8, 0.9))
    assert read_recipe(Recipe, path) == recipe


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["step=7"], "step: Extra inputs are not permitted"),
        (["optimizer.rate=1"], "optimizer.rate: Extra inputs"),
        (["steps=many"], "steps: .*given: 'many'"),
        (["steps=0"], "steps: .*greater than 0"),
        (["optimizer.decay_fraction=2"], "optimizer.decay_fraction: "),
        (["precision=half"], "precision: Input should be 'no' or 'bf16'"),
        (["optimizer=null"], "optimizer: "),
        (["steps"], "override: expected key=value, got 'steps'"),
        (["=3"], "override: expected key=value, got '=3'"),
        (["steps.more=3"], "override: steps is 5 and has no parts"),
        (["steps=[1"], r"override: '\[1', the value of steps, is not YAML"),
    ],
)
def test_what_is_wrong_is_named(path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_recipe(Recipe, path, overrides)
    assert "\n" not in str(caught.value)


def test_missing_keys_files_and_names_are_named(path: Path, tmp_path: Path) -> None:
    path.write_text(PLAIN.replace("steps: 5\n", ""), encoding="utf-8")
    with pytest.raises(ValueError, match="steps: Field required"):
        read_recipe(Recipe, path)
    with pytest.raises(ValueError, match=r"there is no file .*nothing\.yaml"):
        read_recipe(Recipe, tmp_path / "nothing.yaml")
    with pytest.raises(ValueError, match=r"no training configuration 'huge'; there are .*tiny_backbone"):
        read_recipe(Recipe, "huge")
    with pytest.raises(ValueError, match="is for stage 'plain', not 'decoder'"):
        read_recipe(Recipe, path, stage="decoder")


@pytest.mark.parametrize(
    ("content", "message"), [("[1", "is not YAML"), ("- 1", "must hold keys"), ("", "must hold keys")]
)
def test_files_that_are_no_recipes(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "odd.yml"
    path.write_text(content, encoding="utf-8")
    for read in (unimodal_configs.read_file, unimodal_configs.read_model):
        with pytest.raises(ValueError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_models_have_names_or_files(tmp_path: Path) -> None:
    tiny = unimodal_configs.read_model("tiny")
    path = tmp_path / "copy.yaml"
    path.write_text(yaml.safe_dump(tiny), encoding="utf-8")
    assert unimodal_configs.read_model(path) == unimodal_configs.read_model(str(path)) == tiny
    with pytest.raises(ValueError, match="no models configuration 'copy'"):
        unimodal_configs.read_model("copy")


def test_the_length_of_a_run_may_change_but_not_what_it_is(path: Path) -> None:
    def fingerprint(*overrides: str) -> str:
        return loop._fingerprint(read_recipe(Recipe, path, overrides))

    assert fingerprint() == fingerprint("steps=9", "save_every=1", "optimizer.learning_rate=1")
    assert len({fingerprint(), fingerprint("seed=1"), fingerprint("batch_size=3"), fingerprint("level=full")}) == 4
