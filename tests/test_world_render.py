"""The drawings: every kind in every colour is there, where it belongs, and looks unlike the others."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from unimodal.world.drawings import BACKGROUNDS, DRAWINGS, PALETTE
from unimodal.world.render import draw_background, draw_sprite, render
from unimodal.world.sampling import sample_scene
from unimodal.world.scene import Level, Scene, Thing, load_level


@pytest.fixture(scope="module")
def level() -> Level:
    return load_level("full")


def _thing(kind: str = "car", color: str = "red", size: str = "medium", x: int = 128, y: int = 128) -> Thing:
    return Thing(kind=kind, color=color, size=size, x=x, y=y)


@pytest.mark.parametrize("name", ["standard", "full"])
def test_every_name_of_a_level_has_a_drawing(name: str) -> None:
    level = load_level(name)
    assert set(level.kinds) <= set(DRAWINGS)
    assert set(level.colors) <= set(PALETTE)
    assert set(level.backgrounds) <= set(BACKGROUNDS)


def test_picture_is_rgb_of_the_level_and_repeats(level: Level) -> None:
    scene = sample_scene(level, random.Random(0))
    first, second = render(scene, level), render(scene, level)
    assert (first.mode, first.size) == ("RGB", (level.picture_size,) * 2)
    assert first.tobytes() == second.tobytes()


def test_rendering_leaves_the_cached_background_alone(level: Level) -> None:
    before = draw_background("meadow", level.picture_size).tobytes()
    render(Scene(background="meadow", things=(_thing(),)), level)
    assert draw_background("meadow", level.picture_size).tobytes() == before


@pytest.mark.parametrize("kind", sorted(DRAWINGS))
def test_a_thing_changes_its_box_only_and_fills_it(kind: str, level: Level) -> None:
    empty = np.asarray(draw_background("paper", level.picture_size), int)
    for size, side in level.sizes.items():
        scene = Scene(background="paper", things=(_thing(kind, size=size, x=101, y=140),))
        changed = np.abs(np.asarray(render(scene, level), int) - empty).max(-1) > 24
        rows, columns = (np.flatnonzero(changed.sum(axis)) for axis in (1, 0))
        assert 140 - side // 2 <= rows[0] and rows[-1] < 140 + side // 2
        assert 101 - side // 2 <= columns[0] and columns[-1] < 101 + side // 2
        assert rows[-1] - rows[0] > 0.8 * side or columns[-1] - columns[0] > 0.8 * side
        assert changed.sum() > 0.3 * side**2


@pytest.mark.parametrize("kind", sorted(DRAWINGS))
def test_the_things_own_color_dominates(kind: str) -> None:
    """Most pixels that have a hue have the thing's own; shades and tints count."""
    for color, own in PALETTE.items():
        pixels = np.asarray(draw_sprite(kind, color, 88), float)
        pixels = pixels[pixels[..., 3] > 250][:, :3]
        hues = pixels - pixels.mean(-1, keepdims=True)
        saturated = hues[np.abs(hues).max(-1) > 20]
        direction = np.array(own) - np.mean(own)
        along = saturated @ direction / np.linalg.norm(saturated, axis=-1) / np.linalg.norm(direction)
        assert (along > 0.9).mean() > 0.55, color


def test_kinds_and_colors_are_far_apart(level: Level) -> None:
    def silhouette(kind: str) -> np.ndarray:
        return np.asarray(draw_sprite(kind, "red", 62).convert("RGBA"), float).reshape(-1, 4) / 255

    for index, first in enumerate(level.kinds):
        for second in level.kinds[:index]:
            assert np.abs(silhouette(first) - silhouette(second)).mean() > 0.06, (first, second)
    values = np.array([PALETTE[color] for color in level.colors], float)
    distances = np.linalg.norm(values[:, None] - values, axis=-1)
    assert distances[~np.eye(len(values), dtype=bool)].min() > 60


def test_later_things_cover_earlier_ones(level: Level) -> None:
    things = (_thing("ball", "red"), _thing("heart", "blue"))
    middles = [
        render(Scene(background="paper", things=order), level).getpixel((128, 118)) for order in (things, things[::-1])
    ]
    assert middles[0][2] > middles[0][0]  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
    assert middles[0] != middles[1]


def test_a_sign_shows_its_word() -> None:
    words = [np.asarray(draw_sprite("sign", "blue", 62, word), int) for word in ("stop", "zoo", None)]
    assert np.abs(words[0] - words[1]).mean() > 2
    assert np.abs(words[0] - words[2]).mean() > 2


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        (Scene(background="moon"), "background is 'moon'; known: paper"),
        (Scene(background="paper", things=(_thing(kind="hat"),)), "kind is 'hat'"),
        (Scene(background="paper", things=(_thing(color="mauve"),)), "color is 'mauve'"),
        (Scene(background="paper", things=(_thing(size="huge"),)), "size is 'huge'; known: small"),
    ],
)
def test_unknown_names_are_errors(scene: Scene, message: str, level: Level) -> None:
    with pytest.raises(ValueError, match=message):
        render(scene, level)


def test_rendering_is_fast_once_drawn() -> None:
    level, rng = load_level("standard"), random.Random(0)
    scenes = [sample_scene(level, rng) for _ in range(50)]
    for scene in scenes:
        render(scene, level)
    start = time.process_time()
    for scene in scenes:
        render(scene, level)
    assert (time.process_time() - start) / len(scenes) < 2e-3
