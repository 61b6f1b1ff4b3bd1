"""Captions: a prompt, the scene it asks for and what a checker has to find.

The kinds are the six tasks of GenEval (arXiv 2310.11513) and `detailed`, which states everything. What a caption leaves
open has one customary answer, so that drawing is determined: the background is the level's first, the color is the
kind's customary one (an apple is red), the size is the middle one, and the places are those of `canonical_places`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from unimodal.world import words
from unimodal.world.sampling import RELATIONS, Split, belongs, canonical_scene, default_size, place_center, try_scene
from unimodal.world.scene import PLACES, Level, Scene, Thing

TASKS = ("single_object", "two_objects", "counting", "colors", "position", "color_attribution")
CAPTION_KINDS = (*TASKS, "detailed")

_WEIGHTS = {
    "single_object": 0.12,
    "two_objects": 0.14,
    "counting": 0.14,
    "colors": 0.1,
    "position": 0.16,
    "color_attribution": 0.12,
    "detailed": 0.22,
}
_OPENINGS = ("", "", "", "draw ", "paint ", "show ", "a picture of ", "a drawing of ")
_PAIR_PHRASES = ("{} and {}", "{} and {}", "{} with {}", "{} next to {}", "{} beside {}")
_STATED_BACKGROUND = 0.5
_STATED_PLACE = 0.5
_RELATED_DETAILS = 0.35
_ATTEMPTS = 2000


@dataclass(frozen=True)
class Wanted:
    """`count` things of a kind; None stands for what the caption leaves open."""

    kind: str
    color: str | None = None
    place: str | None = None
    size: str | None = None
    text: str | None = None
    count: int = 1


@dataclass(frozen=True)
class Requirement:
    """What a caption states. `relation` holds between the first and the second of `wanted`."""

    task: str
    wanted: tuple[Wanted, ...]
    relation: str | None = None
    background: str | None = None


@dataclass(frozen=True)
class Caption:
    prompt: str
    scene: Scene
    requirement: Requirement


def sample_caption(
    level: Level,
    random: Random,
    split: Split = "train",
    kind: str | None = None,
    max_things: int | None = None,
) -> Caption:
    """A caption with its scene, which belongs to `split`.

    Args:
        kind: one of `CAPTION_KINDS`; None draws one.
        max_things: at most so many things; None is `level.max_things`.

    Raises:
        ValueError: an unknown kind, or one that needs more things than allowed.
    """
    limit = min(max_things or level.max_things, level.max_things)
    possible = [name for name in CAPTION_KINDS if limit > 1 or name not in _PAIRS]
    if kind is not None and kind not in possible:
        raise ValueError(f"kind: got {kind!r}, allowed with {limit} things is one of {', '.join(possible)}")
    if kind is None:
        kind = random.choices(possible, [_WEIGHTS[name] for name in possible])[0]
    for _ in range(_ATTEMPTS):
        caption = _WRITERS[kind](level, random, split, limit)
        if caption is not None and belongs(caption.scene, level, split):
            return caption
    raise ValueError(f"kind: found no {split} scene for {kind!r}")


def draw_requirement(requirement: Requirement, level: Level, random: Random) -> Scene:
    """The scene that a caption asks for, with the customary answer to all it leaves open."""
    things = []
    for wanted in requirement.wanted:
        size = wanted.size or default_size(level)
        x, y = place_center(level, random, wanted.place or "center", size)
        color = wanted.color or words.customary_color(wanted.kind, level)
        thing = Thing(kind=wanted.kind, color=color, size=size, x=x, y=y, text=wanted.text)
        things += [thing] * wanted.count
    background = requirement.background or level.backgrounds[0]
    if all(wanted.place for wanted in requirement.wanted):
        return Scene(background=background, things=tuple(things))
    return canonical_scene(level, random, things, background, requirement.relation)


def _phrase(wanted: Wanted) -> str:
    words_ = words.with_article(words.noun(wanted.kind, wanted.color, wanted.size, wanted.text))
    return f"{words_} {words.PLACE_PHRASES[wanted.place]}" if wanted.place else words_


def _wanted(level: Level, random: Random, kind: str, color: str | None = None, place: str | None = None) -> Wanted:
    # A word has no customary answer: a sign always states it.
    text = random.choice(level.words) if kind == "sign" and level.words else None
    return Wanted(kind, color, place, text=text)


def _finish(text: str, requirement: Requirement, level: Level, random: Random) -> Caption:
    if requirement.background:
        text = f"{text} {words.background_phrase(requirement.background)}"
    return Caption(random.choice(_OPENINGS) + text, draw_requirement(requirement, level, random), requirement)


def _background(level: Level, random: Random) -> str | None:
    return random.choice(level.backgrounds) if random.random() < _STATED_BACKGROUND else None


def _single(level: Level, random: Random, split: Split, limit: int) -> Caption:
    place = random.choice(PLACES) if random.random() < _STATED_PLACE else None
    wanted = _wanted(level, random, random.choice(level.kinds), place=place)
    requirement = Requirement("single_object", (wanted,), background=_background(level, random))
    return _finish(_phrase(wanted), requirement, level, random)


def _colors(level: Level, random: Random, split: Split, limit: int) -> Caption:
    place = random.choice(PLACES) if random.random() < _STATED_PLACE else None
    wanted = _wanted(level, random, random.choice(level.kinds), random.choice(level.colors), place)
    requirement = Requirement("colors", (wanted,), background=_background(level, random))
    return _finish(_phrase(wanted), requirement, level, random)


def _two(level: Level, random: Random, split: Split, limit: int) -> Caption:
    first, second = random.sample(level.kinds, 2)
    wanted = (_wanted(level, random, first), _wanted(level, random, second))
    requirement = Requirement("two_objects", wanted, background=_background(level, random))
    text = random.choice(_PAIR_PHRASES).format(*map(_phrase, wanted))
    return _finish(text, requirement, level, random)


def _color_attribution(level: Level, random: Random, split: Split, limit: int) -> Caption:
    kinds, colors = random.sample(level.kinds, 2), random.sample(level.colors, 2)
    wanted = tuple(_wanted(level, random, kind, color) for kind, color in zip(kinds, colors, strict=True))
    requirement = Requirement("color_attribution", wanted, background=_background(level, random))
    text = random.choice(_PAIR_PHRASES).format(*map(_phrase, wanted))
    return _finish(text, requirement, level, random)


def _position(level: Level, random: Random, split: Split, limit: int) -> Caption:
    return _related(level, random, "position", (None, None))


def _related(level: Level, random: Random, task: str, colors: Sequence[str | None]) -> Caption:
    first, second = random.sample(level.kinds, 2)
    wanted = (_wanted(level, random, first, colors[0]), _wanted(level, random, second, colors[1]))
    relation = random.choice(RELATIONS)
    background = random.choice(level.backgrounds) if task == "detailed" else _background(level, random)
    requirement = Requirement(task, wanted, relation, background)
    text = f"{_phrase(wanted[0])} {words.relation_phrase(relation)} {_phrase(wanted[1])}"
    return _finish(text, requirement, level, random)


def _counting(level: Level, random: Random, split: Split, limit: int) -> Caption:
    count = random.randint(1, limit)
    color = random.choice(level.colors) if random.random() < 0.5 else None
    kind = random.choice(level.kinds)
    text = random.choice(level.words) if kind == "sign" and level.words else None
    wanted = Wanted(kind, color, text=text, count=count)
    requirement = Requirement("counting", (wanted,), background=_background(level, random))
    noun = " ".join(word for word in (color, words.plural(kind) if count > 1 else kind) if word)
    if text:
        noun += f" that {'say' if count > 1 else 'says'} {text}"
    return _finish(f"{words.NUMBERS[count]} {noun}", requirement, level, random)


def _detailed(level: Level, random: Random, split: Split, limit: int) -> Caption | None:
    if limit > 1 and random.random() < _RELATED_DETAILS:
        return _related(level, random, "detailed", (random.choice(level.colors), random.choice(level.colors)))
    scene = try_scene(level, random, split, random.randint(1, limit))
    if scene is None:
        return None
    return describe(scene, level, random)


def describe(scene: Scene, level: Level, random: Random) -> Caption:
    """A detailed caption of a given scene, in one of several phrasings."""
    usual = default_size(level)
    style = random.randrange(4)
    things = words.reading_order(scene, level) if style else list(scene.things)
    wanted = tuple(Wanted(t.kind, t.color, level.place(t), None if t.size == usual else t.size, t.text) for t in things)
    where = words.background_phrase(scene.background)
    if style == 0:
        text = f"{words.join([_phrase(one) for one in wanted])} {where}"
    elif style == 1:
        text = f"{where}: {words.join([_phrase(one) for one in wanted])}"
    elif style == 2:
        nouns = [words.with_article(words.noun(one.kind, one.color, one.size, one.text)) for one in wanted]
        places = [words.PLACE_PHRASES[one.place or "center"] for one in wanted]
        text = f"{where}: " + ", ".join(f"{place} {noun}" for place, noun in zip(places, nouns, strict=True))
    else:
        text = words.description(scene, level)
    opening = "" if style in (1, 2) else random.choice(_OPENINGS)
    return Caption(opening + text, scene, Requirement("detailed", wanted, background=scene.background))


_PAIRS = ("two_objects", "position", "color_attribution")
_WRITERS = {
    "single_object": _single,
    "two_objects": _two,
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "color_attribution": _color_attribution,
    "detailed": _detailed,
}
