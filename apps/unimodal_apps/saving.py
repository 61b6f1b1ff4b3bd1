"""Leaves what the pipeline answered on disk, every picture with its record, and says what was written."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unimodal.output_files import STORY_NAME, save_picture, save_story
from unimodal_apps.metadata import Input, Maker, Record
from unimodal_apps.requests import Answer, Request

if TYPE_CHECKING:
    from unimodal import Pipeline


def record_of(request: Request, maker: Maker, pipe: "Pipeline") -> Record:
    """The record of a request's first picture."""
    return Record.of_call(
        maker,
        pipe,
        request.task,  # type: ignore[arg-type]
        prompt=request.text,
        sources=[Input(**source.as_mapping()) for source in request.sources],
        mask=None if request.mask is None else Input(**request.mask.as_mapping()),
        seed=request.seed,
        count=request.count,
        arguments=dict(request.arguments),
    )


def save_drawings(answer: Answer, record: Record, paths: Sequence[Path]) -> dict[str, Any]:
    """Writes the pictures, one per path."""
    for index, (image, path) in enumerate(zip(answer.images, paths, strict=True)):
        save_picture(image, path, record.model_copy(update={"index": index}).facts())
    found: dict[str, Any] = {"images": [str(path) for path in paths]}
    return found if answer.thinking is None else found | {"thinking": answer.thinking}


def save_answer(answer: Answer, record: Record, folder: Path, shown_below: Path | None = None) -> dict[str, Any]:
    """Writes an answer of text and pictures: the pictures, then `story.md`.

    Args:
        shown_below: the folder as the result calls it.
    """
    shown = save_story(answer.segments, folder, record.prompt, record.facts())
    below = folder if shown_below is None else shown_below
    segments = [
        {"type": "text", "text": text} if isinstance(segment, str) else {"type": "image", "image": str(below / text)}
        for segment, text in zip(answer.segments, shown, strict=True)
    ]
    return {"segments": segments, "story": str(below / STORY_NAME), "finish_reason": answer.finish_reason}


def as_result(record: Record) -> dict[str, Any]:
    """The record as part of a printed result."""
    return record.model_dump(exclude={"index"}, exclude_none=True)
