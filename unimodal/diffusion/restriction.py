"""Which tokens may be proposed where, for masks that are not all alike."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from unimodal.diffusion.guidance import NoGuidance


@dataclass(frozen=True, kw_only=True)
class AllowedTokens(NoGuidance):
    """The conditional branch alone, of which it leaves the logits of allowed tokens only, in one joined block.

    Args:
        kinds: bool [K, V], which tokens each kind of position may hold.
        kind_of: int64 [N, B], the kind of every column of the block.
    """

    kinds: Tensor
    kind_of: Tensor

    def combine(self, logits: Tensor, places: Tensor | None = None) -> Tensor:
        kind_of = self.kind_of if places is None else self.kind_of[:, places]
        return super().combine(logits).masked_fill(~self.kinds[kind_of], -torch.inf)

    def select(self, samples: Tensor) -> Self:
        return replace(self, kind_of=self.kind_of[samples])
