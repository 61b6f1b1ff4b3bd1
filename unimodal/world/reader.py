"""Reads a picture back into its scene graph, from pixels alone and without learning.

The background is the one that differs least. Things are found one after the other: the drawing that explains most of
what is still unexplained (`templates`) is accepted if it explains enough of the pixels around it, and becomes part of
the canvas. A coarse pass looks at many positions, a fine pass settles kind, colour, size, word and position.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from unimodal.world.render import draw_background
from unimodal.world.scene import GridPlacement, Level, Scene, Thing
from unimodal.world.templates import Array, Label, Templates, picture_fields, soften

_COARSE, _FINE = 4, 2
_FINALISTS = 16
_MINIMUM_SCORE = 0.4  # share of the differing pixels' energy that a thing has to explain
_MINIMUM_CONTRAST = 0.015  # mean squared difference (three channels summed) where a thing may be
_USUAL_CONTRAST = 0.2  # the same, of a thing on its background
_LARGEST_OVERLAP = 0.3  # of the smaller box
_LARGEST_TINT = 0.12  # a picture's overall shift of colour that is corrected
_SLACK = 6  # pixels a thing may stand further out than its placement allows


class _Found(NamedTuple):
    label: Label
    x: float
    y: float
    template: tuple[Templates, int]  # the fine bank and the index in it
    position: tuple[int, int]  # row and column in the fine picture


class SceneReader:
    """Reads pictures of one level. Raises `ValueError` if its pictures cannot be halved twice."""

    def __init__(self, level: Level) -> None:
        if level.picture_size % _COARSE:
            raise ValueError(f"level.picture_size is {level.picture_size}; allowed: multiples of {_COARSE}")
        self.level = level
        words = level.words[:1] or (None,)
        self._coarse = [Templates(labels, _COARSE) for labels in _labels(level, words)]
        self._fine = [Templates(labels, _FINE) for labels in _labels(level, level.words or (None,))]

    def read(self, image: Image.Image) -> Scene:
        """The scene that the picture shows; things from top to bottom, then left to right.

        A picture of another size is scaled to the level's first.
        """
        return self.read_with_scores(image)[0]

    def read_with_scores(self, image: Image.Image) -> tuple[Scene, tuple[float, ...]]:
        """The scene and, per thing, how well it matches.

        The match, in [0, 1], is the share that the thing explains of the difference between picture and background
        around it; what matches less than `_MINIMUM_SCORE` is left out.
        """
        size = (self.level.picture_size, self.level.picture_size)
        image = image.convert("RGB") if image.size == size else image.convert("RGB").resize(size, Image.Resampling.BOX)
        pixels = np.asarray(image, np.float32) / 255
        background, coarse, fine = self._match_background(pixels)
        found = self._find_things(background, coarse, fine)
        scored = sorted(
            ((self._thing(f), self._score(f, found, background, fine)) for f in found),
            key=lambda pair: (pair[0].y, pair[0].x),
        )
        return Scene(background=background, things=tuple(t for t, _ in scored)), tuple(s for _, s in scored)

    def _match_background(self, pixels: Array) -> tuple[str, Array, Array]:
        """The background's name and the picture at both reductions, its overall shift of colour removed."""
        coarse = soften(pixels, _COARSE)
        distances = {}
        for name in self.level.backgrounds:
            difference = np.abs(coarse - _background(name, self.level.picture_size, _COARSE)).sum(-1)
            distances[name] = np.minimum(difference, 0.5).mean()
        best = min(distances, key=lambda name: distances[name])
        tint = np.median(coarse - _background(best, self.level.picture_size, _COARSE), axis=(0, 1))
        tint = tint.clip(-_LARGEST_TINT, _LARGEST_TINT)
        return best, coarse - tint, soften(pixels, _FINE) - tint

    def _find_things(self, background: str, coarse: Array, fine: Array) -> list[_Found]:
        canvas_coarse = _background(background, self.level.picture_size, _COARSE)
        canvas_fine = _background(background, self.level.picture_size, _FINE)
        allowed = [self._allowed_centers(bank) for bank in self._coarse]
        found: list[_Found] = []
        for _ in range(2 * self.level.max_things):
            candidates = self._coarse_candidates(picture_fields(coarse, canvas_coarse), coarse - canvas_coarse, allowed)
            best = self._settle(candidates, picture_fields(fine, canvas_fine))
            if best is None:
                break
            score, pasted = _explained(best, fine, canvas_fine)
            if score >= _MINIMUM_SCORE:
                found.append(best)
                canvas_fine = pasted
                canvas_coarse = soften(canvas_fine, _COARSE // _FINE)
            self._close(allowed, best)
        return found

    def _allowed_centers(self, bank: Templates) -> Array:
        """(height, width) of the coarse picture: where a centre may be."""
        count = self.level.picture_size // _COARSE
        centers = np.arange(count) * _COARSE
        placement = self.level.placement
        if isinstance(placement, GridPlacement):
            cells = placement.first + placement.pitch * np.arange(3)
            axis = (np.abs(centers[:, None] - cells) <= placement.jitter + _SLACK).any(1)
        else:
            edge = bank.labels[0].pixels / 2 - _SLACK
            axis = (centers >= edge) & (centers <= self.level.picture_size - edge)
        return np.logical_and.outer(axis, axis)

    def _close(self, allowed: list[Array], found: _Found) -> None:
        """Forbids centres whose box would overlap the thing's box."""
        for bank, mask in zip(self._coarse, allowed, strict=True):
            side, other = bank.labels[0].pixels, found.label.pixels
            reach, smaller = (side + other) / 2, min(side, other)
            rows, columns = (
                np.clip(reach - np.abs(np.arange(n) * _COARSE - v), 0, smaller)
                for n, v in zip(mask.shape, (found.y, found.x), strict=True)
            )
            mask &= rows[:, None] * columns <= _LARGEST_OVERLAP * smaller**2

    def _coarse_candidates(
        self, fields: Array, difference: Array, allowed: list[Array]
    ) -> list[tuple[float, int, int, Array]]:
        """The best of (gain, bank, index of the label, coarse position), each label at its best position."""
        contrast = (difference**2).sum(-1)
        candidates = []
        for number, (bank, mask) in enumerate(zip(self._coarse, allowed, strict=True)):
            positions = np.argwhere(mask & (_local_mean(contrast, bank.window // 4) > _MINIMUM_CONTRAST))
            if not len(positions):
                continue
            gains = bank.gains(fields, positions)
            for index, row in enumerate(gains.argmax(0)):
                candidates.append((float(gains[row, index]), number, index, positions[row]))
        candidates.sort(key=lambda c: -c[0])
        return [c for c in candidates[:_FINALISTS] if c[0] > 0]

    def _settle(self, candidates: list[tuple[float, int, int, Array]], fields: Array) -> _Found | None:
        """The candidate, word and position that explains most at the fine reduction."""
        best_gain, best = 0.0, None
        steps = np.arange(-2, 3)
        offsets = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
        for _, number, index, position in candidates:
            bank, label = self._fine[number], self._coarse[number].labels[index]
            same = np.array([i for i, other in enumerate(bank.labels) if other[:4] == label[:4]])
            positions = position * (_COARSE // _FINE) + offsets
            positions = positions[((positions >= 0) & (positions < fields.shape[1])).all(1)]
            gains = bank.gains(fields, positions, same)
            row, column = (int(i) for i in np.unravel_index(gains.argmax(), gains.shape))
            if gains[row, column] <= best_gain:
                continue
            best_gain = float(gains[row, column])
            y, x = positions[row]
            fraction = _peak(positions, gains[:, column], row)
            best = _Found(
                bank.labels[same[column]],
                float((x + fraction[1]) * _FINE),
                float((y + fraction[0]) * _FINE),
                (bank, int(same[column])),
                (int(y), int(x)),
            )
        return best

    def _thing(self, found: _Found) -> Thing:
        label = found.label
        x, y = round(found.x), round(found.y)
        return Thing(kind=label.kind, color=label.color, size=label.size, x=x, y=y, text=label.text)

    def _score(self, thing: _Found, found: list[_Found], background: str, fine: Array) -> float:
        canvas = _background(background, self.level.picture_size, _FINE)
        for other in found:
            if other is not thing:
                canvas, _ = other.template[0].paste(canvas, other.template[1], other.position)
        return _explained(thing, fine, canvas)[0]


def _explained(thing: _Found, picture: Array, canvas: Array) -> tuple[float, Array]:
    """The share of the squared difference around the thing that pasting it removes, and the canvas with it.

    A difference above `_USUAL_CONTRAST` counts as that much: what is left must be small in itself, too, or else
    anything dark on white would pass for anything else that is dark.
    """
    bank, index = thing.template
    pasted, region = bank.paste(canvas, index, thing.position)
    before, after = ((region[..., None] * (picture - c) ** 2).sum() / region.sum() for c in (canvas, pasted))
    return float(np.clip(1 - after / np.clip(before, 1e-6, _USUAL_CONTRAST), 0, 1)), pasted


def _labels(level: Level, words: tuple[str | None, ...]) -> Iterator[list[Label]]:
    """One list per size."""
    for size, pixels in level.sizes.items():
        yield [
            Label(kind, color, size, pixels, text)
            for kind in level.kinds
            for color in level.colors
            for text in (words if kind == "sign" else (None,))
        ]


@lru_cache(maxsize=64)
def _background(name: str, pixels: int, reduction: int) -> Array:
    return soften(np.asarray(draw_background(name, pixels), np.float32) / 255, reduction)


def _local_mean(values: Array, reach: int) -> Array:
    """Mean over squares of 2 · reach + 1, zeros outside."""
    side = 2 * reach + 1
    sums = np.pad(values, ((reach + 1, reach), (reach + 1, reach))).cumsum(0).cumsum(1)
    return (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]) / side**2


def _peak(positions: Array, gains: Array, row: int) -> tuple[float, float]:
    """Where between the positions the gain is largest, by a parabola along each axis, in [-0.5, 0.5]."""
    table = {(int(y), int(x)): float(g) for (y, x), g in zip(positions, gains, strict=True)}
    y, x = (int(v) for v in positions[row])
    result = []
    for dy, dx in ((1, 0), (0, 1)):
        before, here, after = table.get((y - dy, x - dx)), table[y, x], table.get((y + dy, x + dx))
        if before is None or after is None or before + after - 2 * here >= 0:
            result.append(0.0)
        else:
            result.append(float(np.clip((before - after) / (2 * (before + after - 2 * here)), -0.5, 0.5)))
    return result[0], result[1]
