"""Examples of the five jobs: `sample_example` is all that training and evaluation need from the world's language.

Every scene of an example belongs to the split that was asked for (`sampling`), so no picture is ever shared.
"""

from __future__ import annotations

import math
from random import Random

from unimodal.world.captions import sample_caption
from unimodal.world.edits import sample_edit
from unimodal.world.examples import EditExample, Example, GenerateExample, StoryExample, UnderstandExample
from unimodal.world.questions import sample_question
from unimodal.world.sampling import Split
from unimodal.world.scene import Level
from unimodal.world.stories import sample_story
from unimodal.world.thinking import layout_plan

__all__ = [
    "TASKS",
    "EditExample",
    "Example",
    "GenerateExample",
    "StoryExample",
    "UnderstandExample",
    "sample_example",
]

TASKS = ("understand", "generate", "thinking", "edit", "interleave")


def sample_example(task: str, level: Level, random: Random, split: Split = "train", difficulty: float = 1.0) -> Example:
    """One example of a task.

    Args:
        task: one of `TASKS`; `thinking` is `generate` with a layout plan.
        difficulty: in (0, 1], the share of the level's number of things that scenes are drawn with: easy scenes first.
            An edit or a story can still add one.

    Raises:
        ValueError: an unknown task or a difficulty out of range.
    """
    if not 0 < difficulty <= 1:
        raise ValueError(f"difficulty: got {difficulty}, allowed is above 0 and up to 1")
    max_things = math.ceil(difficulty * level.max_things)
    if task == "understand":
        scene, asked = sample_question(level, random, split, max_things=max_things)
        return UnderstandExample((scene,), asked.question, asked.answer, asked.kind)
    if task in ("generate", "thinking"):
        caption = sample_caption(level, random, split, max_things=max_things)
        plan = layout_plan(caption.scene, level) if task == "thinking" else None
        return GenerateExample(caption.prompt, caption.scene, plan, caption.requirement.task)
    if task == "edit":
        return sample_edit(level, random, split, max_things=max_things)
    if task == "interleave":
        return sample_story(level, random, split, max_things=max_things)
    raise ValueError(f"task: got {task!r}, allowed is one of {', '.join(TASKS)}")
