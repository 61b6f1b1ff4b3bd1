"""The tour: everything it asks for is held out and has one right answer, and it leaves a page that stands alone."""

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image, ImageChops
from quick_pipeline import quick_pipeline, seeded

from unimodal.pipeline import Pipeline
from unimodal.quickstart.page import render_page
from unimodal.quickstart.run import run
from unimodal.quickstart.tour import TourEdit, bundled_picture, draw_pictures, read_tour
from unimodal.world.captions import CAPTION_KINDS, sample_caption
from unimodal.world.edits import change_scene, edit_kinds, instruction
from unimodal.world.questions import ask, question_kinds
from unimodal.world.sampling import is_held_out
from unimodal.world.scene import load_level
from unimodal.world.stories import sample_story

TOUR = read_tour()
LEVEL = load_level(TOUR.level)


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    short = {"gen_length": 16, "num_inference_steps": 2}
    return quick_pipeline(understand=short, thinking=short, interleave=short, decoder={"turbo_steps": 1})


def test_bundled_pictures_are_the_scenes_held_out_from_training(tmp_path: Path) -> None:
    draw_pictures(tmp_path)
    for name, scene in TOUR.pictures.items():
        assert is_held_out(scene, LEVEL)
        with Image.open(tmp_path / f"{name}.png") as drawn, Image.open(bundled_picture(name)) as bundled:
            assert ImageChops.difference(drawn, bundled).getbbox() is None


def test_every_question_has_the_answer_that_the_tour_expects() -> None:
    for entry in TOUR.questions:
        scene, answers = TOUR.pictures[entry.picture], set()
        for kind in question_kinds(LEVEL):
            asked = (ask(kind, scene, LEVEL, Random(seed)) for seed in range(800))
            answers |= {one.answer for one in asked if one is not None and one.question == entry.question}
        assert answers == {entry.answer}, entry.question


def test_prompts_and_story_are_those_of_held_out_scenes() -> None:
    found = {sample_caption(LEVEL, Random(seed), "test", kind).prompt for kind in CAPTION_KINDS for seed in range(400)}
    assert {drawing.prompt for drawing in TOUR.drawings} <= found
    assert TOUR.story in {sample_story(LEVEL, Random(seed), "test", 3).prompt for seed in range(10)}


@pytest.mark.parametrize("edit", TOUR.edits, ids=lambda edit: edit.instruction)
def test_edits_lead_to_held_out_scenes(edit: TourEdit) -> None:
    scenes = [TOUR.pictures[name] for name in edit.pictures]
    if len(scenes) > 1:
        things = (*scenes[-1].things, scenes[0].things[0].model_copy(update={"x": 32, "y": 128}))
        assert "tree" in edit.instruction and scenes[0].things[0].kind == "tree"
        assert is_held_out(scenes[-1].model_copy(update={"things": things}), LEVEL)
        return
    targets = []
    for kind in (name for name in edit_kinds(LEVEL) if name != "combine"):
        found = [change_scene(kind, scenes[0], LEVEL, Random(seed)) for seed in range(1200)]
        changes = {(change.before, change.after, change.target): change for change in found if change is not None}
        for change in changes.values():
            if edit.instruction in {instruction(change, LEVEL, Random(seed)) for seed in range(30)}:
                targets.append(change.target)
    assert targets and all(is_held_out(target, LEVEL) for target in targets)


def test_the_tour_leaves_a_page_and_its_pictures(pipe: Pipeline, tmp_path: Path) -> None:
    lines: list[str] = []
    found = run(pipe, tmp_path / "tour", model="reference", seed=3, say=lines.append)
    folder = tmp_path / "tour"
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == found
    page = (folder / "index.html").read_text(encoding="utf-8")
    shown = set(re.findall(r'src="([^"]+)"', page))
    pictures = {path.name for path in folder.glob("*.png")} - {"overview.png"}
    assert shown == pictures and len(shown) >= len(TOUR.pictures) + len(TOUR.drawings) + len(TOUR.edits)
    assert "http" not in page and "$" not in page
    printed = "\n".join(lines)
    for entry in found["questions"]:
        assert f"{entry['question']}  {entry['answer']}" in printed
    with Image.open(folder / "overview.png") as overview:
        assert overview.width > 4 * 256
    assert not list(folder.glob(".*"))
    # The same seed draws the same picture alone as in the tour.
    alone = pipe.generate(TOUR.drawings[0].prompt, generator=seeded(3)).images[0]
    with Image.open(folder / found["drawings"][0]["image"]) as drawn:
        assert max(ImageChops.difference(alone, drawn.convert("RGB")).tobytes()) <= 1


def test_what_a_model_writes_is_text_on_the_page() -> None:
    found: dict[str, Any] = {
        "model": "<b>m</b>",
        "seed": 0,
        "seconds": 1.0,
        "questions": [{"picture": "a.png", "question": "q?", "answer": "<i>", "expected": "$", "right": False}],
        "drawings": [{"prompt": "&", "thinking": "<u>", "image": "d.png"}],
        "edits": [],
        "story": {"prompt": "", "segments": [{"text": "<s>"}]},
    }
    page = render_page(found)
    assert not re.search(r"<(b|i|u|s)>", page)
    assert "&lt;i&gt;" in page and "&lt;s&gt;" in page
