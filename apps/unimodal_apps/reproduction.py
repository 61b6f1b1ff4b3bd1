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
from unimodal_apps.requests import Request, Source, perform

LOSSLESS = (".png",)
OTHERS = {"prompt", "images", "instruction", "mask_image", "num_images_per_prompt", "generator", "callback_on_step_end"}
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
    if record.task == "chat":
        raise ValueError("task: a picture of a conversation is made by all its messages, which its file does not hold")
    if record.index >= record.count and record.task != "interleave":
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
        index=None if record.task == "interleave" else record.index,
        mask=mask,
        arguments=record.arguments,
    )
    before = pipe.settings
    try:
        pipe.settings = checked(Settings, {**before.model_dump(), **record.settings}, "settings.")
        [answer], _ = perform(pipe, [request])
    except TypeError as error:
        raise ValueError(f"arguments: this version cannot use {sorted(record.arguments)} ({error})") from error
    finally:
        pipe.settings = before
    place = record.index if record.task == "interleave" else 0
    if place >= len(answer.images):
        raise ValueError(f"the answer has {len(answer.images)} pictures now, the record is of picture {place + 1}")
    return answer.images[place]


def compare(first: Image.Image, second: Image.Image) -> str | None:
    """How two pictures differ, None if every pixel is the same."""
    if first.size != second.size:
        return f"{first.width} x {first.height} pixels then, {second.width} x {second.height} now"
    difference = np.abs(np.asarray(first.convert("RGB"), int) - np.asarray(second.convert("RGB"), int))
    changed = int(difference.any(axis=-1).sum())
    if not changed:
        return None
    return f"{changed} of {first.width * first.height} pixels differ, by {difference.max()} of 255 at most"
