"""Three-axis rotary positions of the flow transformer (Z-Image, arXiv 2511.22699), and the attention that uses them.

The library looks angles up in tables of a stated length and multiplies complex numbers. Angles here are computed for
each request, in the same precision, and the product also has a real form that `torch.compile` can fuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def places(rows: int, columns: int, num_features: int, multiple: int, on_grid: bool = False) -> tuple[Tensor, Tensor]:
    """Positions float64 [length, 3] of picture and condition tokens, each padded to a multiple of `multiple`.

    Condition token k is at (1 + k, 0, 0) and its padding continues the count. The patch in row y and column x is at
    (padded condition length + 1, y, x), its padding at (0, 0, 0).

    Args:
        on_grid: our declared addition, absent from published checkpoints: a condition token stands at (1, y, x), the
            centre of what it describes in patches, so that a patch finds its own features by rotation alone.
    """
    condition = torch.zeros(num_features + -num_features % multiple, 3, dtype=torch.float64)
    if on_grid:
        scale = (num_features / (rows * columns)) ** 0.5  # features per patch along each side
        height, width = round(rows * scale), round(columns * scale)
        centres = [(torch.arange(length, dtype=torch.float64) + 0.5) / scale - 0.5 for length in (height, width)]
        condition[:, 0] = 1
        condition[:num_features, 1:] = torch.cartesian_prod(*centres)
    else:
        condition[:, 0] = torch.arange(1, len(condition) + 1)
    num_patches = rows * columns
    picture = torch.zeros(num_patches + -num_patches % multiple, 3, dtype=torch.float64)
    grid = picture[:num_patches].view(rows, columns, 3)
    grid[..., 0] = len(condition) + 1
    grid[..., 1], grid[..., 2] = torch.arange(rows)[:, None], torch.arange(columns)
    return picture, condition


def rotation(positions: Tensor, axes_dims: Sequence[int], theta: float, device: torch.device) -> Tensor:
    """Cosine and sine, float32 [1, length, R, 2], of the R = sum(axes_dims) / 2 angles of every position.

    Axis of size d: angle = position * theta^(-2j/d), multiplied in float64 and rounded once.
    """
    angles = []
    for axis, size in enumerate(axes_dims):
        frequencies = 1.0 / theta ** (torch.arange(0, size, 2, dtype=torch.float64) / size)
        angles.append(positions[:, axis : axis + 1] * frequencies)
    angle = torch.cat(angles, dim=1).float()
    return torch.stack((angle.cos(), angle.sin()), dim=-1)[None].to(device)


def rotate(vectors: Tensor, turns: Tensor) -> Tensor:
    """Rotates adjacent pairs of [B, length, heads, 2·R] in float32 by `rotation`'s result or its complex form."""
    turns = torch.view_as_real(turns) if turns.is_complex() else turns
    pairs = vectors.float().unflatten(-1, (-1, 2))
    if not torch.compiler.is_compiling():
        # Without a compiler the complex product is the fastest way through memory.
        turned = torch.view_as_complex(pairs) * torch.view_as_complex(turns).unsqueeze(2)
        return torch.view_as_real(turned).flatten(3).type_as(vectors)
    first, second = pairs.unbind(-1)
    cosine, sine = turns.unsqueeze(2).unbind(-1)
    turned = torch.stack((first * cosine - second * sine, first * sine + second * cosine), dim=-1)
    return turned.flatten(3).type_as(vectors)


class RotaryAttention:
    """Attention processor of the blocks: query and key norms, rotation of adjacent pairs, one attention call."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        freqs_cis: Tensor | None = None,
    ) -> Tensor:
        query, key, value = (
            project(hidden_states).unflatten(-1, (attn.heads, -1)) for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        if attn.norm_q is not None:
            query, key = attn.norm_q(query), attn.norm_k(key)
        if freqs_cis is not None:
            query, key = rotate(query, freqs_cis), rotate(key, freqs_cis)
        if attention_mask is not None and attention_mask.ndim == 2:
            attention_mask = attention_mask[:, None, None, :]
        query, key, value = (part.to(value.dtype).transpose(1, 2) for part in (query, key, value))
        if query.requires_grad and query.device.type == "cpu" and attention_mask is None:
            # Training on CPU: the gradient of the fused kernel takes several times as long as that of two products.
            shares = (query * query.shape[-1] ** -0.5 @ key.mT).softmax(dim=-1).to(value.dtype)
            attended = shares @ value
        else:
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        return attn.to_out[0](attended.transpose(1, 2).flatten(2))
