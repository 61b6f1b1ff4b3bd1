"""Rotary position embedding on the first dimensions of each head, rotated by halves (arXiv 2104.09864).

Angles turn with the position in the sequence. Where a checkpoint declares it, some of them turn with the row and the
column of a picture code instead (arXiv 2409.12191), and stay at 0 for text.
"""

import torch
from torch import Tensor


def rotary_table(
    position_ids: Tensor, rotary_dim: int, theta: float, dtype: torch.dtype, grid_dim: int = 0
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of coordinate · theta^(-2j/dim), computed in float32 and cast to `dtype`.

    Args:
        position_ids: int [B, L], or [B, L, 3] with `grid_dim`: position, row and column.
        rotary_dim: dimensions that are rotated.
        grid_dim: how many of them belong to the row, and to the column; the first ones are the position's.

    Returns:
        two tensors [B, L, 1, rotary_dim / 2].
    """
    coordinates = position_ids.unbind(-1) if grid_dim else (position_ids,)
    widths = (rotary_dim - 2 * grid_dim, grid_dim, grid_dim)
    angles = torch.cat(
        [_angles(axis, width, theta) for axis, width in zip(coordinates, widths, strict=bool(grid_dim))], dim=-1
    )
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _angles(axis: Tensor, width: int, theta: float) -> Tensor:
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=axis.device) / width
    return axis[:, :, None, None].float() * (1.0 / theta**exponents)


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotates dimension j with dimension j + rotary_dim / 2; what lies beyond rotary_dim passes through.

    Args:
        heads: [B, L, heads, head_dim].
        cosine, sine: [B, L, 1, rotary_dim / 2] as from `rotary_table`.
    """
    half = cosine.shape[-1]
    first, second, rest = heads.split([half, half, heads.shape[-1] - 2 * half], dim=-1)
    cosine, sine = cosine.to(heads.dtype), sine.to(heads.dtype)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], dim=-1)
