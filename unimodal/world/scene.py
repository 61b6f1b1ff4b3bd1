"""The scene graph: what a picture of the picture-book world shows, as data.

A `Scene` is a background and a tuple of `Thing`s. Lengths are pixels of the level's picture. A `Level` is the world's
size: kinds, colours, sizes, placement; it is read from `configs/unimodal_configs/world/<name>.yaml`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

import unimodal_configs

PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Thing(_Data):
    """One drawn thing; `x`, `y` is its centre. `text` is the word on a sign, None for anything else."""

    kind: str
    color: str
    size: str
    x: int
    y: int
    text: str | None = None


class Scene(_Data):
    background: str
    things: tuple[Thing, ...] = ()


class GridPlacement(_Data):
    """Cell centres at `first + pitch * i` (3 × 3), each moved by up to `jitter` pixels per axis."""

    style: Literal["grid"]
    first: int
    pitch: int
    jitter: int


class FreePlacement(_Data):
    """Anywhere at least `margin` from the border; no two boxes overlap by more than that share of the smaller one."""

    style: Literal["free"]
    margin: int
    max_overlap: float


class HeldOut(_Data):
    every: int = Field(gt=1)


class Level(_Data):
    picture_size: int
    kinds: tuple[str, ...]
    colors: tuple[str, ...]
    sizes: dict[str, int]
    backgrounds: tuple[str, ...]
    max_things: int
    words: tuple[str, ...]
    placement: Annotated[GridPlacement | FreePlacement, Field(discriminator="style")]
    held_out: HeldOut

    def place(self, thing: Thing) -> str:
        """The name of the ninth of the picture that holds the thing's centre, one of `PLACES`."""
        column, row = (min(3 * v // self.picture_size, 2) for v in (thing.x, thing.y))
        return PLACES[3 * row + column]


def load_level(name: str) -> Level:
    """Reads a level by name; `ValueError` lists the levels that exist."""
    data: dict[str, Any] = unimodal_configs.read("world", name)
    return Level.model_validate(data)
