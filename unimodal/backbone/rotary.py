"""Rotary position embedding on the first dimensions of each head, rotated by halves (arXiv 2104.09864).

Angles turn with the position in the sequence. Where a checkpoint declares it, some of them turn with the row and the
column of a picture code instead (arXiv 2409.12191), and stay at 0 for text.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

GRID_PERIODS = (4.0, 16.0)


def rotary_table(
    position_ids: Tensor,
    head_dim: int,
    rotary_dim: int,
    theta: float,
    dtype: torch.dtype,
    grid_dim: int = 0,
    grid_periods: tuple[float, float] = GRID_PERIODS,
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position · theta^(-2j/dim), computed in float32 and cast to `dtype`, as `rotate` takes them.

    Args:
        position_ids: int [B, L], or [B, L, 3] with `grid_dim`: position, row and column.
        head_dim: dimensions of a head.
        rotary_dim: those that are rotated, the first ones.
        grid_dim: how many of them belong to the row, and to the column; the first ones are the position's.
        grid_periods: the shortest and the longest period of rows and columns, a geometric series between them.

    Returns:
        two tensors [B, L, 1, head_dim]: (cos | cos | 1) and (-sin | sin | 0).
    """
    position, *place = position_ids.unbind(-1) if grid_dim else (position_ids,)
    width = rotary_dim - 2 * grid_dim
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=position.device) / width
    angles = [position[:, :, None, None].float() * (1.0 / theta**exponents)]
    if grid_dim:
        shortest, longest = (math.log(period) for period in grid_periods)
        periods = torch.linspace(shortest, longest, grid_dim // 2, device=position.device).exp()
        angles += [axis[:, :, None, None] * (2 * math.pi / periods) for axis in place]
    table = torch.cat(angles, dim=-1)
    sine, rest = table.sin(), (0, head_dim - rotary_dim)
    cosine = F.pad(table.cos().repeat(1, 1, 1, 2), rest, value=1.0)
    return cosine.to(dtype), F.pad(torch.cat([-sine, sine], dim=-1), rest).to(dtype)


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor, rotary_dim: int) -> Tensor:
    """Rotates dimension j with dimension j + rotary_dim / 2; what lies beyond rotary_dim passes through.

    Args:
        heads: [B, L, heads, head_dim].
        cosine, sine: [B, L, 1, head_dim] as from `rotary_table`.
    """
    half = rotary_dim // 2
    first, second, rest = heads.split([half, half, heads.shape[-1] - rotary_dim], dim=-1)
    exchanged = torch.cat([second, first, rest], dim=-1)
    return torch.addcmul(heads * cosine.to(heads.dtype), exchanged, sine.to(heads.dtype))
