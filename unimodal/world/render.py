"""Draws a scene: cached sprites pasted on a cached background, well under a millisecond a picture."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar

from PIL import Image

from unimodal.world.drawings import BACKGROUNDS, DRAWINGS, PALETTE, Canvas
from unimodal.world.scene import Level, Scene

Value = TypeVar("Value")


def render(scene: Scene, level: Level) -> Image.Image:
    """The picture of a scene: RGB, `level.picture_size` square. Later things cover earlier ones.

    Raises `ValueError` for a kind, colour, size or background that has no drawing.
    """
    picture = draw_background(scene.background, level.picture_size).copy()
    for thing in scene.things:
        pixels = _look_up(level.sizes, thing.size, "size")
        pixels_rgb, mask = _sprite_parts(thing.kind, thing.color, pixels, thing.text)
        picture.paste(pixels_rgb, (thing.x - pixels // 2, thing.y - pixels // 2), mask)
    return picture


@lru_cache(maxsize=64)
def draw_background(name: str, pixels: int) -> Image.Image:
    """A background, RGB, `pixels` square. The cached picture itself: copy it before drawing on it."""
    canvas = Canvas(pixels)
    _look_up(BACKGROUNDS, name, "background")(canvas)
    return canvas.reduced(outline=False).convert("RGB")


@lru_cache(maxsize=4096)
def draw_sprite(kind: str, color: str, pixels: int, text: str | None = None) -> Image.Image:
    """One thing, RGBA, `pixels` square; its centre is the pixel (pixels // 2, pixels // 2)."""
    canvas = Canvas(pixels, _look_up(PALETTE, color, "color"), text)
    _look_up(DRAWINGS, kind, "kind")(canvas)
    return canvas.reduced(outline=True)


@lru_cache(maxsize=4096)
def _sprite_parts(kind: str, color: str, pixels: int, text: str | None) -> tuple[Image.Image, Image.Image]:
    sprite = draw_sprite(kind, color, pixels, text)
    return sprite.convert("RGB"), sprite.getchannel("A")


def _look_up(table: Mapping[str, Value], name: str, what: str) -> Value:
    if name not in table:
        raise ValueError(f"{what} is {name!r}; known: {', '.join(table)}")
    return table[name]
