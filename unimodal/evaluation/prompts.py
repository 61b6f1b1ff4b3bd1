"""What a checkpoint is asked on held-out scenes, and whether the picture or the answer is right.

Generation follows GenEval (arXiv 2310.11513): six tasks, equally often, and the mean of their accuracies. Pictures are
judged as scenes, read back by `unimodal.world.reader`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from random import Random

from unimodal.world.captions import TASKS, Caption, Requirement, Wanted, sample_caption
from unimodal.world.edits import edit_kinds, sample_edit
from unimodal.world.examples import EditExample, UnderstandExample
from unimodal.world.questions import question_kinds, sample_question
from unimodal.world.sampling import Split, relations
from unimodal.world.scene import Level, Scene, Thing

_TRIES_FOR_A_NEW_PROMPT = 30


def sample_prompts(level: Level, samples: int, seed: int) -> list[Caption]:
    """`samples` held-out prompts, the six tasks of GenEval in turn; none twice while there are new ones."""
    random = Random(seed)
    prompts, seen = [], set()
    for index in range(samples):
        caption = sample_caption(level, random, "test", TASKS[index % len(TASKS)])
        for _ in range(_TRIES_FOR_A_NEW_PROMPT):
            if caption.requirement not in seen:
                break
            caption = sample_caption(level, random, "test", caption.requirement.task)
        seen.add(caption.requirement)
        prompts.append(caption)
    return prompts


def sample_questions(level: Level, samples: int, seed: int, split: Split = "test") -> list[UnderstandExample]:
    """`samples` held-out questions, the level's kinds in turn."""
    random, kinds, examples = Random(seed), question_kinds(level), []
    for index in range(samples):
        scene, asked = sample_question(level, random, split, kinds[index % len(kinds)])
        examples.append(UnderstandExample((scene,), asked.question, asked.answer, asked.kind))
    return examples


def sample_edits(level: Level, samples: int, seed: int) -> list[EditExample]:
    """`samples` held-out edits, the level's kinds in turn."""
    random, kinds = Random(seed), edit_kinds(level)
    return [sample_edit(level, random, "test", kinds[index % len(kinds)]) for index in range(samples)]


def satisfies(requirement: Requirement, scene: Scene, level: Level, strict: bool = False) -> bool:
    """Whether a picture that reads as `scene` shows what the caption requires.

    The plain check is GenEval's: every wanted thing is there with the stated color, `counting` has exactly as many of
    the kind, and a stated relation holds (`unimodal.world.sampling.relations`). The `strict` check adds what else the
    caption states (places, sizes, words, background) and that nothing is there that was not asked for.
    """
    for wanted in requirement.wanted if requirement.task == "counting" else ():
        if sum(thing.kind == wanted.kind for thing in scene.things) != wanted.count:
            return False
    slots = [wanted for wanted in requirement.wanted for _ in range(wanted.count)]
    if strict:
        if len(scene.things) != len(slots):
            return False
        if requirement.background not in (None, scene.background):
            return False
    return _can_fill(slots, scene.things, (), requirement.relation, level, strict)


def _can_fill(
    slots: Sequence[Wanted],
    things: Sequence[Thing],
    chosen: tuple[Thing, ...],
    relation: str | None,
    level: Level,
    strict: bool,
) -> bool:
    """Whether some choice of different things fits all slots and has the relation between the first two."""
    if len(chosen) == 2 and relation and relation not in relations(*chosen, level):
        return False
    if len(chosen) == len(slots):
        return True
    slot = slots[len(chosen)]
    return any(
        _can_fill(slots, [*things[:index], *things[index + 1 :]], (*chosen, thing), relation, level, strict)
        for index, thing in enumerate(things)
        if _is_wanted(thing, slot, level, strict)
    )


def _is_wanted(thing: Thing, wanted: Wanted, level: Level, strict: bool) -> bool:
    if thing.kind != wanted.kind or wanted.color not in (None, thing.color):
        return False
    return not strict or (
        wanted.place in (None, level.place(thing))
        and wanted.size in (None, thing.size)
        and wanted.text in (None, thing.text)
    )


def edit_success(example: EditExample, scene: Scene, level: Level) -> bool:
    """Whether the requested change holds in a picture that reads as `scene`.

    What is new or changed is there, with its kind, color, size and word, at most half a place away from where it should
    be; nothing else stands where something was changed or taken away; a background that was to change has changed.
    """
    source, target = example.sources[-1], example.target
    unmatched, missing = _compare(target.things, scene.things, level)
    changed = _difference(target.things, source.things)
    spots = [*changed, *_difference(source.things, target.things)]
    if source.background != target.background and scene.background != target.background:
        return False
    return not any(thing in changed for thing in missing) and not any(_near_any(t, spots, level) for t in unmatched)


def edit_preserved(example: EditExample, scene: Scene, level: Level) -> bool:
    """Whether all that was not to change is kept in a picture that reads as `scene`.

    Every other thing is there as before, at most half a place away; there is nothing else away from the changed spots;
    the background is kept unless it was to change. For an edit from two pictures, "before" is the second picture.
    """
    source, target = example.sources[-1], example.target
    unmatched, missing = _compare(target.things, scene.things, level)
    changed = _difference(target.things, source.things)
    spots = [*changed, *_difference(source.things, target.things)]
    if source.background == target.background and scene.background != target.background:
        return False
    return all(thing in changed for thing in missing) and all(_near_any(t, spots, level) for t in unmatched)


def _compare(wanted: Sequence[Thing], found: Sequence[Thing], level: Level) -> tuple[list[Thing], list[Thing]]:
    """What is found without being wanted, and what is wanted without being found; the nearest pairs match first."""
    pairs = sorted(
        (_distance(one, other), i, j)
        for i, one in enumerate(wanted)
        for j, other in enumerate(found)
        if _look(one) == _look(other) and _near_any(one, [other], level)
    )
    matched_wanted, matched_found = set(), set()
    for _, i, j in pairs:
        if i not in matched_wanted and j not in matched_found:
            matched_wanted.add(i)
            matched_found.add(j)
    unmatched = [thing for j, thing in enumerate(found) if j not in matched_found]
    return unmatched, [thing for i, thing in enumerate(wanted) if i not in matched_wanted]


def _look(thing: Thing) -> tuple[str | None, ...]:
    return thing.kind, thing.color, thing.size, thing.text


def _distance(first: Thing, second: Thing) -> float:
    return math.hypot(first.x - second.x, first.y - second.y)


def _near_any(thing: Thing, others: Iterable[Thing], level: Level) -> bool:
    """At most half a place (a sixth of the picture) per axis away from one of them."""
    reach = level.picture_size / 6
    return any(max(abs(thing.x - other.x), abs(thing.y - other.y)) <= reach for other in others)


def _difference(first: Sequence[Thing], second: Sequence[Thing]) -> list[Thing]:
    return list((Counter(first) - Counter(second)).elements())


def is_right_answer(answer: str, right: str) -> bool:
    """Exact match in lower case, without outer spaces."""
    return answer.strip().lower() == right.strip().lower()


def commonest_answers(level: Level, seed: int, samples: int = 4000) -> dict[str, str]:
    """The commonest answer in training, per kind of question: the guess of who never looks at the picture."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for example in sample_questions(level, samples, seed, "train"):
        counts[example.kind][example.answer] += 1
    return {kind: min(counter, key=lambda answer: (-counter[answer], answer)) for kind, counter in counts.items()}


def baseline_accuracy(examples: Iterable[UnderstandExample], answers: Mapping[str, str]) -> dict[str, float]:
    """The accuracy of always giving `commonest_answers`, per kind of question and `overall`, in [0, 1]."""
    return accuracies((one.kind, is_right_answer(answers.get(one.kind, ""), one.answer)) for one in examples)


def accuracies(results: Iterable[tuple[str, bool]]) -> dict[str, float]:
    """The share of right results per kind, in [0, 1], and over all results as `overall`."""
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for kind, right in results:
        by_kind[kind].append(right)
    everything = [right for group in by_kind.values() for right in group]
    if not everything:
        raise ValueError("results: got none, at least one is needed")
    shares = {kind: sum(group) / len(group) for kind, group in by_kind.items()}
    return {**shares, "overall": sum(everything) / len(everything)}


def mean_of_kinds(shares: Mapping[str, float]) -> float:
    """GenEval's overall score: the mean over the kinds of `accuracies`, each kind weighing the same."""
    kinds = [share for kind, share in shares.items() if kind != "overall"]
    return sum(kinds) / len(kinds)
