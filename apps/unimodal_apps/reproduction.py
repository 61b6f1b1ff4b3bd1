"""The picture of a record, made again."""

from collections.abc import Sequence
from inspect import signature
from pathlib import Path

import numpy as np
from PIL import Image

from unimodal import Pipeline
from unimodal.picture_input import read_picture
from unimodal.settings import Settings, checked
from unimodal_apps.fingerprints import picture_sha256
from unimodal_apps.metadata import Input, Record
from unimodal_apps.recorded_messages import recall_messages
from unimodal_apps.requests import Request, Source, as_called, perform
from unimodal_apps.session import seeded

LOSSLESS = (".png",)
ANSWERS = ("interleave", "chat")
"""Tasks whose pictures come one after the other in one answer."""
OTHERS = {
    *("prompt", "images", "instruction", "messages", "modalities", "mask_image", "num_images_per_prompt"),
    *("generator", "callback_on_step_end"),
}
"""Arguments of the pipeline that a record states in fields of their own, or not at all."""


def find_sources(record: Record, beside: str | Path, replacements: Sequence[str] = ()) -> tuple[Source, ...]:
    """The pictures that went in, looked for where they were and in the folder `beside`.

    Args:
        replacements: files to take instead, in order.

    Raises:
        ValueError: one is missing, or is not the picture that it was.
    """
    if len(replacements) > len(record.sources):
        raise ValueError(
            f"--image: got {len(replacements)} pictures, the record names {len(record.sources)} that went in"
        )
    return tuple(
        _find(
            f"picture {place}",
            "--image",
            source,
            Path(beside),
            replacements[place - 1] if place <= len(replacements) else None,
        )
        for place, source in enumerate(record.sources, start=1)
    )


def _find(name: str, option: str, source: Input, beside: Path, replacement: str | None) -> Source:
    if replacement is not None:
        places = [Path(replacement)]
    elif source.path is None:
        raise ValueError(f"{name} that went in had no file; give it with {option}")
    else:
        places = [Path(source.path), beside / source.path, beside / Path(source.path).name]
    found = [path for path in places if path.is_file()]
    if not found:
        raise ValueError(f"{name} that went in is missing: there is no file {str(places[0])!r}; use {option}")
    for path in found:
        image = read_picture(path, option)
        if picture_sha256(image) == source.sha256:
            return Source(str(path), source.sha256, image)
    raise ValueError(f"{name} that went in has changed: {str(found[0])!r} is another one; give the first with {option}")


def find_mask(record: Record, beside: str | Path, replacement: str | None = None) -> Source | None:
    """The mask, looked for as the pictures are.

    Raises:
        ValueError: it is missing, is not what it was, or there was none.
    """
    if record.mask is None:
        if replacement is not None:
            raise ValueError("--mask: the record names no mask")
        return None
    return _find("the mask", "--mask", record.mask, Path(beside), replacement)


def redraw(pipe: Pipeline, record: Record, sources: Sequence[Source], mask: Source | None = None) -> Image.Image:
    """The picture again, with the settings that were in force; those of `pipe` are as before afterwards.

    Raises:
        ValueError: the record states what this version does not know, or the answer has fewer pictures now.
    """
    in_answer = record.task in ANSWERS
    if record.task == "chat" and not record.messages:
        raise ValueError("messages: a picture of a conversation is made by all of them, and its file does not hold any")
    if record.index >= record.count and not in_answer:
        raise ValueError(f"index: got {record.index} of {record.count} pictures")
    known = [name for name in signature(getattr(pipe, record.task)).parameters if name not in OTHERS]
    if unknown := sorted(set(record.arguments) - set(known)):
        raise ValueError(f"arguments: there is no {unknown[0]!r}, allowed are {', '.join(known)}")
    request = Request(
        task=record.task,
        text=record.prompt,
        seed=record.seed,
        sources=tuple(sources),
        count=record.count,
        index=None if in_answer else record.index,
        mask=mask,
        arguments=record.arguments,
    )
    before = pipe.settings
    try:
        pipe.settings = checked(Settings, {**before.model_dump(), **record.settings}, "settings.")
        images = _talked(pipe, record, sources) if record.task == "chat" else perform(pipe, [request])[0][0].images
    except TypeError as error:
        raise ValueError(f"arguments: this version cannot use {sorted(record.arguments)} ({error})") from error
    finally:
        pipe.settings = before
    place = record.index if in_answer else 0
    if place >= len(images):
        raise ValueError(f"the answer has {len(images)} pictures now, the record is of picture {place + 1}")
    return images[place]


def _talked(pipe: Pipeline, record: Record, sources: Sequence[Source]) -> list[Image.Image]:
    """The pictures of an answer in a conversation."""
    answer = pipe.chat(
        recall_messages(record.messages, sources),
        modalities=("text", "image"),
        generator=seeded(record.seed),
        **as_called(record.arguments),
    )
    return answer.images


def compare(first: Image.Image, second: Image.Image) -> str | None:
    """How two pictures differ, None if every pixel is the same."""
    if first.size != second.size:
        return f"{first.width} x {first.height} pixels then, {second.width} x {second.height} now"
    difference = np.abs(np.asarray(first.convert("RGB"), int) - np.asarray(second.convert("RGB"), int))
    changed = int(difference.any(axis=-1).sum())
    if not changed:
        return None
    return f"{changed} of {first.width * first.height} pixels differ, by {difference.max()} of 255 at most"
