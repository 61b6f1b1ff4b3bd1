"""Edits: one change of a scene and the instruction that asks for it.

The target keeps every other thing's exact place, so that a rendered pair is pixel-identical away from the change. The
instruction points at things by phrases that fit exactly one of them and states the color and place of what is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from unimodal.world import words
from unimodal.world.examples import EditExample
from unimodal.world.sampling import Split, belongs, default_size, fits, sample_thing, try_scene
from unimodal.world.scene import PLACES, Level, Scene, Thing

EDIT_KINDS = ("add", "remove", "replace", "recolor", "move", "resize", "background", "combine")

_EMPTY_SOURCE = 0.1
_ATTEMPTS = 5000


@dataclass(frozen=True)
class Change:
    """A scene before and after; `before` is the thing that goes or changes, `after` what it becomes or what comes."""

    kind: str
    source: Scene
    target: Scene
    before: Thing | None = None
    after: Thing | None = None


def edit_kinds(level: Level) -> tuple[str, ...]:
    """The kinds of edit the level allows: resizing needs more than one size."""
    return tuple(kind for kind in EDIT_KINDS if kind != "resize" or len(level.sizes) > 1)


def sample_edit(
    level: Level,
    random: Random,
    split: Split = "train",
    kind: str | None = None,
    max_things: int | None = None,
) -> EditExample:
    """An edit all of whose scenes belong to `split`.

    Args:
        kind: one of `edit_kinds(level)`; None draws one.
        max_things: at most so many things in a source; None is `level.max_things`.

    Raises:
        ValueError: the level has no such edit.
    """
    kinds = edit_kinds(level)
    if kind is not None and kind not in kinds:
        raise ValueError(f"kind: got {kind!r}, allowed is one of {', '.join(kinds)}")
    kind = kind or random.choice(kinds)
    limit = min(max_things or level.max_things, level.max_things)
    for _ in range(_ATTEMPTS):
        example = (_combine if kind == "combine" else _edit)(kind, level, random, split, limit)
        if example is not None and belongs(example.target, level, split):
            return example
    raise ValueError(f"kind: found no {split} scenes for an edit of kind {kind!r}")


def _edit(kind: str, level: Level, random: Random, split: Split, limit: int) -> EditExample | None:
    source = _source(kind, level, random, split, limit)
    change = None if source is None else change_scene(kind, source, level, random)
    text = None if change is None else instruction(change, level, random)
    if source is None or change is None or text is None:
        return None
    return EditExample((source,), text, change.target, kind)


def _source(kind: str, level: Level, random: Random, split: Split, limit: int) -> Scene | None:
    if kind == "remove" and split == "test":  # what is left must still hold something held out
        return try_scene(level, random, split, random.randint(2, max(2, limit)))
    if kind not in ("add", "combine"):
        return try_scene(level, random, split, random.randint(1, limit))
    if split == "train" and random.random() < _EMPTY_SOURCE:
        return Scene(background=random.choice(level.backgrounds))
    return try_scene(level, random, split, random.randint(1, max(1, min(limit, level.max_things - 1))))


def change_scene(kind: str, scene: Scene, level: Level, random: Random) -> Change | None:
    """A random change of the kind (any but `combine`), or None where the scene has no room or nothing to change."""
    if kind == "add":
        thing = None
        if len(scene.things) < level.max_things:
            thing = sample_thing(level, random, scene.things, size=_new_size(level, random))
        return thing and Change(kind, scene, _with(scene, (*scene.things, thing)), None, thing)
    if kind == "background":
        background = random.choice([name for name in level.backgrounds if name != scene.background])
        return Change(kind, scene, scene.model_copy(update={"background": background}))
    if not scene.things:
        return None
    index = random.randrange(len(scene.things))
    before, others = scene.things[index], scene.things[:index] + scene.things[index + 1 :]
    after = None
    if kind == "replace":
        new_kind = random.choice([name for name in level.kinds if name != before.kind])
        text = random.choice(level.words) if new_kind == "sign" and level.words else None
        after = _changed(before, kind=new_kind, color=random.choice(level.colors), text=text)
    elif kind == "recolor":
        after = _changed(before, color=random.choice([name for name in level.colors if name != before.color]))
    elif kind == "resize":
        after = _changed(before, size=random.choice([name for name in level.sizes if name != before.size]))
    elif kind == "move":
        place = random.choice([name for name in PLACES if name != level.place(before)])
        after = sample_thing(
            level, random, others, kind=before.kind, color=before.color, size=before.size, place=place, text=before.text
        )
        if after and max(abs(after.x - before.x), abs(after.y - before.y)) < level.picture_size / 4:
            return None  # just across a border between two places: hardly a move
    elif kind == "remove":
        return Change(kind, scene, _with(scene, others), before)
    else:
        raise ValueError(f"kind: got {kind!r}, allowed is one of {', '.join(EDIT_KINDS)} but not combine")
    if after is None or (kind == "resize" and not fits(after, others, level)):
        return None
    return Change(kind, scene, _with(scene, (*scene.things[:index], after, *scene.things[index + 1 :])), before, after)


def instruction(change: Change, level: Level, random: Random) -> str | None:
    """One of several ways to ask for the change; None where no phrase points at the thing alone."""
    if change.kind == "background":
        return random.choice(_FORMS["background"]).format(background=change.target.background)
    before, after = change.before, change.after
    subject = ""
    if before is not None:
        known = words.references(before, change.source, level)
        if not known:
            return None
        subject = random.choice(known)
    return random.choice(_FORMS[change.kind]).format(
        subject=subject,
        new=words.with_article(words.full_noun(after, level)) if after else "",
        color=after.color if after else "",
        size=after.size if after else "",
        where=words.PLACE_PHRASES[level.place(after)] if after else "",
        place=level.place(after) if after else "",
    )


_FORMS = {
    "add": ("add {new} {where}", "put {new} {where}", "place {new} {where}", "draw {new} {where}"),
    "remove": ("remove {subject}", "take {subject} away", "erase {subject}", "delete {subject}"),
    "replace": ("replace {subject} with {new}", "turn {subject} into {new}", "swap {subject} for {new}"),
    "recolor": ("make {subject} {color}", "paint {subject} {color}", "color {subject} {color}"),
    "move": ("move {subject} to the {place}", "shift {subject} to the {place}", "bring {subject} to the {place}"),
    "resize": ("make {subject} {size}", "change the size of {subject} to {size}"),
    "background": (
        "change the background to {background}",
        "make the background {background}",
        "set the background to {background}",
    ),
    "combine": (
        "put {subject} of the first picture into the second picture {where}",
        "add {subject} from the first picture to the second picture {where}",
        "copy {subject} of the first picture into the second picture {where}",
    ),
}


def _combine(kind: str, level: Level, random: Random, split: Split, limit: int) -> EditExample | None:
    first = try_scene(level, random, split, random.randint(1, limit))
    second = _source(kind, level, random, split, limit)
    if first is None or second is None or len(second.things) >= level.max_things:
        return None
    thing = random.choice(first.things)
    # "the cat on the left of the first picture" would read as two places
    known = words.references(thing, first, level, by_place=False)
    after = sample_thing(
        level, random, second.things, kind=thing.kind, color=thing.color, size=thing.size, text=thing.text
    )
    if not known or after is None:
        return None
    text = random.choice(_FORMS[kind]).format(
        subject=random.choice(known), where=words.PLACE_PHRASES[level.place(after)]
    )
    return EditExample((first, second), text, _with(second, (*second.things, after)), kind)


def _new_size(level: Level, random: Random) -> str:
    return default_size(level) if random.random() < 0.5 else random.choice(list(level.sizes))


def _changed(thing: Thing, **values: str | None) -> Thing:
    return thing.model_copy(update=values)


def _with(scene: Scene, things: Sequence[Thing]) -> Scene:
    return scene.model_copy(update={"things": tuple(things)})
