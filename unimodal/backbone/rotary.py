"""Rotary position embedding on the first dimensions of each head, rotated by halves (arXiv 2104.09864)."""

import torch
from torch import Tensor


def rotary_table(position_ids: Tensor, rotary_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position · theta^(-2j/rotary_dim), computed in float32 and cast to `dtype`.

    Args:
        position_ids: int [B, L].

    Returns:
        two tensors [B, L, 1, rotary_dim / 2].
    """
    exponents = torch.arange(0, rotary_dim, 2, dtype=torch.float32, device=position_ids.device) / rotary_dim
    angles = position_ids[:, :, None, None].float() * (1.0 / theta**exponents)
    return angles.cos().to(dtype), angles.sin().to(dtype)


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
