"""Pictures from users to what the image tokenizer takes: files read, sizes that the vocabulary can name.

A code stands for a square of the tokenised picture; the decoder draws pictures of twice that size, and users state
sizes of what is drawn.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

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
        sizes = [size for size in editing_sizes(settings.edit_patches, self._factor) if self._can_name_size(*size)]
        if not sizes:
            raise ValueError(f"edit_patches: no size of {settings.edit_patches} patches has tokens for its sides")
        columns, rows = closest_size(*image.size, sizes)
        scale = max(columns / image.width, rows / image.height)
        covering = max(round(image.width * scale), columns), max(round(image.height * scale), rows)
        return center_crop(image.resize(covering, Image.Resampling.LANCZOS), (columns, rows))

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
