"""Picture stories: short sentences with a picture after each; one thing changes from picture to picture."""

from __future__ import annotations

from random import Random

from unimodal.world import words
from unimodal.world.edits import Change, change_scene
from unimodal.world.examples import StoryExample
from unimodal.world.sampling import Split, belongs, try_scene
from unimodal.world.scene import Level, Scene, Thing

_CHANGES = ("add", "add", "remove", "recolor", "move", "background")
_FRAMES = (2, 3)
_OPENINGS = ("tell a story about {}", "a picture story about {}", "tell me about {}", "make a story of {}")
_FORMS = {
    "add": ("{new} comes to the {place}.", "{new} appears {where}."),
    "remove": ("{subject} goes away.", "{subject} leaves."),
    "recolor": ("{subject} turns {color}.", "{subject} becomes {color}."),
    "move": ("{subject} goes to the {place}.", "{subject} moves to the {place}."),
    "background": ("the {old} turns into {background}.", "now the background is {background}."),
}
_ATTEMPTS = 5000


def sample_story(
    level: Level,
    random: Random,
    split: Split = "train",
    num_frames: int | None = None,
    max_things: int | None = None,
) -> StoryExample:
    """A story of `num_frames` pictures, 2 or 3 where None; every picture belongs to `split`.

    The prompt names the things that take part and the number of pictures; the segments are sentence, picture, sentence,
    picture and so on. Each sentence states the change, so that its picture is determined by what came before.
    """
    count = num_frames or random.choice(_FRAMES)
    limit = min(max_things or level.max_things, level.max_things)
    for _ in range(_ATTEMPTS):
        story = _story(level, random, split, count, limit)
        if story is not None:
            return story
    raise ValueError(f"num_frames: found no {split} story of {count} pictures")


def _story(level: Level, random: Random, split: Split, num_frames: int, limit: int) -> StoryExample | None:
    scene = try_scene(level, random, split, random.randint(1, min(2, limit)))
    if scene is None:
        return None
    cast = words.reading_order(scene, level)
    segments: list[str | Scene] = [_opening(scene, level, random), scene]
    for _ in range(num_frames - 1):
        change = change_scene(random.choice(_CHANGES), scene, level, random)
        if change is None or not change.target.things or not belongs(change.target, level, split):
            return None
        sentence = _sentence(change, level, random)
        if sentence is None:
            return None
        if change.kind == "add" and change.after is not None:
            cast.append(change.after)
        scene = change.target
        segments += [sentence, scene]
    return StoryExample(_prompt(cast, num_frames, level, random), tuple(segments))


def _prompt(cast: list[Thing], num_frames: int, level: Level, random: Random) -> str:
    names = list(dict.fromkeys(words.with_article(words.full_noun(thing, level)) for thing in cast))
    return f"{random.choice(_OPENINGS).format(words.join(names))} in {words.NUMBERS[num_frames]} pictures."


def _opening(scene: Scene, level: Level, random: Random) -> str:
    parts = [
        f"{words.with_article(words.full_noun(thing, level))} {words.PLACE_PHRASES[level.place(thing)]}"
        for thing in words.reading_order(scene, level)
    ]
    form = random.choice(
        ("{where} there is {things}.", "{where} you see {things}.", "once {where} there was {things}.")
    )
    return form.format(where=words.background_phrase(scene.background), things=words.join(parts))


def _sentence(change: Change, level: Level, random: Random) -> str | None:
    before, after = change.before, change.after
    known = words.references(before, change.source, level) if before else [""]
    if not known:
        return None
    return random.choice(_FORMS[change.kind]).format(
        subject=random.choice(known),
        new=words.with_article(words.full_noun(after, level)) if after else "",
        color=after.color if after else "",
        place=level.place(after) if after else "",
        where=words.PLACE_PHRASES[level.place(after)] if after else "",
        old=change.source.background,
        background=change.target.background,
    )
