"""How many masked positions of a block become tokens in each step, and which.

Two unmasking rules. `QuotaRule` is the one the LLaDA2.0 models are sampled with (arXiv 2512.15745): a fixed number
per step, and every position that is surer than the threshold. `AdaptiveRule` is that of SPRINT (arXiv 2604.20796):
the number follows from what is left to fill.

Legend: N samples, B positions of a block.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


def reveal_counts(block_length: int, steps: int) -> list[int]:
    """The least number of positions that each step of a block reveals.

    It follows from the block length and not from the number of masks, so a first block that starts with prompt tokens
    finishes early.

    Raises:
        ValueError: a block length or a number of steps below 1.
    """
    if block_length < 1:
        raise ValueError(f"block_length: got {block_length}, it must be at least 1")
    if steps < 1:
        raise ValueError(f"num_inference_steps: got {steps}, it must be at least 1")
    share, rest = divmod(block_length, steps)
    return [share + (step < rest) for step in range(steps)]


class UnmaskingRule(Protocol):
    """Chooses the positions that one step commits."""

    def choose(self, confidence: Tensor, masked: Tensor, step: int, steps: Tensor) -> Tensor:
        """The positions to commit, bool [N, B], a subset of `masked`.

        Args:
            confidence: probability of each position's proposed token, float [N, B]; ignored where nothing is masked.
            masked: positions that are still to fill, bool [N, B].
            step: steps that this block has had so far.
            steps: steps that each sample has per block, int [N].
        """
        ...


@dataclass(frozen=True, kw_only=True)
class QuotaRule:
    """The step's quota by confidence, and all that are strictly above the threshold."""

    threshold: float

    def choose(self, confidence: Tensor, masked: Tensor, step: int, steps: Tensor) -> Tensor:
        block_length = masked.shape[1]
        counts = block_length // steps + (step < block_length % steps).long()
        return _surest(confidence, masked, counts) | (masked & (confidence > self.threshold))


@dataclass(frozen=True, kw_only=True)
class AdaptiveRule:
    """An even share of what is left over the steps that are left, and all that are strictly above the threshold."""

    threshold: float
    minimal_topk: int = 1

    def choose(self, confidence: Tensor, masked: Tensor, step: int, steps: Tensor) -> Tensor:
        left = masked.sum(dim=1)
        steps_left = (steps - step).clamp(min=1)
        counts = torch.maximum((left + steps_left - 1) // steps_left, torch.full_like(left, self.minimal_topk))
        return _surest(confidence, masked, counts) | (masked & (confidence > self.threshold))


def _surest(confidence: Tensor, masked: Tensor, counts: Tensor) -> Tensor:
    """The `counts` [N] masked positions of highest confidence, bool [N, B]; all of them where fewer are masked."""
    order = confidence.masked_fill(~masked, -torch.inf).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(masked.shape[1], device=masked.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    return masked & (rank < counts[:, None])
