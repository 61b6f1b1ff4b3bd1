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


def save_answer(answer: Answer, record: Record, folder: Path) -> dict[str, Any]:
    """Writes an answer of text and pictures: the pictures, then `story.md`."""
    shown = save_story(answer.segments, folder, record.prompt, record.facts())
    kinds = ["text" if isinstance(segment, str) else "image" for segment in answer.segments]
    places = [text if kind == "text" else str(folder / text) for kind, text in zip(kinds, shown, strict=True)]
    return {
        "segments": [{"type": kind, kind: place} for kind, place in zip(kinds, places, strict=True)],
        "story": str(folder / STORY_NAME),
        "finish_reason": answer.finish_reason,
    }


def as_result(record: Record) -> dict[str, Any]:
    """The record as part of a printed result."""
    return record.model_dump(exclude={"index"}, exclude_none=True)
