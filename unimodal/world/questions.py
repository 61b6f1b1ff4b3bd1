"""Questions about one picture, each with exactly one right answer (to be compared in lower case, without outer spaces).

Answers name a thing by color and kind ("a red car"), a number as a word ("two"), a place by its name ("top left"), and
an empty place or direction "nothing". The kinds are balanced so that the commonest answer of a kind is a poor guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from unimodal.world import words
from unimodal.world.sampling import RELATIONS, Split, leaning, relations, try_scene
from unimodal.world.scene import PLACES, Level, Scene, Thing

QUESTION_KINDS = ("what", "color", "count", "where", "exists", "relation", "background", "sign", "describe")

_NOTHING = 0.15
_UNCLEAR = (0.45, 0.53)  # about the threshold of `relations`: nobody can see whether that is still "left of"
_NOTHING_RELATED = 0.1  # of the scenes where it would be right, which are many
_ATTEMPTS = 5000
_ATTEMPTS_PER_COUNT = 60


@dataclass(frozen=True)
class Question:
    kind: str
    question: str
    answer: str


def question_kinds(level: Level) -> tuple[str, ...]:
    """The kinds of question the level can answer: signs only where they carry words."""
    return tuple(kind for kind in QUESTION_KINDS if kind != "sign" or level.words)


def sample_question(
    level: Level,
    random: Random,
    split: Split = "train",
    kind: str | None = None,
    max_things: int | None = None,
) -> tuple[Scene, Question]:
    """A scene of the split and a question about it.

    Raises:
        ValueError: the level has no such kind of question.
    """
    kinds = question_kinds(level)
    if kind is not None and kind not in kinds:
        raise ValueError(f"kind: got {kind!r}, allowed is one of {', '.join(kinds)}")
    kind = kind or random.choice(kinds)
    limit = min(max_things or level.max_things, level.max_things)
    for _ in range(_ATTEMPTS):
        if kind == "count":
            found = _balanced_count(level, random, split, limit)
        else:
            fewest = 2 if kind == "relation" and level.max_things > 1 else 1
            num_things = random.randint(fewest, max(fewest, limit))
            kinds_wanted = ("sign",) if kind == "sign" else ()
            scene = try_scene(level, random, split, num_things, kinds_wanted)
            found = None if scene is None else (scene, ask(kind, scene, level, random))
        if found is not None and found[1] is not None:
            return found[0], found[1]
    raise ValueError(f"kind: found no {split} scene for a question of kind {kind!r}")


def ask(kind: str, scene: Scene, level: Level, random: Random) -> Question | None:
    """A question of the kind about the scene, or None where the scene allows none with one right answer."""
    found = _ASKERS[kind](scene, level, random)
    return None if found is None else Question(kind, *found)


def thing_answer(thing: Thing) -> str:
    """As in "a red car"."""
    return words.with_article(words.noun(thing.kind, thing.color))


def _unique(scene: Scene) -> list[Thing]:
    kinds = [thing.kind for thing in scene.things]
    return [thing for thing in scene.things if kinds.count(thing.kind) == 1]


def _what(scene: Scene, level: Level, random: Random) -> tuple[str, str] | None:
    places = [level.place(thing) for thing in scene.things]
    if random.random() < _NOTHING:
        empty = [name for name in PLACES if not any(_reaches(thing, name, level) for thing in scene.things)]
        if not empty:
            return None
        place, answer = random.choice(empty), "nothing"
    else:
        single = [i for i, name in enumerate(places) if places.count(name) == 1]
        if not single:
            return None
        index = random.choice(single)
        place, answer = places[index], thing_answer(scene.things[index])
    forms = ("what is {}?", "what do you see {}?", "what stands {}?", "which thing is {}?", "name the thing {}.")
    return random.choice(forms).format(words.PLACE_PHRASES[place]), answer


def _reaches(thing: Thing, place: str, level: Level) -> bool:
    """Whether the thing covers, or nearly covers, the middle of the place."""
    row, column = divmod(PLACES.index(place), 3)
    third = level.picture_size / 3
    reach = (level.sizes[thing.size] + third / 2) / 2
    return max(abs(thing.x - (column + 0.5) * third), abs(thing.y - (row + 0.5) * third)) < reach


def _color(scene: Scene, level: Level, random: Random) -> tuple[str, str] | None:
    things = _unique(scene)
    if not things:
        return None
    thing = random.choice(things)
    forms = (
        "what color is the {}?",
        "what color does the {} have?",
        "which color is the {}?",
        "what is the color of the {}?",
        "tell me the color of the {}.",
    )
    return random.choice(forms).format(thing.kind), thing.color


def _count_question(random: Random, noun: str) -> str:
    forms = ("how many {} are there?", "how many {} do you see?", "how many {} are in the picture?", "count the {}.")
    return random.choice(forms).format(noun)


def _balanced_count(level: Level, random: Random, split: Split, limit: int) -> tuple[Scene, Question] | None:
    subject = random.choice(("things", "kind", "color"))
    count = random.randint(1 if subject == "things" else 0, limit)
    for _ in range(_ATTEMPTS_PER_COUNT):  # high counts are rarer among the scenes of a split: insist
        total = count if subject == "things" else random.randint(max(1, count), limit)
        kind, color = random.choice(level.kinds), random.choice(level.colors)
        kinds = (kind,) * count if subject == "kind" else ()
        scene = try_scene(level, random, split, total, kinds, (color,) * count if subject == "color" else ())
        if scene is None:
            continue
        if subject == "things":
            return scene, Question("count", _count_question(random, "things"), words.NUMBERS[count])
        found = [thing.kind == kind if subject == "kind" else thing.color == color for thing in scene.things]
        if sum(found) == count:
            noun = words.plural(kind) if subject == "kind" else f"{color} things"
            return scene, Question("count", _count_question(random, noun), words.NUMBERS[count])
    return None


def _count(scene: Scene, level: Level, random: Random) -> tuple[str, str]:
    subject = random.choice(("things", *sorted({thing.kind for thing in scene.things}), random.choice(level.kinds)))
    if subject == "things":
        return _count_question(random, "things"), words.NUMBERS[len(scene.things)]
    number = sum(thing.kind == subject for thing in scene.things)
    return _count_question(random, words.plural(subject)), words.NUMBERS[number]


def _where(scene: Scene, level: Level, random: Random) -> tuple[str, str] | None:
    things = _unique(scene)
    if not things:
        return None
    thing = random.choice(things)
    forms = ("where is the {}?", "where do you see the {}?", "in which place is the {}?", "find the {}.")
    return random.choice(forms).format(thing.kind), level.place(thing)


def _exists(scene: Scene, level: Level, random: Random) -> tuple[str, str] | None:
    there = random.random() < 0.5
    kinds = {thing.kind for thing in scene.things}
    color = None
    if random.random() < 0.5:
        if there:
            kind = random.choice(sorted(kinds)) if kinds else None
        else:
            kind = random.choice([name for name in level.kinds if name not in kinds])
    else:
        pairs = sorted({(thing.kind, thing.color) for thing in scene.things})
        kind, color = random.choice(pairs) if pairs else (None, None)
        if not there and pairs:  # near misses: the kind in another color, the color on another kind
            if random.random() < 0.5:
                color = random.choice([name for name in level.colors if (kind, name) not in pairs])
            else:
                kind = random.choice([name for name in level.kinds if (name, color) not in pairs])
    if kind is None:
        return None
    forms = ("is there {}?", "is there {} in the picture?", "do you see {}?", "can you see {}?")
    noun = words.with_article(words.noun(kind, color))
    return random.choice(forms).format(noun), "yes" if there else "no"


def _relation(scene: Scene, level: Level, random: Random) -> tuple[str, str] | None:
    things = _unique(scene)
    if not things:
        return None
    anchor, relation = random.choice(things), random.choice(RELATIONS)
    shares = [abs(share) for t in scene.things if t is not anchor for share in leaning(t, anchor, level)]
    if any(_UNCLEAR[0] < share < _UNCLEAR[1] for share in shares):
        return None
    found = [thing for thing in scene.things if thing is not anchor and relation in relations(thing, anchor, level)]
    if len(found) > 1 or (not found and random.random() > _NOTHING_RELATED):
        return None
    forms = ("what is {} the {}?", "which thing is {} the {}?", "what do you see {} the {}?")
    question = random.choice(forms).format(words.relation_phrase(relation), anchor.kind)
    return question, thing_answer(found[0]) if found else "nothing"


def _background(scene: Scene, level: Level, random: Random) -> tuple[str, str]:
    forms = (
        "what is the background?",
        "which background is it?",
        "what is behind the things?",
        "what background do you see?",
    )
    return random.choice(forms), scene.background


def _sign(scene: Scene, level: Level, random: Random) -> tuple[str, str] | None:
    signs = [thing for thing in scene.things if thing.text is not None]
    if len(signs) != 1 or signs[0].text is None:
        return None
    forms = ("what does the sign say?", "read the sign.", "what is written on the sign?", "which word is on the sign?")
    return random.choice(forms), signs[0].text


def _describe(scene: Scene, level: Level, random: Random) -> tuple[str, str]:
    forms = ("describe the picture.", "what do you see?", "describe what you see.", "tell me about the picture.")
    return random.choice(forms), words.description(scene, level)


_ASKERS = {
    "what": _what,
    "color": _color,
    "count": _count,
    "where": _where,
    "exists": _exists,
    "relation": _relation,
    "background": _background,
    "sign": _sign,
    "describe": _describe,
}
