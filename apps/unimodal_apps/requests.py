"""What is asked of the pipeline, and asking it: a single call, a line of a batch and a picture that is made again all
take this way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from PIL import Image

from unimodal.arguments import read_generators
from unimodal.diffusion.sprint import SprintOptions
from unimodal.picture_input import read_picture
from unimodal_apps.fingerprints import picture_sha256
from unimodal_apps.session import seeded

if TYPE_CHECKING:
    import torch

    from unimodal import Pipeline, Stats


@dataclass(frozen=True)
class Source:
    """A picture that goes in.

    Args:
        path: its file, None if it came another way.
        image: the picture, None where it is read from its file when it is needed.
    """

    path: str | None
    sha256: str
    image: Image.Image | None = None

    @classmethod
    def read(cls, path: str, name: str, *, keep: bool = True) -> "Source":
        """Reads a file; without `keep` only to see that it can be read.

        Raises:
            ValueError: no such file, or no picture; the message calls the argument `name`.
        """
        image = read_picture(path, name)
        return cls(path, picture_sha256(image), image if keep else None)

    def load(self) -> Image.Image:
        if self.image is not None:
            return self.image
        assert self.path is not None
        return read_picture(self.path)

    def as_mapping(self) -> dict[str, str]:
        return {"sha256": self.sha256} if self.path is None else {"path": self.path, "sha256": self.sha256}


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of a verb.

    Args:
        text: prompt, instruction, question, or text with gaps.
        seed: of the generator of this call alone.
        count: pictures to draw from the same text, each with a generator of its own, seeded by that of the call.
        index: draw only this one of them, from 0.
        mask: what may change of the first picture.
        arguments: whatever else the pipeline's method takes.
    """

    task: str
    text: str
    seed: int
    sources: tuple[Source, ...] = ()
    count: int = 1
    index: int | None = None
    mask: Source | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def generators(self) -> list["torch.Generator"]:
        each = read_generators(seeded(self.seed), self.count)
        return each if self.index is None else [each[self.index]]

    def images(self) -> list[Image.Image]:
        return [source.load() for source in self.sources]


@dataclass(kw_only=True)
class Answer:
    """What came of a request.

    Args:
        segments: texts and pictures in order: an answer, drawings, or a story.
        thinking: the thoughts before each picture.
        gaps: what was written into each gap.
    """

    segments: list[str | Image.Image]
    thinking: list[str] | None = None
    gaps: list[str] | None = None
    finish_reason: str | None = None

    @property
    def images(self) -> list[Image.Image]:
        return [segment for segment in self.segments if isinstance(segment, Image.Image)]

    @property
    def text(self) -> str:
        return "\n".join(segment for segment in self.segments if isinstance(segment, str))


def perform(pipe: "Pipeline", requests: Sequence[Request]) -> tuple[list[Answer], "Stats"]:
    """The answers to requests that go through the pipeline together.

    Args:
        requests: of one task, count and arguments; stories one at a time.

    Raises:
        ValueError: an argument that cannot be used; the message names it.
    """
    first = requests[0]
    arguments = as_called(first.arguments)
    texts = [request.text for request in requests]
    groups = [request.images() for request in requests]
    generators = [generator for request in requests for generator in request.generators()]
    each = len(generators) // len(requests)
    if first.task == "interleave":
        [generator] = generators
        told = pipe.interleave(first.text, groups[0], generator=generator, **arguments)
        return [Answer(segments=told.segments, finish_reason=told.finish_reason)], told.stats
    if first.task == "understand":
        found = pipe.understand(groups, texts, generator=generators, **arguments)
        return [Answer(segments=[text]) for text in found.texts], found.stats
    if first.task == "infill":
        filled = _infill(pipe, texts, groups, generators, arguments)
        return [Answer(segments=[text], gaps=gaps) for text, gaps in zip(*filled[:2], strict=True)], filled[2]
    if first.task == "generate":
        drawn = pipe.generate(texts, num_images_per_prompt=each, generator=generators, **arguments)
        thoughts = drawn.thinking
    else:
        masks = [None if request.mask is None else request.mask.load() for request in requests]
        masking: dict[str, Any] = {"mask_image": masks} if any(mask is not None for mask in masks) else {}
        drawn = pipe.edit(groups, texts, num_images_per_prompt=each, generator=generators, **masking, **arguments)
        thoughts = None
    places = [slice(start, start + each) for start in range(0, len(generators), each)]
    answers = [
        Answer(segments=[*drawn.images[place]], thinking=None if thoughts is None else thoughts[place])
        for place in places
    ]
    return answers, drawn.stats


def as_called(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as the pipeline takes them, of which a record can only hold what JSON can: `sprint` is an object there.

    Raises:
        ValueError: an option of SPRINT that there is not, or out of its range.
    """
    given = dict(arguments)
    if isinstance(sprint := given.get("sprint"), Mapping):
        try:
            given["sprint"] = SprintOptions(**sprint)
        except TypeError:
            allowed = ", ".join(option.name for option in fields(SprintOptions))
            raise ValueError(f"sprint: got {dict(sprint)}, allowed are {allowed}") from None
    return given


def _infill(
    pipe: "Pipeline",
    texts: Sequence[str],
    groups: Sequence[Sequence[Image.Image]],
    generators: Sequence["torch.Generator"],
    arguments: Mapping[str, Any],
) -> tuple[list[str], list[list[str]], "Stats"]:
    others = dict(arguments)
    if any(groups):
        # Pictures come with a list of prompts.
        prompt = others.pop("prompt", None)
        others |= {"images": groups, "prompt": None if prompt is None else [prompt] * len(texts)}
    filled = pipe.infill(texts, generator=generators, **others)
    return filled.texts, filled.fillings, filled.stats
