"""Picture geometry: PIL pictures to pixels [B, 3, Y, X] in [-1, 1] and back, and the two ways to fit a grid.

Understanding keeps the whole picture near its own size; editing fits one of a few sizes of nearly equal area. Both are
the rules of the published LLaDA2.0-Uni scripts (arXiv 2604.20796). `factor` is the number of pixels both sides must
divide by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

ONE_PICTURE_PIXELS = (128**2, 800**2)
"""Fewest and most pixels of a picture that is understood alone."""
SEVERAL_PICTURES_PIXELS = (128**2, 448**2)
"""The same for each of several pictures."""
MAX_SIDE_RATIO = 4.0
"""Longest to shortest side among the sizes for editing."""

Size = tuple[int, int]


def to_rgb(image: Image.Image) -> Image.Image:
    """An upright RGB picture: EXIF orientation applied, transparency laid on white, 16-bit greys brought to 8."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        # Pillow clips 16-bit greys instead of scaling them.
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def to_pixels(images: Sequence[Image.Image]) -> Tensor:
    """RGB pictures of one size to float32 [B, 3, Y, X] in [-1, 1].

    Raises:
        ValueError: no picture, or several sizes.
    """
    sizes = {image.size for image in images}
    if len(sizes) != 1:
        raise ValueError(f"images: expected at least one picture, all of one size, got sizes {sorted(sizes)}")
    arrays = np.stack([np.asarray(to_rgb(image)) for image in images])
    # A product with 1/255, as the published preprocessor has it: a quotient differs in the last bit.
    return (torch.from_numpy(arrays).permute(0, 3, 1, 2).float() * (1 / 255) - 0.5) / 0.5


def to_images(pixels: Tensor) -> list[Image.Image]:
    """Pixels [B, 3, Y, X] in [-1, 1] (clamped) to 8-bit pictures, by truncation as the published decoder does.

    Raises:
        ValueError: not [B, 3, Y, X].
    """
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ValueError(f"pixels: {list(pixels.shape)}, expected [B, 3, Y, X]")
    levels = ((pixels.detach().float() + 1) / 2).clamp(0, 1) * 255
    return [Image.fromarray(array) for array in levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()]


def understanding_size(height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int) -> Size:
    """(height, width) that a picture is resized to before it is understood.

    Sides are multiples of `factor` and keep the ratio nearly; the area lies in [min_pixels, max_pixels] unless a side
    would fall under `factor`.

    Raises:
        ValueError: a side or a limit below 1, or the limits in the wrong order.
    """
    _positive(height=height, width=width, factor=factor, min_pixels=min_pixels)
    if max_pixels < min_pixels:
        raise ValueError(f"max_pixels: {max_pixels} is below min_pixels {min_pixels}")
    rows = max(round(height / factor) * factor, factor)
    columns = max(round(width / factor) * factor, factor)
    scale = 1.0
    if rows * columns > max_pixels:
        scale = math.sqrt(max_pixels / (height * width))
        rows = max(math.floor(height * scale / factor) * factor, factor)
        columns = max(math.floor(width * scale / factor) * factor, factor)
    elif rows * columns < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * scale / factor) * factor
        columns = math.ceil(width * scale / factor) * factor
    return rows, columns


def fit_for_understanding(image: Image.Image, *, factor: int, min_pixels: int, max_pixels: int) -> Image.Image:
    """The picture resized (bicubic) to cover its `understanding_size` and centre-cropped to multiples of `factor`."""
    image = to_rgb(image)
    width, height = image.size
    rows, columns = understanding_size(height, width, factor=factor, min_pixels=min_pixels, max_pixels=max_pixels)
    scale = max(rows / height, columns / width)
    resized_rows, resized_columns = round(height * scale), round(width * scale)
    image = image.resize((resized_columns, resized_rows), Image.Resampling.BICUBIC)
    # Rounding may leave more than the target on one axis; whole multiples of the factor are kept.
    rows = max(resized_rows // factor * factor, rows)
    columns = max(resized_columns // factor * factor, columns)
    return center_crop(image, (columns, rows))


def editing_sizes(num_patches: int, factor: int, max_side_ratio: float = MAX_SIDE_RATIO) -> list[Size]:
    """(width, height) in pixels of the grids of at most `num_patches` squares of `factor` pixels, widest first."""
    _positive(num_patches=num_patches, factor=factor)
    sizes = []
    columns, rows = num_patches, 1
    while columns > 0:
        if max(columns, rows) / min(columns, rows) <= max_side_ratio:
            sizes.append((columns * factor, rows * factor))
        if (rows + 1) * columns <= num_patches:
            rows += 1
        else:
            columns -= 1
    return sizes


def closest_size(width: int, height: int, sizes: Sequence[Size]) -> Size:
    """The (width, height) whose ratio is nearest to the picture's; of equals the larger tuple."""
    _positive(width=width, height=height)
    if not sizes:
        raise ValueError("sizes: empty, expected at least one (width, height)")

    def likeness(size: Size) -> tuple[float, Size]:
        scales = size[0] / width, size[1] / height
        return min(scales) / max(scales), size

    return max(sizes, key=likeness)


def fit_for_editing(
    image: Image.Image, *, num_patches: int, factor: int, rule: Literal["cover", "crop"] = "cover"
) -> Image.Image:
    """The picture in the closest of `editing_sizes(num_patches, factor)`.

    `cover` scales it (Lanczos) until it covers the size and then crops the centre. `crop` is the first published rule:
    the centre is cut out without scaling, and a smaller picture is black on the right and below.

    Raises:
        ValueError: an unknown rule, or a count below 1.
    """
    image = to_rgb(image)
    columns, rows = size = closest_size(image.width, image.height, editing_sizes(num_patches, factor))
    if rule == "cover":
        scale = max(columns / image.width, rows / image.height)
        covering = max(round(image.width * scale), columns), max(round(image.height * scale), rows)
        image = image.resize(covering, Image.Resampling.LANCZOS)
    elif rule != "crop":
        raise ValueError(f"rule: {rule!r}, expected 'cover' or 'crop'")
    return center_crop(image, size)


def center_crop(image: Image.Image, size: Size) -> Image.Image:
    """The centre of `image`, (width, height); what lies beyond its right and lower border is black."""
    columns, rows = size
    left, top = max((image.width - columns) // 2, 0), max((image.height - rows) // 2, 0)
    return image.crop((left, top, left + columns, top + rows))


def _positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name}: {value}, expected at least 1")
