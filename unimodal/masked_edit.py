"""Edits that stay inside a mask: which codes may change, and the drawn picture pasted back into the one it came from.

A picture is scaled and cropped before it is tokenised, so a mask is carried over to the grid of codes, and what is
drawn is carried back to the pixels. A code may change if the mask touches its square; a pixel may change if the mask
covers it or lies within the feather.

Legend: Y, X pixels of the picture as it was given; H, W codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from unimodal.picture_input import EditingFrame, PictureSizes, read_picture
from unimodal_tokenizers.images import to_rgb

STANDARD_FEATHER = 8
HALF = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class EditMask:
    """What may change of one picture.

    Args:
        source: the picture, RGB.
        allowed: where pixels may change, bool [Y, X].
        frame: the part of the picture that becomes codes.
        feather: pixels around the mask over which what is drawn fades out.
    """

    source: Image.Image
    allowed: np.ndarray
    frame: EditingFrame
    feather: int

    def cells(self) -> Tensor:
        """Which codes may change, bool [H, W]: those in whose square a pixel may."""
        # Sums over rectangles from sums over all rectangles that begin in the corner.
        sums = np.pad(self.allowed.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        height, width = self.allowed.shape
        first_row, last_row = self.frame.rows(height)
        first_column, last_column = self.frame.columns(width)
        counts = (
            sums[last_row[:, None], last_column]
            - sums[first_row[:, None], last_column]
            - sums[last_row[:, None], first_column]
            + sums[first_row[:, None], first_column]
        )
        return torch.from_numpy(counts > 0)

    def given(self, codes: Tensor) -> Tensor:
        """The codes [H, W] of the picture, -1 where one may change."""
        return codes.masked_fill(self.cells(), -1)

    def paste(self, drawn: Image.Image) -> Image.Image:
        """The picture with what was drawn in the mask; beyond the feather all pixels are those of the picture."""
        box = self.frame.inside(*self.source.size)
        size = box[2] - box[0], box[3] - box[1]
        patch = drawn.resize(size, Image.Resampling.LANCZOS, box=self.frame.on_drawn(box, drawn.size))
        result = self.source.copy()
        result.paste(patch, box[:2], self._opacity().crop(box))
        return result

    def _opacity(self) -> Image.Image:
        """255 in the mask, falling to 0 over the feather."""
        mask = torch.from_numpy(self.allowed)[None, None].float()
        outer = self.feather // 2
        # The mask grows by half the feather, and a mean over the other half takes it from 1 at its old border to 0.
        for radius, spread in ((self.feather - outer, F.max_pool2d), (outer, _mean)):
            for kernel, padding in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
                mask = spread(mask, kernel, stride=1, padding=padding)
        return Image.fromarray((mask[0, 0] * 255).round().to(torch.uint8).numpy())


def _mean(values: Tensor, kernel: tuple[int, int], stride: int, padding: tuple[int, int]) -> Tensor:
    return F.avg_pool2d(values, kernel, stride=stride, padding=padding, count_include_pad=False)


def read_masks(
    masks: Any, groups: Sequence[Sequence[Image.Image]], sizes: PictureSizes, feather: int | None, *, single: bool
) -> list[EditMask | None]:
    """A mask for the first picture of each group, None where everything may change.

    In a mask white may change and black stays. If some of it is transparent its opaque part may change, whatever its
    colour, as on the layer of a canvas. It is scaled to the picture.

    Args:
        masks: None, a picture, or, unless `single`, a list of as many as there are groups, None among them.
        feather: pixels, 0 or more.

    Raises:
        ValueError: not a picture, an empty one, one of other proportions than its picture, or one that allows changes
            only where the model does not look; a feather below 0 or without a mask.
    """
    if feather is not None and (isinstance(feather, bool) or not isinstance(feather, int) or feather < 0):
        raise ValueError(f"mask_feather: got {feather!r}, it must be a whole number of pixels, 0 or more")
    if masks is None:
        if feather is not None:
            raise ValueError(f"mask_feather: got {feather} without a mask_image")
        return [None] * len(groups)
    several = not single and isinstance(masks, Sequence) and not isinstance(masks, str)
    entries = list(masks) if several else [masks] * len(groups)
    if len(entries) != len(groups):
        raise ValueError(f"mask_image: got {len(entries)}, one for each of {len(groups)} instructions is needed")
    width = STANDARD_FEATHER if feather is None else feather
    return [
        None if entry is None else _read_mask(entry, to_rgb(group[0]), sizes, width)
        for entry, group in zip(entries, groups, strict=True)
    ]


def _read_mask(mask: Any, source: Image.Image, sizes: PictureSizes, feather: int) -> EditMask | None:
    picture = read_picture(mask, "mask_image")
    if 0 in picture.size:
        raise ValueError(f"mask_image: got an empty picture of {picture.width} × {picture.height} pixels")
    picture = ImageOps.exif_transpose(picture)
    # A side may be a pixel off, as it is after scaling.
    difference = abs(picture.width * source.height - picture.height * source.width)
    if difference > max(*picture.size, *source.size):
        raise ValueError(
            f"mask_image: got {picture.width} × {picture.height} pixels for a picture of "
            f"{source.width} × {source.height}, both must have the same proportions"
        )
    levels = _levels(picture).resize(source.size, Image.Resampling.NEAREST)
    allowed = np.asarray(levels) >= HALF
    if allowed.all():
        return None
    found = EditMask(source=source, allowed=allowed, frame=sizes.editing_frame(source), feather=feather)
    if allowed.any() and not bool(found.cells().any()):
        raise ValueError("mask_image: it allows changes only at the border that is cropped off for the model")
    return found


def _levels(picture: Image.Image) -> Image.Image:
    """What a mask says as grey levels."""
    if picture.has_transparency_data:
        opacity = picture.convert("RGBA").getchannel("A")
        if not bool((np.asarray(opacity) == 255).all()):
            return opacity
    return to_rgb(picture).convert("L")
