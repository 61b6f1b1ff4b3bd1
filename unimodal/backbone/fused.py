"""Norm and rotation of queries and keys in one pass on a GPU, written in Triton (doi 10.1145/3315508.3329973).

The plain way (`attention.py`, `rotary.py`) is half a dozen kernels, over the few dozen tokens of a step of diffusion:
this is one launch instead. Triton is imported when the kernel is first wanted, as not every platform has it.
"""

from __future__ import annotations

import functools
import subprocess
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    import triton.language as tl  # pyright: ignore[reportMissingImports]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Compute capability from which Triton makes kernels.
OLDEST = (7, 0)

# What one program takes: heads of one token, and the warps that share them.
HEADS = 4
WARPS = 2


def can_fuse(heads: Tensor) -> bool:
    """Whether `normalise_and_rotate` may take the place of the plain way: on a GPU with Triton, without a gradient."""
    # A compiler fuses by itself. It is asked first, as it should not look into what follows.
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or not heads.is_cuda:
        return False
    return heads.dtype in DTYPES and heads.stride(-1) == 1 and _kernel() is not None and _drives(heads.device)


def normalise_and_rotate(
    heads: Tensor, weights: Tensor, cosine: Tensor, sine: Tensor, epsilon: float, rotary_dim: int
) -> Tensor:
    """Root-mean-square norm of every head (arXiv 1910.07467), times its weight, then `rotate` (arXiv 2104.09864).

    Args:
        heads: [B, L, N, D] for which `can_fuse` holds; may be a view whose last axis is contiguous.
        weights: of the norm, [N, D].
        cosine, sine: [B or 1, L, 1, D] as from `rotary.rotary_table`: (cos | cos | 1) and (-sin | sin | 0).
        epsilon: is added to the mean square of a head.
        rotary_dim: dimensions that are rotated, the first ones: even, 0 to D.

    Returns:
        [B, L, N, D], contiguous, in the dtype of `heads`.

    Raises:
        ValueError: `weights`, `cosine`, `sine` or `rotary_dim` do not fit `heads`, or its last axis is not contiguous.
    """
    _check(heads, weights, cosine, sine, rotary_dim)
    kernel: Any = _kernel()
    batch, length, count, width = heads.shape
    out = torch.empty(heads.shape, dtype=heads.dtype, device=heads.device)
    taken, half = min(HEADS, _power_of_two(count)), rotary_dim // 2
    # Triton launches on the current device, which need not be theirs.
    with torch.cuda.device_of(heads):
        kernel[batch * length, -(-count // taken)](
            heads,
            weights.contiguous(),
            cosine.contiguous(),
            sine.contiguous(),
            out,
            epsilon,
            length,
            *heads.stride()[:3],
            SHARED=len(cosine) == 1,
            COUNT=count,
            WIDTH=width,
            HALF=half,
            TAKEN=taken,
            PADDED_HALF=_power_of_two(half),
            PADDED_REST=_power_of_two(width - 2 * half),
            num_warps=WARPS,
            enable_fp_fusion=True,  # products and sums in one rounding; the default depends on Triton's version
        )
    return out


def _check(heads: Tensor, weights: Tensor, cosine: Tensor, sine: Tensor, rotary_dim: int) -> None:
    """The kernel would read beside tensors that do not fit."""
    batch, length, count, width = heads.shape
    if heads.stride(-1) != 1:
        raise ValueError(f"heads: got a last axis of stride {heads.stride(-1)}, allowed is 1")
    if weights.shape != (count, width):
        raise ValueError(f"weights: got shape {tuple(weights.shape)}, allowed is {(count, width)}")
    rows = (1, batch)
    if cosine.shape[1:] != (length, 1, width) or cosine.shape[0] not in rows:
        raise ValueError(f"cosine: got shape {tuple(cosine.shape)}, allowed is {(batch, length, 1, width)} or one row")
    if sine.shape != cosine.shape:
        raise ValueError(f"sine: got shape {tuple(sine.shape)}, allowed is that of cosine, {tuple(cosine.shape)}")
    if rotary_dim % 2 or not 0 <= rotary_dim <= width:
        raise ValueError(f"rotary_dim: got {rotary_dim}, allowed are even numbers from 0 to {width}")


def _power_of_two(size: int) -> int:
    """The smallest one that is not below `size`."""
    return 1 << max(size - 1, 0).bit_length()


@functools.cache
def _kernel() -> Any:
    """The kernel, or None where there is no Triton."""
    global tl
    try:
        import triton
        import triton.language as tl
    except ImportError:
        return None
    # Another length of the sequence is no other kernel.
    return triton.jit(do_not_specialize=["length"])(_normalise_and_rotate)


@functools.cache
def _drives(device: torch.device) -> bool:
    """Whether Triton can use this GPU: it needs one of 2017 or later, and a C compiler, for its own launcher."""
    import triton  # pyright: ignore[reportMissingImports]

    if torch.cuda.get_device_capability(device) < OLDEST:
        return False
    try:
        return triton.runtime.driver.active is not None
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        warnings.warn(f"Triton cannot use {device}, steps take longer without it: {error}", stacklevel=3)
        return False


def _normalise_and_rotate(
    heads,
    weights,
    cosine,
    sine,
    out,
    epsilon,
    length,
    row_stride,
    position_stride,
    head_stride,
    SHARED: tl.constexpr,
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
    HALF: tl.constexpr,
    TAKEN: tl.constexpr,
    PADDED_HALF: tl.constexpr,
    PADDED_REST: tl.constexpr,
):
    """TAKEN heads of one token, each read as (first half | second half | what passes through).

    All is computed in float32 and rounded once, which is closer to the exact result than the plain way.
    """
    token = tl.program_id(0).to(tl.int64)
    row, position = token // length, token % length
    head = (tl.program_id(1) * TAKEN + tl.arange(0, TAKEN))[:, None].to(tl.int64)
    source = heads + row * row_stride + position * position_stride + head * head_stride
    target = out + (token * COUNT + head) * WIDTH
    weight = weights + head * WIDTH

    column = tl.arange(0, PADDED_HALF)[None, :]
    held = (head < COUNT) & (column < HALF)
    first = tl.load(source + column, held, other=0).to(tl.float32)
    second = tl.load(source + HALF + column, held, other=0).to(tl.float32)
    squares = tl.sum(first * first, 1) + tl.sum(second * second, 1)
    beyond = 2 * HALF + tl.arange(0, PADDED_REST)[None, :]
    kept = (head < COUNT) & (beyond < WIDTH)
    if 2 * HALF < WIDTH:
        rest = tl.load(source + beyond, kept, other=0).to(tl.float32)
        squares += tl.sum(rest * rest, 1)
    scale = tl.rsqrt(squares / WIDTH + epsilon)[:, None]

    if 2 * HALF < WIDTH:
        tl.store(target + beyond, rest * scale * tl.load(weight + beyond, kept, other=0).to(tl.float32), kept)
    first *= scale * tl.load(weight + column, held, other=0).to(tl.float32)
    second *= scale * tl.load(weight + HALF + column, held, other=0).to(tl.float32)
    # Both halves of a table hold the same, but for the sign of the sine, which is right in the second one. Each head
    # reads them for itself: what the heads have in common would have to travel between warps.
    angle = tl.broadcast_to((position if SHARED else token) * WIDTH + HALF + column, [TAKEN, PADDED_HALF])
    cos = tl.load(cosine + angle, held, other=0).to(tl.float32)
    sin = tl.load(sine + angle, held, other=0).to(tl.float32)
    tl.store(target + column, first * cos - second * sin, held)
    tl.store(target + HALF + column, second * cos + first * sin, held)
