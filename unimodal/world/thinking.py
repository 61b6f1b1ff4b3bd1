"""Layout plans: what a model writes before it draws."""

from __future__ import annotations

from unimodal.world import words
from unimodal.world.scene import Level, Scene


def layout_plan(scene: Scene, level: Level) -> str:
    """The plan of a picture: its background, then place and thing in reading order.

    As in "plan: meadow. top left: red cat. center: blue boat."
    """
    parts = [f"plan: {scene.background}."]
    parts += [f"{level.place(t)}: {words.full_noun(t, level)}." for t in words.reading_order(scene, level)]
    return " ".join(parts)
