"""ComfyUI's pictures and masks to Pillow's and back.

Legend: B pictures, Y, X pixels, C channels; values from 0 to 1.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_pictures(images: Tensor) -> list[Image.Image]:
    """IMAGE [B, Y, X, 3 or 4] or [B, Y, X, 1] to RGB or RGBA pictures; values are clamped and rounded.

    Raises:
        ValueError: another shape.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        raise ValueError(f"images: {list(images.shape)}, expected [B, Y, X, C] with 1, 3 or 4 channels")
    levels = (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return [Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array) for array in levels]


def to_masks(masks: Tensor) -> list[Image.Image]:
    """MASK [B, Y, X] or [Y, X] to grey pictures, white where the mask is 1."""
    return to_pictures(masks.reshape(-1, *masks.shape[-2:], 1))


def to_images(pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures of one size to IMAGE, float32 [B, Y, X, 3].

    Raises:
        ValueError: no picture, or several sizes.
    """
    sizes = {picture.size for picture in pictures}
    if len(sizes) != 1:
        raise ValueError(f"pictures: expected at least one, all of one size, got sizes {sorted(sizes)}")
    arrays = np.stack([np.asarray(picture.convert("RGB"), np.float32) for picture in pictures])
    return torch.from_numpy(arrays / 255)
