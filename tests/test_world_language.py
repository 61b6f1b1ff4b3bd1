"""The language of the picture-book world: the split, captions, questions, edits, plans and stories."""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from itertools import pairwise
from random import Random

import pytest

from unimodal.evaluation import prompts
from unimodal.world import captions, edits, questions, sampling, stories, tasks, words
from unimodal.world.captions import Requirement, Wanted
from unimodal.world.examples import EditExample, GenerateExample, StoryExample, UnderstandExample
from unimodal.world.scene import Level, Scene, Thing, load_level
from unimodal.world.thinking import layout_plan

LEVELS = ("standard", "full")
CENTERS: dict[str, tuple[int, int]] = dict(
    zip(
        ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right"),
        [(x, y) for y in (32, 128, 224) for x in (32, 128, 224)],
        strict=True,
    )
)


@pytest.fixture(scope="module", params=LEVELS)
def level(request: pytest.FixtureRequest) -> Level:
    return load_level(request.param)


@pytest.fixture(scope="module")
def standard() -> Level:
    return load_level("standard")


def thing(color: str, kind: str, place: str, size: str = "medium", text: str | None = None) -> Thing:
    x, y = CENTERS[place]
    return Thing(kind=kind, color=color, size=size, x=x, y=y, text=text)


def meadow(*things: Thing) -> Scene:
    return Scene(background="meadow", things=things)


@pytest.fixture
def scene() -> Scene:
    """A red car top left, a blue cat in the center, a red cat on the right."""
    return meadow(thing("blue", "cat", "center"), thing("red", "car", "top left"), thing("red", "cat", "right"))


def scenes_of(example: tasks.Example) -> list[Scene]:
    if isinstance(example, UnderstandExample):
        return list(example.scenes)
    if isinstance(example, GenerateExample):
        return [example.scene]
    if isinstance(example, EditExample):
        return [*example.sources, example.target]
    return [segment for segment in example.segments if isinstance(segment, Scene)]


def combinations_of(scene: Scene, level: Level) -> set[tuple[str, str, str]]:
    """All combinations in a scene, worked out slowly; relations once per pair, as left of and above."""
    found = {(one.kind, one.color, level.place(one)) for one in scene.things}
    for one in scene.things:
        for other in scene.things:
            if one is not other:
                slack = (level.sizes[one.size] + level.sizes[other.size]) / 10
                x, y = other.x - one.x, other.y - one.y
                distance = (x * x + y * y) ** 0.5
                if (x - slack) / distance > 0.5:
                    found.add((one.kind, "left of", other.kind))
                if (y - slack) / distance > 0.5:
                    found.add((one.kind, "above", other.kind))
    return found


# The split


@pytest.mark.parametrize("task", tasks.TASKS)
def test_no_picture_of_training_can_be_a_picture_of_evaluation(level: Level, task: str) -> None:
    seen: dict[sampling.Split, set[tuple[str, str, str]]] = {"train": set(), "test": set()}
    for split, combinations in seen.items():
        random = Random(5)
        for index in range(500):
            example = tasks.sample_example(task, level, random, split, difficulty=(1.0, 0.3)[index % 2])
            for scene in scenes_of(example):
                combinations_here = combinations_of(scene, level)
                held_out = {
                    c for c in combinations_here if zlib.crc32("|".join(c).encode()) % level.held_out.every == 0
                }
                assert bool(held_out) == (split == "test") == sampling.is_held_out(scene, level)
                combinations |= held_out if split == "test" else combinations_here
    assert seen["train"] and seen["test"] and not seen["train"] & seen["test"]


def test_one_combination_in_nine_is_held_out_and_everything_else_is_in_training(level: Level) -> None:
    placed = [(k, c, p) for k in level.kinds for c in level.colors for p in CENTERS]
    related = [(k, "above", other) for k in level.kinds for other in level.kinds]
    for group in (placed, related):
        share = sum(sampling.is_held_out_combination(*c, every=level.held_out.every) for c in group) / len(group)
        assert 0.07 < share < 0.16
    left = {c for c in placed if not sampling.is_held_out_combination(*c, every=level.held_out.every)}
    for kind in level.kinds:
        assert {c for k, c, _ in left if k == kind} == set(level.colors)
        assert {p for k, _, p in left if k == kind} == set(CENTERS)


def test_the_split_never_moves() -> None:
    assert sampling.is_held_out_combination("cat", "red", "center", every=9)
    assert sampling.is_held_out_combination("apple", "below", "ball", every=9)
    assert sampling.is_held_out_combination("ball", "above", "apple", every=9)
    assert not sampling.is_held_out_combination("cat", "red", "left", every=9)


@pytest.mark.parametrize("task", tasks.TASKS)
def test_the_same_seed_gives_the_same_examples(level: Level, task: str) -> None:
    first, second = Random(3), Random(3)
    for _ in range(20):
        assert tasks.sample_example(task, level, first) == tasks.sample_example(task, level, second)


def test_things_fit_the_level(level: Level) -> None:
    random = Random(0)
    for index in range(400):
        scene = sampling.sample_scene(level, random, "train", num_things=index % (level.max_things + 1))
        assert len(scene.things) == index % (level.max_things + 1)
        for number, one in enumerate(scene.things):
            assert sampling.fits(one, scene.things[:number], level)
            assert (one.text is not None) == (one.kind == "sign")


def test_relations_by_hand(standard: Level) -> None:
    center = thing("red", "car", "center")
    assert sampling.relations(thing("red", "cat", "left"), center, standard) == ("left of",)
    assert sampling.relations(thing("red", "cat", "bottom"), center, standard) == ("below",)
    assert sampling.relations(thing("red", "cat", "top right"), center, standard) == ("right of", "above")
    # Two columns and one row away is beside, not below.
    assert sampling.relations(thing("red", "cat", "left"), thing("red", "car", "top right"), standard) == ("left of",)
    assert sampling.relations(center, center, standard) == ()


# Captions


@pytest.mark.parametrize("kind", captions.CAPTION_KINDS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_captions_ask_for_their_scene(level: Level, kind: str, split: sampling.Split) -> None:
    random = Random(1)
    for _ in range(60):
        caption = captions.sample_caption(level, random, split, kind)
        requirement = caption.requirement
        assert requirement.task == kind
        assert prompts.satisfies(requirement, caption.scene, level, strict=True)
        assert len(caption.prompt.split()) <= 45 and caption.prompt == caption.prompt.lower()
        assert caption.scene.background == (requirement.background or level.backgrounds[0])
        for wanted in requirement.wanted:
            expected = wanted.color or words.customary_color(wanted.kind, level)
            assert expected in {one.color for one in caption.scene.things if one.kind == wanted.kind}


def test_unstated_positions_have_a_canonical_layout(standard: Level) -> None:
    random = Random(0)
    for count, places in {1: ["center"], 2: ["left", "right"], 3: ["left", "center", "right"]}.items():
        scene = captions.draw_requirement(Requirement("counting", (Wanted("star", count=count),)), standard, random)
        assert [standard.place(one) for one in scene.things] == places
        assert {(one.kind, one.color) for one in scene.things} == {("star", "yellow")}
        assert scene.background == "paper"
    pair = (Wanted("cat"), Wanted("boat"))
    for relation, places in {"above": ["top", "bottom"], "right of": ["right", "left"]}.items():
        scene = captions.draw_requirement(Requirement("position", pair, relation), standard, random)
        assert [standard.place(one) for one in scene.things] == places
        first, second = scene.things
        assert relation in sampling.relations(first, second, standard)


def test_every_kind_has_a_customary_color_and_good_grammar(level: Level) -> None:
    assert {words.customary_color(kind, level) for kind in level.kinds} <= set(level.colors)
    assert words.with_article("orange cat") == "an orange cat" and words.with_article("cat") == "a cat"
    assert words.plural("fish") == "fish" and words.plural("bus") == "buses" and words.plural("cat") == "cats"


def test_easy_scenes_come_first(level: Level) -> None:
    random = Random(0)
    for task in ("understand", "generate"):
        sizes = Counter(
            len(scenes_of(tasks.sample_example(task, level, random, difficulty=0.2))[0].things) for _ in range(99)
        )
        assert max(sizes) <= 2 and sizes[1] > 60


# Questions


def test_answers_by_hand(scene: Scene, standard: Level) -> None:
    asked: dict[str, set[str]] = defaultdict(set)
    random = Random(0)
    for kind in questions.question_kinds(standard):
        for _ in range(600):
            question = questions.ask(kind, scene, standard, random)
            if question is not None:
                asked[question.question].add(question.answer)
    assert all(len(answers) == 1 for answers in asked.values())
    answers = {question: min(found) for question, found in asked.items()}
    expected = {
        "what is at the top left?": "a red car",
        "name the thing in the center.": "a blue cat",
        "what stands at the bottom?": "nothing",
        "what color is the car?": "red",
        "how many things are there?": "three",
        "count the cats.": "two",
        "how many fish do you see?": "zero",
        "where is the car?": "top left",
        "is there a cat?": "yes",
        "do you see a blue cat?": "yes",
        "is there a blue car?": "no",
        "is there an orange cat?": "no",
        "what is to the left of the car?": "nothing",
        "what is below the car?": "a blue cat",
        "which background is it?": "meadow",
        "describe the picture.": (
            "a meadow with a red car at the top left, a blue cat in the center and a red cat on the right"
        ),
    }
    assert {question: answers.get(question) for question in expected} == expected
    assert "what color is the cat?" not in answers and "where is the cat?" not in answers  # there are two
    assert "what is to the right of the car?" not in answers  # both cats are


def test_a_sign_is_read() -> None:
    level = load_level("full")
    scene = meadow(thing("red", "sign", "left", text="zoo"), thing("blue", "cat", "top", size="large"))
    question = questions.ask("sign", scene, level, Random(0))
    assert question is not None and question.answer == "zoo"
    assert questions.ask("sign", meadow(thing("blue", "cat", "top")), level, Random(0)) is None
    assert words.description(scene, level) == (
        "a meadow with a large blue cat at the top and a red sign that says zoo on the left"
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_answer_is_a_good_guess(level: Level, split: sampling.Split) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for example in prompts.sample_questions(level, 1800, 2, split):
        counts[example.kind][example.answer] += 1
    assert set(counts) == set(questions.question_kinds(level))
    for kind, counter in counts.items():
        share = counter.most_common(1)[0][1] / counter.total()
        assert share < {"exists": 0.6, "count": 0.36}.get(kind, 0.27), (kind, counter)


# Edits, plans, stories


@pytest.mark.parametrize("split", ["train", "test"])
def test_edits_change_one_thing_and_keep_the_rest(level: Level, split: sampling.Split) -> None:
    random = Random(4)
    for kind in edits.edit_kinds(level):
        for _ in range(60):
            example = edits.sample_edit(level, random, split, kind)
            source, target = example.sources[-1], example.target
            gone, new = Counter(source.things) - Counter(target.things), Counter(target.things) - Counter(source.things)
            expected = {"add": (0, 1), "combine": (0, 1), "remove": (1, 0), "background": (0, 0)}.get(kind, (1, 1))
            assert (gone.total(), new.total()) == expected
            assert (source.background != target.background) == (kind == "background")
            assert len(example.sources) == (2 if kind == "combine" else 1)
            for number, one in enumerate(target.things):
                assert sampling.fits(one, target.things[:number], level)
            if expected == (1, 1):
                (old_thing,), (new_thing,) = gone, new
                differing = {n for n in Thing.model_fields if getattr(old_thing, n) != getattr(new_thing, n)}
                allowed = {
                    "recolor": {"color"},
                    "resize": {"size"},
                    "move": {"x", "y"},
                    "replace": {"kind", "color", "text"},
                }
                assert differing and differing <= allowed[kind]
            assert prompts.edit_success(example, target, level) and prompts.edit_preserved(example, target, level)
            assert not prompts.edit_success(example, source, level)
            assert prompts.edit_preserved(example, source, level)


def test_instructions_by_hand(scene: Scene, standard: Level) -> None:
    car, cat = scene.things[1], scene.things[0]
    assert words.references(car, scene, standard) == ["the car", "the red car", "the car at the top left"]
    assert words.references(cat, scene, standard) == ["the blue cat", "the cat in the center"]
    moved = thing("blue", "cat", "bottom")
    change = edits.Change("move", scene, meadow(moved, *scene.things[1:]), cat, moved)
    texts = {edits.instruction(change, standard, Random(seed)) for seed in range(60)}
    assert "move the blue cat to the bottom" in texts and len(texts) == 6
    blue = thing("blue", "car", "top left")
    change = edits.Change("replace", scene, scene, cat, blue)
    assert "replace the cat in the center with a blue car" in {
        edits.instruction(change, standard, Random(seed)) for seed in range(60)
    }


def test_plan_by_hand(scene: Scene, standard: Level) -> None:
    plan = "plan: meadow. top left: red car. center: blue cat. right: red cat."
    assert layout_plan(scene, standard) == plan
    example = tasks.sample_example("thinking", standard, Random(0))
    assert isinstance(example, GenerateExample) and example.thinking == layout_plan(example.scene, standard)


def test_stories_change_one_thing_per_picture(level: Level) -> None:
    random = Random(6)
    for _ in range(150):
        story = stories.sample_story(level, random)
        assert [isinstance(segment, str) for segment in story.segments] == [True, False] * (len(story.segments) // 2)
        frames = scenes_of(story)
        assert len(frames) in (2, 3) and f"in {words.NUMBERS[len(frames)]} pictures." in story.prompt
        for before, after in pairwise(frames):
            changed = (Counter(before.things) - Counter(after.things)).total()
            changed += (Counter(after.things) - Counter(before.things)).total()
            assert (before.background != after.background, changed) in {(True, 0), (False, 1), (False, 2)}
        assert all(len(segment.split()) <= 32 for segment in story.segments if isinstance(segment, str))
    assert isinstance(tasks.sample_example("interleave", level, random), StoryExample)


# Bad input


def test_bad_input_says_what_is_allowed(standard: Level) -> None:
    random = Random(0)
    with pytest.raises(ValueError, match="task: got 'paint'"):
        tasks.sample_example("paint", standard, random)
    with pytest.raises(ValueError, match="difficulty: got 0"):
        tasks.sample_example("edit", standard, random, difficulty=0)
    with pytest.raises(ValueError, match="kind: got 'resize'"):
        edits.sample_edit(standard, random, kind="resize")
    with pytest.raises(ValueError, match="kind: got 'sign'"):
        questions.sample_question(standard, random, kind="sign")
    with pytest.raises(ValueError, match="kind: got 'position'"):
        captions.sample_caption(standard, random, kind="position", max_things=1)
    with pytest.raises(ValueError, match="num_things: got 4, allowed is 0 to 3"):
        sampling.sample_scene(standard, random, num_things=4)
    with pytest.raises(ValueError, match="num_things: got 0, allowed is 1 to 3"):
        sampling.sample_scene(standard, random, "test", num_things=0)
    with pytest.raises(ValueError, match="found no train scene"):
        sampling.sample_scene(
            standard, random, num_things=2, kinds=("boat", "boat")
        )  # held out side by side and stacked
