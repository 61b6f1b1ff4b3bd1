"""What makes a position sure: the scores by which masked positions are put in order.

| `remasking` | score | from |
|---|---|---|
| `low_confidence` | probability of the proposed token | LLaDA, arXiv 2502.09992; MaskGIT, arXiv 2202.04200 |
| `top_k_margin` | distance of the two largest probabilities | arXiv 2502.06768; Dream, arXiv 2508.15487 |
| `neg_entropy` | 1 − entropy / log V | Dream, arXiv 2508.15487 |
| `random` | a uniform number | LLaDA, arXiv 2502.09992 |

The names are those of the published samplers, which think of the rest: positions of low confidence are masked again.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unimodal.diffusion.draws import Draw
from unimodal.diffusion.filtering import Proposal

SURE = ("low_confidence", "top_k_margin", "neg_entropy")
ALL = (*SURE, "random")


def score(remasking: str, proposal: Proposal, draw: Draw) -> Tensor:
    """The score of every position, float32 [N, B], at most 1; higher is surer."""
    if remasking == "random":
        return draw()
    if remasking == "low_confidence":
        return proposal.confidence
    distribution = proposal.distribution
    if remasking == "top_k_margin":
        first, second = distribution.topk(2, dim=-1).values.unbind(-1)
        return proposal.spread(first - second)
    entropy = torch.special.entr(distribution).sum(dim=-1)
    return proposal.spread(1 - entropy / math.log(distribution.shape[-1]))


def check_remasking(value: str, allowed: Sequence[str] = ALL) -> None:
    """Raises: ValueError: none of the allowed scores."""
    if value not in allowed:
        raise ValueError(f"remasking: got {value!r}, it must be {', '.join(allowed[:-1])} or {allowed[-1]}")
