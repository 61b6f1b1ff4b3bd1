"""What users give: pictures they upload, sizes they choose, seeds they set. Whatever cannot be used is a ValueError in
words for them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from unimodal.picture_input import DRAWN_SCALE
from unimodal_apps.fingerprints import picture_sha256
from unimodal_apps.requests import Source
from unimodal_apps.session import pick_seed

LARGEST_SEED = 2**63 - 1
RATIOS = {"Square": (1, 1), "Landscape 4:3": (4, 3), "Portrait 3:4": (3, 4), "Wide 16:9": (16, 9), "Tall 9:16": (9, 16)}
"""Width and height of the shapes on offer."""
_TOLERANCE = 1.16
"""How far a size may be from the ratio it is offered as."""


def read_uploads(gallery: Sequence[Any] | None, what: str = "picture") -> tuple[Source, ...]:
    """The pictures of a gallery.

    Raises:
        ValueError: one is no picture; the message has the file's own name and no path.
    """
    sources = []
    for entry in gallery or ():
        path = entry[0] if isinstance(entry, tuple | list) else entry
        try:
            source = Source.read(str(path), what)
        except ValueError:
            raise ValueError(
                f"“{Path(path).name}” cannot be read as a picture. PNG, JPEG, WebP and GIF files work."
            ) from None
        # Where an upload lies for a while says nothing to anybody.
        sources.append(replace(source, path=None))
    return tuple(sources)


def read_canvas(parts: Sequence[Any] | None) -> tuple[tuple[Source, ...], Source | None]:
    """The picture of an editor, none or one, and what was painted over it as a mask, white where it may change.

    Args:
        parts: the picture, then the layers that were painted, as the entries of a gallery.

    Raises:
        ValueError: the picture cannot be read.
    """
    if not parts:
        return (), None
    picture, painted = read_uploads(parts[:1]), None
    for layer, _ in parts[1:]:
        with Image.open(layer) as strokes:
            opaque = strokes.convert("RGBA").getchannel("A").point([0, *[255] * 255])
        painted = opaque if painted is None else ImageChops.lighter(painted, opaque)
    if painted is None or painted.getbbox() is None:
        return picture, None
    mask = painted.resize(picture[0].load().size, Image.Resampling.NEAREST)
    return picture, Source(None, picture_sha256(mask), mask)


def some(sources: tuple[Source, ...]) -> tuple[Source, ...]:
    """Pictures, at least one."""
    if not sources:
        raise ValueError("There is no picture yet. Upload one, or choose an example.")
    return sources


def needed(text: str | None, what: str) -> str:
    """A text that is not empty."""
    if not text or not text.strip():
        raise ValueError(f"{what} is empty. Write something, or choose an example.")
    return text.strip()


def read_seed(random: bool, seed: float | None) -> int:
    """The seed of a run: a new one, or the one that is set."""
    if random or seed is None:
        return pick_seed(None)
    if not 0 <= seed <= LARGEST_SEED or seed != int(seed):
        raise ValueError(f"The seed is {seed:g}; it must be a whole number of 0 or more.")
    return int(seed)


def sizes_on_offer(pipe: Any) -> dict[str, tuple[int, int]]:
    """Height and width in pixels of what the checkpoint can draw, by a name for people; its own size first.

    Every size has about the area of the checkpoint's own.
    """
    settings = pipe.settings.generate
    sides = list(_allowed_sides(pipe))
    found: dict[str, tuple[int, int]] = {}
    for name, (width, height) in RATIOS.items():
        ratio, area = width / height, settings.height * settings.width
        candidates = [
            (_apart(x / y, ratio) + _apart(x * y, area), y, x)
            for y in sides
            for x in sides
            if _apart(x / y, ratio) <= math.log(_TOLERANCE)
        ]
        if candidates:
            _, y, x = min(candidates)
            if (y, x) not in found.values():
                found[f"{name}, {x} × {y}"] = (y, x)
    own = (settings.height, settings.width)
    if own not in found.values():
        found = {f"{own[1]} × {own[0]}": own, **found}
    return dict(sorted(found.items(), key=lambda entry: entry[1] != own))


def _allowed_sides(pipe: Any) -> Iterable[int]:
    """Pixels of the sides that the vocabulary can name."""
    unit = DRAWN_SCALE * pipe.patch_size
    return (side * unit for side in sorted(pipe.vocab.size_ids))


def _apart(value: float, other: float) -> float:
    return abs(math.log(value / other))
