"""How many masked positions of a block become tokens in each step.

Legend: N samples, B positions of a block. Numbers of steps and of positions are int64 [N]; a step counts from 0.
"""

import math

import torch
from torch import Tensor


def fixed_share(sizes: Tensor, steps: Tensor, step: int) -> Tensor:
    """The share of a step when blocks of `sizes` positions are revealed in equal shares, the larger ones first; 0
    after the last step.

    It follows from the size of the block and not from the number of masks, so a first block that starts with prompt
    tokens finishes early (LLaDA2.0, arXiv 2512.15745).
    """
    share = sizes // steps + (step < sizes % steps).long()
    return torch.where(step < steps, share, 0)


def even_share(left: Tensor, steps: Tensor, step: int) -> Tensor:
    """An even share, rounded up, of the `left` masked positions over the steps that are left.

    From the first step on these are equal shares of all masks, the larger ones first (LLaDA, arXiv 2502.09992); where
    more was revealed in between, less remains to share (SPRINT, arXiv 2604.20796).
    """
    steps_left = (steps - step).clamp(min=1)
    return (left + steps_left - 1) // steps_left


def cosine_share(left: Tensor, masks: Tensor, steps: Tensor, step: int) -> Tensor:
    """How many of the `left` masked positions to reveal so that ⌊cos(π/2 · (step + 1) / steps) · masks⌋ stay masked:
    few at first, many at the end, at least one, and not the last one before the last step (MaskGIT, arXiv 2202.04200).
    """
    stay = (torch.cos((step + 1) / steps * (math.pi / 2)) * masks).floor().long()
    stay = torch.minimum(stay.clamp(min=1), left - 1)
    return left - torch.where(step + 1 < steps, stay, 0)


def surest(score: Tensor, masked: Tensor, counts: Tensor) -> Tensor:
    """The `counts` [N] masked positions of highest score, bool [N, B]; all of them where fewer are masked, the first
    ones where scores are equal.
    """
    order = score.masked_fill(~masked, -torch.inf).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(masked.shape[1], device=masked.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    return masked & (rank < counts[:, None])
