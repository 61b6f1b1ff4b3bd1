"""What an example of each job is made of: scenes and text. Who needs pixels renders the scenes."""

from __future__ import annotations

from dataclasses import dataclass

from unimodal.world.scene import Scene


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
    """One or two source pictures, an instruction and the result, which changes the last source. `kind`: of edit."""

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
