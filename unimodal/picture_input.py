"""Pictures from users to what the image tokenizer takes: files read, sizes that the vocabulary can name.

A code stands for a square of the tokenised picture; the decoder draws pictures of twice that size, and users state
sizes of what is drawn.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from unimodal.settings import ImageSettings
from unimodal_tokenizers.images import (
    center_crop,
    closest_size,
    editing_sizes,
    fit_for_editing,
    fit_for_understanding,
    to_rgb,
)

DRAWN_SCALE = 2

Picture = Image.Image | str | Path


def read_picture(source: Any, name: str = "images") -> Image.Image:
    """A picture itself, or that in a file.

    Raises:
        ValueError: no such file, not a picture, or something else altogether; the message calls the argument `name`.
    """
    if isinstance(source, Image.Image):
        return source
    if not isinstance(source, str | Path):
        raise ValueError(f"{name}: got {type(source).__name__}, it must be a PIL image or the path of a picture file")
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"{name}: there is no file {str(path)!r}")
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: {str(path)!r} is not a picture that can be read ({error})") from error


def read_pictures(sources: Any, name: str = "images") -> list[Image.Image]:
    """One picture or a sequence of them, as a list."""
    if isinstance(sources, Sequence) and not isinstance(sources, str):
        return [read_picture(source, name) for source in sources]
    return [read_picture(sources, name)]


@dataclass(frozen=True, kw_only=True)
class EditingFrame:
    """Where the codes of a picture that is edited lie in it: it is scaled, and then a part of it is cut out.

    Args:
        scale: horizontally and vertically.
        offset: left and upper border of the part, in scaled pixels.
        size: width and height of the part, in scaled pixels.
        patch_size: scaled pixels per code along each side.
    """

    scale: tuple[float, float]
    offset: tuple[int, int]
    size: tuple[int, int]
    patch_size: int

    def columns(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The first pixel of a picture of `width` that each column of codes touches, and the one after the last."""
        return self._spans(0, width)

    def rows(self, height: int) -> tuple[np.ndarray, np.ndarray]:
        """The same for rows."""
        return self._spans(1, height)

    def _spans(self, axis: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        borders = np.arange(0, self.size[axis] + 1, self.patch_size) + self.offset[axis]
        # Rounded, so that a border between two pixels is not taken for one inside the next.
        places = (borders / self.scale[axis]).round(6)
        first, last = np.floor(places[:-1]).astype(int), np.ceil(places[1:]).astype(int)
        return first.clip(0, length), last.clip(0, length)

    def inside(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, upper, right and lower border of the pixels that lie wholly in the part."""
        (left, right), (upper, lower) = (self._whole(axis, length) for axis, length in enumerate((width, height)))
        return left, upper, right, lower

    def _whole(self, axis: int, length: int) -> tuple[int, int]:
        first = round(self.offset[axis] / self.scale[axis], 6)
        last = round((self.offset[axis] + self.size[axis]) / self.scale[axis], 6)
        return math.ceil(first), min(math.floor(last), length)

    def on_drawn(self, box: tuple[int, int, int, int], drawn: tuple[int, int]) -> tuple[float, float, float, float]:
        """The same box on the picture of `drawn` width and height that was made from the codes."""
        left, upper, right, lower = (
            min(max((place * self.scale[axis] - self.offset[axis]) / self.size[axis], 0.0), 1.0) * drawn[axis]
            for place, axis in zip(box, (0, 1, 0, 1), strict=True)
        )
        return left, upper, right, lower


class PictureSizes:
    """Sizes of one checkpoint.

    Args:
        patch_size: pixels per code along each side of the tokenised picture.
        sides: the numbers of codes that the vocabulary can name.
    """

    def __init__(self, settings: ImageSettings, patch_size: int, sides: Iterable[int]):
        self._settings = settings
        self._patch_size = patch_size
        self._sides = sorted(sides)
        self._factor = settings.grid_multiple * patch_size

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) in codes of a drawn picture of `height` × `width` pixels.

        Raises:
            ValueError: a side that is not on the grid, or whose number of codes has no token.
        """
        return self._side("height", height), self._side("width", width)

    def _side(self, name: str, pixels: int) -> int:
        unit = DRAWN_SCALE * self._patch_size
        allowed = [side * unit for side in self._sides]
        if isinstance(pixels, bool) or pixels not in allowed:
            raise ValueError(f"{name}: got {pixels!r}, allowed are {_runs(allowed)} pixels")
        return pixels // unit

    def for_understanding(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """Resized, so that several pictures together stay affordable. A picture too long for the vocabulary gets
        borders.
        """
        settings = self._settings
        most = settings.understand_max_pixels if len(images) == 1 else settings.understand_max_pixels_each
        return [
            self._nameable(
                image,
                lambda picture: fit_for_understanding(
                    picture, factor=self._factor, min_pixels=settings.understand_min_pixels, max_pixels=most
                ),
            )
            for image in images
        ]

    def for_editing(self, image: Image.Image) -> Image.Image:
        """In the nearest of the sizes for editing that the vocabulary can name.

        Raises:
            ValueError: the vocabulary can name none of them.
        """
        settings = self._settings
        image = to_rgb(image)
        fitted = fit_for_editing(image, num_patches=settings.edit_patches, factor=self._factor, rule=settings.edit_rule)
        if self._can_name(fitted):
            return fitted
        size = self._closest_nameable(image)
        return center_crop(image.resize(_covering(image.size, size), Image.Resampling.LANCZOS), size)

    def editing_frame(self, image: Image.Image) -> EditingFrame:
        """Where in an upright picture the codes lie that `for_editing` leads to.

        Raises:
            ValueError: as `for_editing`.
        """
        settings = self._settings
        size = closest_size(*image.size, editing_sizes(settings.edit_patches, self._factor))
        covers = settings.edit_rule == "cover"
        if not self._can_name_size(*size):
            size, covers = self._closest_nameable(image), True
        scaled = _covering(image.size, size) if covers else image.size
        return EditingFrame(
            scale=(scaled[0] / image.width, scaled[1] / image.height),
            offset=(max((scaled[0] - size[0]) // 2, 0), max((scaled[1] - size[1]) // 2, 0)),
            size=size,
            patch_size=self._patch_size,
        )

    def _closest_nameable(self, image: Image.Image) -> tuple[int, int]:
        patches = self._settings.edit_patches
        sizes = [size for size in editing_sizes(patches, self._factor) if self._can_name_size(*size)]
        if not sizes:
            raise ValueError(f"edit_patches: no size of {patches} patches has tokens for its sides")
        return closest_size(*image.size, sizes)

    def _nameable(self, image: Image.Image, fit: Callable[[Image.Image], Image.Image]) -> Image.Image:
        fitted = fit(image)
        if self._can_name(fitted):
            return fitted
        image = to_rgb(image)
        side = max(image.size)
        square = Image.new("RGB", (side, side), "white")
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return fit(square)

    def _can_name(self, image: Image.Image) -> bool:
        return self._can_name_size(*image.size)

    def _can_name_size(self, width: int, height: int) -> bool:
        return width // self._patch_size in self._sides and height // self._patch_size in self._sides


def _covering(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """A (width, height) of the proportions of `size` that covers the target."""
    scale = max(target[0] / size[0], target[1] / size[1])
    return max(round(size[0] * scale), target[0]), max(round(size[1] * scale), target[1])


def _runs(numbers: Sequence[int]) -> str:
    """Ascending numbers in words: 256, 320 to 1088 in steps of 64, ..."""
    words, first = [], 0
    while first < len(numbers):
        last = first
        while last + 1 < len(numbers) and numbers[last + 1] - numbers[last] == numbers[first + 1] - numbers[first]:
            last += 1
        if last - first < 2:
            words.append(str(numbers[first]))
            first += 1
        else:
            words.append(f"{numbers[first]} to {numbers[last]} in steps of {numbers[first + 1] - numbers[first]}")
            first = last + 1
    return ", ".join(words)
