"""Matched filtering with the world's own drawings: how much of a picture a drawing would explain, at many positions.

Pasting a sprite of opacity a and colours s over a canvas c predicts c + p with p = a (s − c). Against a picture c + d,
a share o of that (a soft or pale thing) lowers the squared error by the *gain*

    Σ d² − (d − o p)²  =  2 o Σ d·p − o² Σ p²,      d·p = a s·d − a c·d,      p² = a² s² − 2 a² s·c + a² c²,

summed over the pixels of the sprite that lie inside the picture. Each term is a product of a field of the sprite and a
field of the picture, so both sums are one matrix product for many sprites at many positions. The share is the best one
in a narrow range: with none, a small drawing would beat the right one on a blurred picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from unimodal.world.render import draw_sprite

Array = np.ndarray

_SHARES = (0.8, 1.0)

_SHARES = (0.8, 1.0)

_SHARES = (0.8, 1.0)

_SHARES = (0.8, 1.0)


class Label(NamedTuple):
    """What a template shows; `pixels` is the side of its box."""

    kind: str
    color: str
    size: str
    pixels: int
    text: str | None


class Templates:
    """Drawings with one box side, reduced by `reduction` and slightly blurred, with a rim around them.

    `window` is the side in reduced pixels. `opacity` is (labels, window, window), `colors` (…, 3) is multiplied by it.
    """

    def __init__(self, labels: Sequence[Label], reduction: int) -> None:
        self.labels = tuple(labels)
        self.reduction = reduction
        pixels = labels[0].pixels
        step = 2 * reduction
        side = -(-(pixels + 8) // step) * step  # the rim holds what the blur spreads
        self.window = side // reduction
        sprites = [self._reduced(draw_sprite(la.kind, la.color, la.pixels, la.text), side) for la in labels]
        stacked = np.stack(sprites)
        self.opacity, self.colors = stacked[..., 3], stacked[..., :3]

    def _reduced(self, sprite: Image.Image, side: int) -> Array:
        corner = side // 2 - sprite.width // 2
        framed = np.zeros((side, side, 4), np.float32)
        values = np.asarray(sprite, np.float32) / 255
        values = np.concatenate([values[..., :3] * values[..., 3:], values[..., 3:]], axis=-1)
        framed[corner : corner + sprite.width, corner : corner + sprite.width] = values
        return soften(framed, self.reduction)

    @cached_property
    def region(self) -> Array:
        """(labels, window, window): the pixels of the drawing and two around them, 0 or 1."""
        inside = np.pad(self.opacity, ((0, 0), (1, 1), (1, 1))) > 0.02
        return np.any(sliding_window_view(inside, (3, 3), axis=(1, 2)), axis=(-1, -2)).astype(np.float32)

    @cached_property
    def fields(self) -> tuple[Array, Array]:
        """The sprite's side of the sums of d·p and p²: (labels, 4 · window²) and (labels, 5 · window²)."""
        opacity, colors = self.opacity[..., None], self.colors
        product = [colors, -opacity]
        square = [(colors**2).sum(-1, keepdims=True), -2 * opacity * colors, opacity**2]
        first, second = (np.concatenate(parts, axis=-1).transpose(0, 3, 1, 2) for parts in (product, square))
        return first.reshape(len(self.labels), -1), second.reshape(len(self.labels), -1)

    def gains(self, fields: Array, positions: Array, chosen: Array | slice = slice(None)) -> Array:
        """(positions, chosen labels): the gain of each, with its centre at each of `positions` (n, 2), rows first.

        `fields` are `picture_fields` at this reduction; positions are in reduced pixels.
        """
        half = self.window // 2
        padded = np.pad(fields, ((0, 0), (half, half), (half, half)))
        windows = sliding_window_view(padded, (self.window, self.window), axis=(1, 2))
        patches = windows[:, positions[:, 0], positions[:, 1]]  # (9, n, window, window)
        patches = patches.transpose(1, 0, 2, 3).reshape(len(positions), 9, -1)
        product, square = (f[chosen] for f in self.fields)
        product = patches[:, :4].reshape(len(positions), -1) @ product.T
        square = patches[:, 4:].reshape(len(positions), -1) @ square.T
        share = (product / np.maximum(square, 1e-6)).clip(*_SHARES)
        return 2 * share * product - share**2 * square

    def paste(self, canvas: Array, index: int, position: Sequence[int]) -> tuple[Array, Array]:
        """The canvas (height, width, 3) with template `index` pasted, and the region (height, width) it covers."""
        half = self.window // 2
        height, width = canvas.shape[:2]
        padded = np.pad(canvas, ((half, half), (half, half), (0, 0)))
        covered = np.zeros(padded.shape[:2], np.float32)
        area = slice(position[0], position[0] + self.window), slice(position[1], position[1] + self.window)
        padded[area] = padded[area] * (1 - self.opacity[index][..., None]) + self.colors[index]
        covered[area] = self.region[index]
        inner = slice(half, half + height), slice(half, half + width)
        return padded[inner], covered[inner]


def soften(picture: Array, reduction: int = 2) -> Array:
    """Halves the picture (height, width, channels) until it is `reduction` times smaller, a power of two.

    Each step averages 2 × 2 pixels and blurs with (1, 2, 1) / 4 along both axes.
    """
    for _ in range(reduction.bit_length() - 1):
        height, width, channels = picture.shape
        padded = np.pad(picture, ((2, 2), (2, 2), (0, 0)), mode="edge")
        small = padded.reshape(height // 2 + 2, 2, width // 2 + 2, 2, channels).mean((1, 3))
        rows = (small[:-2] + 2 * small[1:-1] + small[2:]) / 4
        picture = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
    return picture


def picture_fields(picture: Array, canvas: Array) -> Array:
    """(9, height, width): the picture's side of the sums, from the picture and what is explained so far."""
    difference = picture - canvas
    product = (canvas * difference).sum(-1, keepdims=True)
    square = (canvas**2).sum(-1, keepdims=True)
    parts = [difference, product, np.ones_like(square), canvas, square]
    return np.concatenate(parts, axis=-1).transpose(2, 0, 1)
