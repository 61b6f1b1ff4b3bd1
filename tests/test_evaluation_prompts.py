"""What a checkpoint is asked, and whether a picture or an answer is right: cases worked by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from unimodal.evaluation import prompts
from unimodal.world import captions, edits, questions, sampling
from unimodal.world.captions import Requirement, Wanted
from unimodal.world.examples import EditExample, UnderstandExample
from unimodal.world.scene import PLACES, Level, Scene, Thing, load_level


@pytest.fixture(scope="module", params=["standard", "full"])
def level(request: pytest.FixtureRequest) -> Level:
    return load_level(request.param)


@pytest.fixture(scope="module")
def standard() -> Level:
    return load_level("standard")


def thing(color: str, kind: str, place: str) -> Thing:
    row, column = divmod(PLACES.index(place), 3)
    return Thing(kind=kind, color=color, size="medium", x=32 + 96 * column, y=32 + 96 * row)


def meadow(*things: Thing) -> Scene:
    return Scene(background="meadow", things=things)


@pytest.fixture
def scene() -> Scene:
    """A red car top left, a blue cat in the center, a red cat on the right."""
    return meadow(thing("blue", "cat", "center"), thing("red", "car", "top left"), thing("red", "cat", "right"))


@pytest.mark.parametrize(
    ("requirement", "plain", "strict"),
    [
        (Requirement("single_object", (Wanted("car"),)), True, False),  # the cats are extra
        (Requirement("single_object", (Wanted("fish"),)), False, False),
        (Requirement("two_objects", (Wanted("car"), Wanted("cat"))), True, False),
        (Requirement("two_objects", (Wanted("car"), Wanted("boat"))), False, False),
        (Requirement("counting", (Wanted("cat", count=2),)), True, False),
        (Requirement("counting", (Wanted("cat", count=1),)), False, False),
        (Requirement("counting", (Wanted("cat", "red", count=2),)), False, False),
        (Requirement("colors", (Wanted("cat", "blue"),)), True, False),
        (Requirement("colors", (Wanted("car", "blue"),)), False, False),
        (Requirement("position", (Wanted("cat"), Wanted("car")), "right of"), True, False),
        (Requirement("position", (Wanted("cat"), Wanted("car")), "above"), False, False),
        (Requirement("color_attribution", (Wanted("cat", "red"), Wanted("car", "red"))), True, False),
        (Requirement("color_attribution", (Wanted("cat", "red"), Wanted("car", "blue"))), False, False),
        (
            Requirement("detailed", (Wanted("car", place="top left"), Wanted("cat", count=2)), background="meadow"),
            True,
            True,
        ),
        (Requirement("detailed", (Wanted("car", place="top"), Wanted("cat", count=2))), True, False),
        (Requirement("detailed", (Wanted("car"), Wanted("cat", count=2)), background="snow"), True, False),
    ],
)
def test_satisfies_by_hand(scene: Scene, standard: Level, requirement: Requirement, plain: bool, strict: bool) -> None:
    assert prompts.satisfies(requirement, scene, standard) is plain
    assert prompts.satisfies(requirement, scene, standard, strict=True) is strict


def test_edit_checks_by_hand(standard: Level) -> None:
    car, cat, boat = thing("red", "car", "left"), thing("blue", "cat", "top"), thing("green", "boat", "bottom")
    shifted = car.model_copy(update={"x": car.x + 20, "y": car.y - 20})
    recolor = EditExample((meadow(car, cat),), "make the cat red", meadow(car, thing("red", "cat", "top")), "recolor")
    remove = EditExample((meadow(car, cat),), "remove the cat", meadow(car), "remove")
    snow = EditExample(
        (meadow(car),), "make the background snow", Scene(background="snow", things=(car,)), "background"
    )

    def judge(example: EditExample, scene: Scene) -> tuple[bool, bool]:
        return prompts.edit_success(example, scene, standard), prompts.edit_preserved(example, scene, standard)

    assert judge(recolor, meadow(thing("red", "cat", "top"), shifted)) == (True, True)
    assert judge(recolor, meadow(thing("green", "cat", "top"), car)) == (False, True)  # the wrong color
    assert judge(recolor, meadow(thing("red", "cat", "right"), car)) == (False, False)  # right color, elsewhere
    assert judge(recolor, meadow(thing("red", "cat", "top"))) == (True, False)  # the car is lost
    assert judge(recolor, meadow(thing("red", "cat", "top"), car, boat)) == (True, False)  # a boat came
    assert judge(remove, meadow(car)) == (True, True)
    assert judge(remove, meadow(car, cat)) == (False, True)
    assert judge(remove, Scene(background="snow", things=(car,))) == (True, False)
    assert judge(snow, Scene(background="snow", things=(car,))) == (True, True)
    assert judge(snow, Scene(background="snow", things=())) == (True, False)
    assert judge(snow, meadow(car)) == (False, True)


def test_evaluation_covers_all_kinds_on_held_out_scenes(level: Level) -> None:
    found = prompts.sample_prompts(level, 60, seed=0)
    assert Counter(one.requirement.task for one in found) == dict.fromkeys(captions.TASKS, 10)
    assert len({one.requirement for one in found}) == 60
    assert all(sampling.is_held_out(one.scene, level) for one in found)
    assert found == prompts.sample_prompts(level, 60, seed=0) != prompts.sample_prompts(level, 60, seed=1)
    assert {one.kind for one in prompts.sample_edits(level, 16, seed=0)} == set(edits.edit_kinds(level))


def test_baseline_by_hand(standard: Level) -> None:
    rows = [("color", "red"), ("color", "blue"), ("exists", "yes"), ("exists", "yes")]
    examples = [UnderstandExample((), "", answer, kind) for kind, answer in rows]
    shares = prompts.baseline_accuracy(examples, {"color": "red", "exists": "yes"})
    assert shares == {"color": 0.5, "exists": 1.0, "overall": 0.75}
    assert prompts.mean_of_kinds({"a": 1.0, "b": 0.5, "overall": 0.9}) == 0.75
    assert prompts.is_right_answer(" Top left\n", "top left") and not prompts.is_right_answer("top", "top left")
    answers = prompts.commonest_answers(standard, seed=0, samples=400)
    assert set(answers) == set(questions.question_kinds(standard))


def test_no_results_have_no_accuracy() -> None:
    with pytest.raises(ValueError, match="at least one is needed"):
        prompts.accuracies([])
