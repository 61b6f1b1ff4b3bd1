"""The reader: it recovers scenes from pictures, degraded ones too, and reports nothing where there is nothing."""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np
import pytest
from PIL import Image

from unimodal.world.reader import SceneReader
from unimodal.world.reader_accuracy import measure_reader
from unimodal.world.render import draw_background, draw_sprite, render
from unimodal.world.sampling import sample_scene
from unimodal.world.scene import Level, Scene, Thing, load_level
from unimodal.world.templates import Label, Templates, picture_fields, soften


@pytest.fixture(scope="module")
def level() -> Level:
    return load_level("standard")


@pytest.fixture(scope="module")
def reader(level: Level) -> SceneReader:
    return SceneReader(level)


@lru_cache(maxsize=1)
def _few_kinds_of_the_full_level() -> tuple[Level, SceneReader]:
    """The full level's sizes, words and free placement, with fewer drawings to prepare."""
    level = load_level("full").model_copy(
        update={"kinds": ("dog", "train", "sign"), "colors": ("red", "green", "purple")}
    )
    return level, SceneReader(level)


def _described(scene: Scene, level: Level) -> tuple[str, list[tuple[str | None, ...]]]:
    return scene.background, sorted((t.kind, t.color, t.size, level.place(t), t.text or "") for t in scene.things)


def test_clean_blurred_and_recompressed_scenes_are_read(level: Level) -> None:
    shares = measure_reader(level, samples=14, seed=3)
    assert set(shares) == {"clean", "blurred", "jpeg"}
    for name in shares:
        assert min(shares[name].values()) >= 0.99, (name, shares[name])


def test_positions_are_read_to_the_pixel(level: Level, reader: SceneReader) -> None:
    scene = sample_scene(level, random.Random(8), num_things=3)
    read = reader.read(render(scene, level))
    assert sorted((t.x, t.y) for t in read.things) == sorted((t.x, t.y) for t in scene.things)


def test_scene_survives_noise_tint_and_another_size(level: Level, reader: SceneReader) -> None:
    generator = np.random.default_rng(1)
    for seed in range(6):
        scene = sample_scene(level, random.Random(seed))
        noisy = np.asarray(render(scene, level), float) + generator.normal(0, 20, (256, 256, 3)) + [9, -6, 5]
        picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).resize((128, 128), Image.Resampling.BOX)
        assert _described(reader.read(picture), level) == _described(scene, level)


@pytest.mark.parametrize("background", ["paper", "slate", "meadow", "beach", "snow", "night"])
def test_an_empty_background_holds_nothing(background: str, level: Level, reader: SceneReader) -> None:
    picture = draw_background(background, level.picture_size)
    assert reader.read_with_scores(picture) == (Scene(background=background), ())


def test_something_that_is_no_thing_is_rejected(level: Level, reader: SceneReader) -> None:
    picture = draw_background("paper", level.picture_size).copy()
    stripes = np.indices((58, 58)).sum(0) // 4 % 3
    patch = np.array([(255, 0, 255), (0, 255, 0), (20, 20, 20)], np.uint8)[stripes]
    picture.paste(Image.fromarray(patch), (99, 99))
    assert reader.read(picture).things == ()


def test_score_falls_with_quality(level: Level, reader: SceneReader) -> None:
    scene = Scene(background="snow", things=(Thing(kind="boat", color="red", size="medium", x=128, y=128),))
    picture = render(scene, level)
    soft = picture.resize((20, 20), Image.Resampling.BOX).resize((256, 256), Image.Resampling.BICUBIC)
    (clean,), (softened,) = (reader.read_with_scores(p)[1] for p in (picture, soft))
    assert 0.4 < softened < clean - 0.1
    assert 0.9 < clean <= 1


def test_free_placement_three_sizes_and_words() -> None:
    level, reader = _few_kinds_of_the_full_level()
    for seed in range(5):
        scene = sample_scene(level, random.Random(seed), "train")
        assert _described(reader.read(render(scene, level)), level) == _described(scene, level)


def test_every_word_on_a_sign_is_read() -> None:
    level, reader = _few_kinds_of_the_full_level()
    for word in level.words:
        sign = Thing(kind="sign", color="green", size="small", x=100, y=150, text=word)
        assert reader.read(render(Scene(background="beach", things=(sign,)), level)).things == (sign,)


def test_gain_is_the_drop_of_squared_error() -> None:
    """The matrix product against pasting the drawing and measuring, pixel by pixel, also over the border."""
    templates = Templates([Label("cat", color, "medium", 44, None) for color in ("red", "blue")], reduction=2)
    picture = soften(np.asarray(draw_background("meadow", 128), np.float32) / 255)
    canvas = soften(np.asarray(draw_background("night", 128), np.float32) / 255)
    sharp = draw_background("night", 128).copy()
    sharp.paste(draw_sprite("cat", "blue", 44), (60 - 22, 4 - 22), draw_sprite("cat", "blue", 44))
    picture = (picture + 3 * soften(np.asarray(sharp, np.float32) / 255)) / 4
    positions = np.array([(2, 30), (40, 20), (2, 29)])
    gains = templates.gains(picture_fields(picture, canvas), positions)
    for row, position in enumerate(positions):
        for index in range(2):
            pasted, _ = templates.paste(canvas, index, position)
            change = pasted - canvas
            drops = [
                ((picture - canvas) ** 2).sum() - ((picture - canvas - share * change) ** 2).sum()
                for share in np.linspace(0.8, 1.0, 41)
            ]
            assert gains[row, index] == pytest.approx(max(drops), rel=1e-3, abs=1e-2)
    assert gains.argmax() == 1  # the blue cat at its place
