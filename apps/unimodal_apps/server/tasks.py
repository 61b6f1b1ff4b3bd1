"""What the engine runs: requests as tasks, and tasks of one kind and one set of options as one pipeline call."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from PIL import Image

from unimodal import Pipeline, Stats
from unimodal.arguments import read_generators
from unimodal.progress import StepCallback
from unimodal_apps.server.decoding import RequestDecoder

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Call:
    """A pipeline call.

    Args:
        decoder: that of the pipeline.
        wanted: whether somebody still waits for the answer of a task, by its place in the call.
        watch: the `callback_on_step_end` of the pipeline, which drops whom nobody waits for any more.
        emit: hands a piece of an answer to whom waits for it: which task of the call it is for, and the piece.
    """

    pipe: Pipeline
    decoder: RequestDecoder
    wanted: Callable[[int], bool]
    watch: StepCallback
    emit: Callable[[int, Any], None]

    def generators(self, tasks: Sequence[Task]) -> list[torch.Generator]:
        """Those of all samples of the call; the pixel decoder learns whose they are."""
        sources = [task.generators() for task in tasks]
        self.decoder.tell_apart(sources, self.wanted)
        return [source for group in sources for source in group]


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """One request.

    Args:
        seed: of its own generator, so that its answer does not depend on its neighbours.
        options: arguments of the pipeline that all tasks of a call share.
    """

    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)

    kind = ""

    @property
    def samples(self) -> int:
        """How many samples it adds to a batch."""
        return 1

    @property
    def key(self) -> Hashable:
        """Tasks with the same key can share a call."""
        return self.kind, tuple(sorted(self.options.items()))

    @classmethod
    @abstractmethod
    def together(cls, call: Call, tasks: Sequence[Any]) -> tuple[list[Any], Stats]:
        """The answers of tasks with the same key, in order, and what they cost."""

    def generators(self) -> list[torch.Generator]:
        """On the CPU, so that a seed means the same on every device; as the pipeline would seed its samples."""
        return read_generators(torch.Generator().manual_seed(self.seed), self.samples)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Drawn pictures in order, and what the model thought before each if it was asked to."""

    images: list[Image.Image]
    thinking: list[str] | None


@dataclass(frozen=True, kw_only=True)
class Generate(Task):
    prompt: str
    count: int = 1

    kind = "generate"

    @property
    def samples(self) -> int:
        return self.count

    @classmethod
    def together(cls, call: Call, tasks: Sequence[Generate]) -> tuple[list[Any], Stats]:
        drawn = call.pipe.generate(
            [task.prompt for task in tasks for _ in range(task.count)],
            generator=call.generators(tasks),
            callback_on_step_end=call.watch,
            **tasks[0].options,
        )
        thoughts = drawn.thinking
        return [
            Pictures(
                images=[drawn.images[place] for place in part],
                thinking=None if thoughts is None else [thoughts[place] for place in part],
            )
            for part in shares(tasks, range(len(drawn.images)), drawn.dropped)
        ], drawn.stats


@dataclass(frozen=True, kw_only=True)
class Edit(Task):
    """Args: mask: white where the first picture may change, None for everywhere."""

    pictures: Sequence[Image.Image]
    instruction: str
    mask: Image.Image | None = None
    count: int = 1

    kind = "edit"

    @property
    def samples(self) -> int:
        return self.count

    @property
    def key(self) -> Hashable:
        # The pictures of a request are encoded once for all its results.
        return *super().key, self.count  # type: ignore[misc]

    @classmethod
    def together(cls, call: Call, tasks: Sequence[Edit]) -> tuple[list[Any], Stats]:
        edited = call.pipe.edit(
            [task.pictures for task in tasks],
            [task.instruction for task in tasks],
            mask_image=[task.mask for task in tasks],
            num_images_per_prompt=tasks[0].count,
            generator=call.generators(tasks),
            callback_on_step_end=call.watch,
            **tasks[0].options,
        )
        images = shares(tasks, edited.images, edited.dropped)
        return [Pictures(images=own, thinking=None) for own in images], edited.stats


def places_of(tasks: Sequence[Task]) -> list[range]:
    """Where the samples of each task are among those of all."""
    ends = itertools.accumulate(task.samples for task in tasks)
    return [range(end - task.samples, end) for task, end in zip(tasks, ends, strict=True)]


def shares(tasks: Sequence[Task], values: Iterable[Value], dropped: Container[int]) -> list[list[Value]]:
    """What each task gets of values for all samples that were not dropped."""
    left = iter(values)
    return [[next(left) for place in part if place not in dropped] for part in places_of(tasks)]
