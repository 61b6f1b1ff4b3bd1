"""How far the reader can be trusted: it reads pictures whose scene is known, clean and degraded.

Run `python -m unimodal.world.reader_accuracy standard` to print the table of a level.
"""

from __future__ import annotations

import argparse
import io
import json
from collections import Counter
from collections.abc import Callable
from random import Random

from PIL import Image, ImageFilter

from unimodal.world.reader import SceneReader
from unimodal.world.render import render
from unimodal.world.sampling import sample_scene
from unimodal.world.scene import Level, Scene, Thing, load_level

_BLUR = 2.0
_JPEG_QUALITY = 50


def measure_reader(level: Level, samples: int, seed: int) -> dict[str, dict[str, float]]:
    """Shares in [0, 1] of what is read rightly, for "clean", "blurred" (σ = 2 pixels) and "jpeg" (quality 50) pictures.

    "scene" is the whole scene: background and every thing's kind, colour, size, place and text, nothing more. It,
    "background" and "count" are shares of the pictures; "kind", "color", "size", "place" and "text" are shares of the
    things drawn, each compared with the thing that was read nearest to it.

    Raises `ValueError` unless `samples` is positive.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}; allowed: at least 1")
    random, reader = Random(seed), SceneReader(level)
    scenes = [sample_scene(level, random, "test" if i % 2 else "train") for i in range(samples)]
    degradations: dict[str, Callable[[Image.Image], Image.Image]] = {
        "clean": lambda picture: picture,
        "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(_BLUR)),
        "jpeg": _recompressed,
    }
    result = {}
    for name, degrade in degradations.items():
        right, total = Counter(), Counter()
        for scene in scenes:
            _compare(scene, reader.read(degrade(render(scene, level))), level, right, total)
        result[name] = {what: right[what] / total[what] for what in total}
    return result


def _compare(scene: Scene, read: Scene, level: Level, right: Counter[str], total: Counter[str]) -> None:
    def describe(thing: Thing) -> tuple[str | None, ...]:
        return thing.kind, thing.color, thing.size, level.place(thing), thing.text

    same_things = Counter(map(describe, scene.things)) == Counter(map(describe, read.things))
    checks = {
        "scene": same_things and scene.background == read.background,
        "background": scene.background == read.background,
        "count": len(scene.things) == len(read.things),
    }
    for what, is_right in checks.items():
        right[what] += is_right
        total[what] += 1
    left = list(read.things)
    for thing in scene.things:
        nearest = min(left, key=lambda t: (t.x - thing.x) ** 2 + (t.y - thing.y) ** 2, default=None)
        if nearest is not None:
            left.remove(nearest)
        parts = zip(("kind", "color", "size", "place", "text"), describe(thing), strict=True)
        for index, (what, value) in enumerate(parts):
            right[what] += nearest is not None and describe(nearest)[index] == value
            total[what] += 1


def _recompressed(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return Image.open(buffer).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("level", help="a level of the world, such as standard or full")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(measure_reader(load_level(options.level), options.samples, options.seed), indent=2))


if __name__ == "__main__":
    main()
