"""Training and evaluation examples of the five jobs, as scenes and text.

Pictures appear as `Scene`s: who needs pixels renders them. Every scene of an example belongs to the split that was
asked for (`sampling`), so training and evaluation never share a picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from unimodal.world.captions import sample_caption
from unimodal.world.questions import sample_question
from unimodal.world.sampling import Split
from unimodal.world.scene import Level, Scene

TASKS = ("understand", "generate", "thinking", "edit", "interleave")


@dataclass(frozen=True)
class UnderstandExample:
    """A question about pictures. `kind` is the kind of question."""

    scenes: tuple[Scene, ...]
    question: str
    answer: str
    kind: str


@dataclass(frozen=True)
class GenerateExample:
    """A picture to draw, with the layout plan that comes before it or None. `kind` is the kind of caption."""

    prompt: str
    scene: Scene
    thinking: str | None
    kind: str


@dataclass(frozen=True)
class EditExample:
    """One or two source pictures, an instruction and the result. `kind` is the kind of edit."""

    sources: tuple[Scene, ...]
    instruction: str
    target: Scene
    kind: str


@dataclass(frozen=True)
class StoryExample:
    """An answer that interleaves sentences and pictures."""

    prompt: str
    segments: tuple[str | Scene, ...]


Example = UnderstandExample | GenerateExample | EditExample | StoryExample


def sample_example(task: str, level: Level, random: Random, split: Split = "train", difficulty: float = 1.0) -> Example:
    """One example of a task.

    Args:
        task: one of `TASKS`; `thinking` is `generate` with a layout plan.
        difficulty: in (0, 1], the share of the level's number of things that may appear: easy scenes first.

    Raises:
        ValueError: an unknown task or a difficulty out of range.
    """
    if not 0 < difficulty <= 1:
        raise ValueError(f"difficulty: got {difficulty}, allowed is above 0 and up to 1")
    max_things = math.ceil(difficulty * level.max_things)
    if task == "understand":
        scene, asked = sample_question(level, random, split, max_things=max_things)
        return UnderstandExample((scene,), asked.question, asked.answer, asked.kind)
    if task == "generate":
        caption = sample_caption(level, random, split, max_things=max_things)
        return GenerateExample(caption.prompt, caption.scene, None, caption.requirement.task)
    raise ValueError(f"task: got {task!r}, allowed is one of {', '.join(TASKS)}")
