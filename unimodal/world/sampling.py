"""Random scenes, where things may stand, and the combinations that are kept out of training.

The split rule: a *combination* is (kind, color, place) of one thing or (kind, relation, kind) of two. One combination
in `level.held_out.every` is held out, chosen by a stable hash. A training scene holds none of them, a test scene at
least one, so no test scene can occur in training. All randomness comes from the `random.Random` that is passed.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from random import Random
from typing import Literal

from unimodal.world.scene import PLACES, FreePlacement, Level, Scene, Thing

Split = Literal["train", "test"]

RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

_ATTEMPTS = 2000
_PLACEMENT_ATTEMPTS = 40
_REPEATED_KIND = 0.2

# Where an illustrator puts so many things when nobody says where, in the order of the caption.
_UNSTATED_PLACES = {
    0: (),
    1: ("center",),
    2: ("left", "right"),
    3: ("left", "center", "right"),
    4: ("top left", "top right", "bottom left", "bottom right"),
}
_RELATED_PLACES = {
    "left of": ("left", "right"),
    "right of": ("right", "left"),
    "above": ("top", "bottom"),
    "below": ("bottom", "top"),
}


def leaning(first: Thing, second: Thing, level: Level) -> tuple[float, float]:
    """How far `first` stands to the right of and below `second`, as signed shares in [-1, 1].

    The rule of GenEval (arXiv 2310.11513, `evaluate_images.py`): each component of the offset between the centres loses
    a tenth of the summed sizes and is divided by the length of the offset.
    """
    x, y = first.x - second.x, first.y - second.y
    distance = math.hypot(x, y) or 1.0
    slack = 0.1 * (level.sizes[first.size] + level.sizes[second.size])
    across = math.copysign(max(abs(x) - slack, 0.0) / distance, x)
    return across, math.copysign(max(abs(y) - slack, 0.0) / distance, y)


def relations(first: Thing, second: Thing, level: Level) -> tuple[str, ...]:
    """How `first` stands to `second`: those of `RELATIONS` whose `leaning` exceeds 0.5; two on a diagonal."""
    across, down = leaning(first, second, level)
    found = ()
    if abs(across) > 0.5:
        found = ("left of" if across < 0 else "right of",)
    if abs(down) > 0.5:
        found += ("above" if down < 0 else "below",)
    return found


def is_held_out_combination(*parts: str, every: int) -> bool:
    """Whether (kind, color, place) or (kind, relation, kind) is held out: the same on every machine, in every run."""
    if parts[1] in ("right of", "below"):  # the mirrored way to say the same
        parts = (parts[2], OPPOSITE[parts[1]], parts[0])
    return zlib.crc32("|".join(parts).encode()) % every == 0


@lru_cache(maxsize=16)
def _held_out(kinds: tuple[str, ...], colors: tuple[str, ...], every: int) -> frozenset[tuple[str, str, str]]:
    placed = ((kind, color, place) for kind in kinds for color in colors for place in PLACES)
    related = ((first, relation, second) for first in kinds for relation in RELATIONS for second in kinds)
    return frozenset(c for group in (placed, related) for c in group if is_held_out_combination(*c, every=every))


def brings_held_out(thing: Thing, others: Iterable[Thing], level: Level) -> bool:
    """Whether adding `thing` to `others` makes a held-out combination that has `thing` in it."""
    held_out = _held_out(level.kinds, level.colors, level.held_out.every)
    if (thing.kind, thing.color, level.place(thing)) in held_out:
        return True
    for other in others:
        for relation in relations(thing, other, level):
            if (thing.kind, relation, other.kind) in held_out:
                return True
    return False


def is_held_out(scene: Scene, level: Level) -> bool:
    """Whether the scene holds at least one held-out combination, which makes it a test scene."""
    things = scene.things
    return any(brings_held_out(thing, things[:index], level) for index, thing in enumerate(things))


def belongs(scene: Scene, level: Level, split: Split) -> bool:
    """Whether the scene may appear in `split`."""
    return is_held_out(scene, level) == (split == "test")


def default_size(level: Level) -> str:
    """The size of a thing whose size is not stated: the middle one."""
    return sorted(level.sizes, key=lambda name: level.sizes[name])[len(level.sizes) // 2]


def fits(thing: Thing, others: Iterable[Thing], level: Level) -> bool:
    """Whether `thing` may stand beside `others`: its own cell (grid), no heavy overlap and no border crossed (free)."""
    if not isinstance(level.placement, FreePlacement):
        place = level.place(thing)
        return all(level.place(other) != place for other in others)
    side = level.sizes[thing.size]
    low, high = level.placement.margin + side / 2, level.picture_size - level.placement.margin - side / 2
    if not (low <= thing.x <= high and low <= thing.y <= high):
        return False
    for other in others:
        other_side = level.sizes[other.size]
        reach = (side + other_side) / 2
        smaller = min(side, other_side)
        width = min(reach - abs(thing.x - other.x), smaller)
        height = min(reach - abs(thing.y - other.y), smaller)
        if width > 0 and height > 0 and width * height > level.placement.max_overlap * smaller * smaller:
            return False
    return True


def sample_thing(
    level: Level,
    random: Random,
    others: Sequence[Thing] = (),
    *,
    kind: str | None = None,
    color: str | None = None,
    size: str | None = None,
    place: str | None = None,
    text: str | None = None,
) -> Thing | None:
    """A thing that fits beside `others`, random in all that is not given; None where there is no room."""
    kind = kind or random.choice(level.kinds)
    color = color or random.choice(level.colors)
    size = size or random.choice(list(level.sizes))
    if kind == "sign" and text is None and level.words:
        text = random.choice(level.words)
    if isinstance(level.placement, FreePlacement):
        return _place_freely(level, random, others, kind, color, size, place, text)
    if place is None:
        taken = {level.place(other) for other in others}
        free = [name for name in PLACES if name not in taken]
        if not free:
            return None
        place = random.choice(free)
    elif any(level.place(other) == place for other in others):
        return None
    x, y = place_center(level, random, place, size)
    return Thing(kind=kind, color=color, size=size, x=x, y=y, text=text)


def place_center(level: Level, random: Random, place: str, size: str) -> tuple[int, int]:
    """The centre of a thing in the middle of a place, with the usual jitter (free placement: up to the margin)."""
    row, column = divmod(PLACES.index(place), 3)
    placement = level.placement
    if not isinstance(placement, FreePlacement):
        first, pitch, jitter = placement.first, placement.pitch, placement.jitter
        x = first + pitch * column + random.randint(-jitter, jitter)
        return x, first + pitch * row + random.randint(-jitter, jitter)
    margin = placement.margin
    low = margin + (level.sizes[size] + 1) // 2
    high = level.picture_size - low
    x, y = ((2 * i + 1) * level.picture_size // 6 + random.randint(-margin, margin) for i in (column, row))
    return min(max(x, low), high), min(max(y, low), high)


def _place_freely(
    level: Level,
    random: Random,
    others: Sequence[Thing],
    kind: str,
    color: str,
    size: str,
    place: str | None,
    text: str | None,
) -> Thing | None:
    assert isinstance(level.placement, FreePlacement)
    low = level.placement.margin + (level.sizes[size] + 1) // 2
    high = level.picture_size - low
    inset = level.placement.margin  # a centre on the line between two places would have no clear place
    for _ in range(_PLACEMENT_ATTEMPTS):
        row, column = divmod(PLACES.index(place) if place else random.randrange(len(PLACES)), 3)
        x, y = (
            random.randint(
                max(low, i * level.picture_size // 3 + inset), min(high, (i + 1) * level.picture_size // 3 - inset)
            )
            for i in (column, row)
        )
        thing = Thing(kind=kind, color=color, size=size, x=x, y=y, text=text)
        if fits(thing, others, level):
            return thing
    return None


def sample_scene(
    level: Level,
    random: Random,
    split: Split = "train",
    num_things: int | None = None,
    kinds: Sequence[str] = (),
    colors: Sequence[str] = (),
) -> Scene:
    """A random scene of the split.

    Args:
        num_things: up to `level.max_things`; None draws 1 or more; 0 only in training, since nothing can be held out.
        kinds: the kinds of the first things drawn; the rest are random, now and then a kind that is already there.
        colors: the colors of the first things drawn; the rest are random.

    Raises:
        ValueError: `num_things` is out of range, or no scene of the split was found that meets the wishes.
    """
    if num_things is not None and not (split == "test") <= num_things <= level.max_things:
        raise ValueError(f"num_things: got {num_things}, allowed is {int(split == 'test')} to {level.max_things}")
    for _ in range(_ATTEMPTS):
        scene = try_scene(level, random, split, num_things, kinds, colors)
        if scene is not None:
            return scene
    raise ValueError(f"kinds: found no {split} scene of {num_things or 'some'} things with {[*kinds, *colors]}")


def try_scene(
    level: Level,
    random: Random,
    split: Split = "train",
    num_things: int | None = None,
    kinds: Sequence[str] = (),
    colors: Sequence[str] = (),
) -> Scene | None:
    """One attempt at `sample_scene`: None where the things found no room or the scene is of the other split."""
    if num_things is None:
        num_things = random.randint(max(1, len(kinds), len(colors)), level.max_things)
    things: list[Thing] = []
    seen_held_out = False
    attempts = 0
    while len(things) < num_things:
        attempts += 1
        if attempts > 4 * num_things:
            return None
        kind = kinds[len(things)] if len(things) < len(kinds) else None
        if kind is None and things and random.random() < _REPEATED_KIND:
            kind = random.choice(things).kind
        color = colors[len(things)] if len(things) < len(colors) else None
        thing = sample_thing(level, random, things, kind=kind, color=color)
        if thing is None:
            return None
        if brings_held_out(thing, things, level):
            if split == "train":
                continue
            seen_held_out = True
        things.append(thing)
    if split == "test" and not seen_held_out:
        return None
    random.shuffle(things)
    return Scene(background=random.choice(level.backgrounds), things=tuple(things))


def canonical_places(num_things: int, relation: str | None = None) -> tuple[str, ...]:
    """The places of things whose positions are not stated, in the order of the caption.

    Without a stated position, things stand where an illustrator would put them: one in the center; two on the left and
    the right of the middle row; three on the left, in the center and on the right; four in the corners, row by row.
    Two things related by "above" or "below" stand in the middle column.
    """
    return _RELATED_PLACES[relation] if relation else _UNSTATED_PLACES[num_things]


def canonical_scene(
    level: Level,
    random: Random,
    things: Sequence[Thing],
    background: str | None = None,
    relation: str | None = None,
) -> Scene:
    """`things` (their `x`, `y` are ignored) in the canonical layout of `canonical_places`, with the usual jitter.

    The background is the level's first where none is given.
    """
    placed = []
    for thing, place in zip(things, canonical_places(len(things), relation), strict=True):
        x, y = place_center(level, random, place, thing.size)
        placed.append(thing.model_copy(update={"x": x, "y": y}))
    return Scene(background=background or level.backgrounds[0], things=tuple(placed))
