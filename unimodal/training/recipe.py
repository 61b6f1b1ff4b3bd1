"""Training recipes: YAML files that are checked before anything runs.

A recipe names its stage and holds every number of the run. Unknown, missing and mistyped keys are refused. Values may
be overridden with dotted assignments (`optimizer.learning_rate=1e-3`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

import unimodal_configs


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


AnyRecipe = TypeVar("AnyRecipe", bound=Strict)


class OptimizerRecipe(Strict):
    """AdamW for vectors, embeddings and heads; Muon (arXiv 2502.16982) for the matrices inside blocks where
    `matrix_learning_rate` is given. The rate rises over `warmup_steps`, stays, and falls linearly to zero over the last
    `decay_fraction` of the run (warm-up, stable, decay)."""

    learning_rate: float = Field(gt=0)
    matrix_learning_rate: float | None = Field(default=None, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=100, ge=0)
    decay_fraction: float = Field(default=0.2, ge=0, le=1)
    clip_norm: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)


class Recipe(Strict):
    """What every stage shares. `batch_size` is the number of samples of one optimizer step over all processes; they go
    through the model `micro_batch_size` at a time."""

    stage: str
    model: str
    level: str
    seed: int = 0
    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    micro_batch_size: int | None = Field(default=None, gt=0)
    precision: Literal["no", "bf16"] = "bf16"
    compile: bool = False
    optimizer: OptimizerRecipe
    log_every: int = Field(default=20, gt=0)
    evaluate_every: int = Field(default=500, gt=0)
    save_every: int = Field(default=200, gt=0)

    @field_validator("precision", mode="before")
    @classmethod
    def _read_no(cls, value: Any) -> Any:
        return "no" if value is False else value  # which YAML makes of a `no` without quotes


def read_recipe(
    recipe_class: type[AnyRecipe], name_or_path: str | Path, overrides: Sequence[str] = (), stage: str | None = None
) -> AnyRecipe:
    """Reads a packaged recipe by name, or a YAML file, as a `recipe_class`.

    Args:
        overrides: dotted assignments, `key=value` with a YAML value.
        stage: the stage that the recipe must be for.

    Raises:
        ValueError: unknown name, unreadable file, another stage, or a key that is unknown, missing or mistyped.
    """
    data = unimodal_configs.read_named("training", name_or_path)
    for dotted, value in _assignments(overrides):
        target = data
        for depth, key in enumerate(dotted[:-1]):
            target = target.setdefault(key, {})
            if not isinstance(target, dict):
                raise ValueError(f"override: {'.'.join(dotted[: depth + 1])} is {target!r} and has no parts")
        target[dotted[-1]] = value
    if stage is not None and data.get("stage") != stage:
        raise ValueError(f"recipe: {name_or_path} is for stage {data.get('stage')!r}, not {stage!r}")
    try:
        return recipe_class.model_validate(data)
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (given: {e['input']!r})" for e in error.errors())
        raise ValueError(f"recipe {name_or_path}: {lines}") from None


def _assignments(overrides: Iterable[str]) -> Iterable[tuple[list[str], Any]]:
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key:
            raise ValueError(f"override: expected key=value, got {override!r}")
        try:
            yield key.split("."), yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"override: {value!r}, the value of {key}, is not YAML") from None
