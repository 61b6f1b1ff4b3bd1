"""The words of the picture-book: nouns and articles, places, backgrounds, and ways to point at a thing."""

from __future__ import annotations

from collections.abc import Sequence

from unimodal.world.sampling import default_size
from unimodal.world.scene import PLACES, Level, Scene, Thing

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

PLACE_PHRASES = {
    "top left": "at the top left",
    "top": "at the top",
    "top right": "at the top right",
    "left": "on the left",
    "center": "in the center",
    "right": "on the right",
    "bottom left": "at the bottom left",
    "bottom": "at the bottom",
    "bottom right": "at the bottom right",
}

# The color of a thing whose color is not stated.
_CUSTOMARY_COLORS = {
    "car": "red",
    "boat": "blue",
    "cat": "orange",
    "fish": "orange",
    "tree": "green",
    "flower": "pink",
    "apple": "red",
    "mushroom": "red",
    "house": "brown",
    "star": "yellow",
    "ball": "blue",
    "kite": "purple",
    "bus": "yellow",
    "train": "green",
    "plane": "blue",
    "rocket": "red",
    "dog": "brown",
    "rabbit": "pink",
    "bird": "blue",
    "turtle": "green",
    "cactus": "green",
    "pear": "green",
    "cake": "pink",
    "castle": "purple",
    "heart": "red",
    "umbrella": "purple",
    "sign": "red",
}
_PLURALS = {"fish": "fish", "bus": "buses", "cactus": "cactuses"}

# (what it is called where it holds things, where the things are)
_BACKGROUND_PHRASES = {
    "paper": ("paper", "on paper"),
    "slate": ("slate", "on slate"),
    "meadow": ("a meadow", "in a meadow"),
    "beach": ("a beach", "on a beach"),
    "snow": ("snow", "in the snow"),
    "night": ("a night", "at night"),
}


def customary_color(kind: str, level: Level) -> str:
    """The color of a thing whose color is not stated; a kind without a custom takes the level's first color."""
    color = _CUSTOMARY_COLORS.get(kind)
    return color if color in level.colors else level.colors[0]


def plural(kind: str) -> str:
    return _PLURALS.get(kind, f"{kind}s")


def with_article(words: str) -> str:
    """As in "a cat", "an orange cat"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def noun(kind: str, color: str | None = None, size: str | None = None, text: str | None = None) -> str:
    """As in "red cat", "large red cat", "red sign that says stop": only what is given is said."""
    words = " ".join(word for word in (size, color, kind) if word)
    return words if text is None else f"{words} that says {text}"


def full_noun(thing: Thing, level: Level) -> str:
    """All that a thing is; the size only where it is not the usual one."""
    size = None if thing.size == default_size(level) else thing.size
    return noun(thing.kind, thing.color, size, thing.text)


def background_noun(background: str) -> str:
    """As in "a meadow"."""
    return _BACKGROUND_PHRASES.get(background, (with_article(background), ""))[0]


def background_phrase(background: str) -> str:
    """As in "in a meadow"."""
    return _BACKGROUND_PHRASES.get(background, ("", f"on {background}"))[1]


def relation_phrase(relation: str) -> str:
    """As in "to the left of", "above"."""
    return f"to the {relation}" if relation.endswith("of") else relation


def join(parts: Sequence[str]) -> str:
    """As in "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def reading_order(scene: Scene, level: Level) -> list[Thing]:
    """The things row by row and from left to right, by place, and by `y`, `x` inside one place."""
    return sorted(scene.things, key=lambda thing: (PLACES.index(level.place(thing)), thing.y, thing.x))


def description(scene: Scene, level: Level) -> str:
    """The canonical sentence that states all: background, then things in reading order with color, kind and place.

    "a meadow with a red cat at the top left and a blue boat in the center"; without things "a meadow with nothing".
    """
    parts = [
        f"{with_article(full_noun(thing, level))} {PLACE_PHRASES[level.place(thing)]}"
        for thing in reading_order(scene, level)
    ]
    return f"{background_noun(scene.background)} with {join(parts) if parts else 'nothing'}"


def references(thing: Thing, scene: Scene, level: Level, by_place: bool = True) -> list[str]:
    """The phrases that fit this thing of the scene and no other: "the cat", "the red cat", "the cat on the left"."""
    place = level.place(thing)
    same_kind = [other for other in scene.things if other is not thing and other.kind == thing.kind]
    found = []
    if not same_kind:
        found.append(f"the {thing.kind}")
    if all(other.color != thing.color for other in same_kind):
        found.append(f"the {noun(thing.kind, thing.color)}")
    if by_place and all(level.place(other) != place for other in same_kind):
        found.append(f"the {thing.kind} {PLACE_PHRASES[place]}")
    return found
