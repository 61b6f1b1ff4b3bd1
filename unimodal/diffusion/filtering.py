"""From logits to one proposed token and its probability per position.

Legend: N samples, B positions, P of them, V vocabulary (or the part of it that may be chosen).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unimodal.diffusion.draws import Draw


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One token per position.

    Args:
        tokens: ids, int64 [N, B].
        confidence: their probabilities, float32 [N, B].
        distribution: what they were taken from, float32 [N, B, V], or [N, P, V] at some `places`.
        first_id: the id of the distribution's first entry.
        forbidden: the entry of the mask, None if it has none.
        places: where something is proposed, int64 [P]; None is everywhere. Elsewhere tokens and probabilities are 0.
    """

    tokens: Tensor
    confidence: Tensor
    distribution: Tensor
    first_id: int = 0
    forbidden: int | None = None
    places: Tensor | None = None

    def among(self, places: Tensor, width: int) -> "Proposal":
        """This proposal for P positions as one for a block of `width`, where these are at `places`."""
        tokens = self.tokens.new_zeros(len(self.tokens), width).index_copy_(1, places, self.tokens)
        placed = replace(self, tokens=tokens, places=places)
        return replace(placed, confidence=placed.spread(self.confidence))

    def spread(self, values: Tensor) -> Tensor:
        """Values of the distribution's positions, [N, P] -> [N, B]."""
        if self.places is None:
            return values
        return values.new_zeros(self.tokens.shape).index_copy_(1, self.places, values)

    def most_probable(self) -> tuple[Tensor, Tensor]:
        """The most probable token at each position, int64 [N, B], and its probability, float32 [N, B]."""
        choice = _most_probable(self.distribution, self.forbidden)
        return choice + self.first_id, self.distribution.gather(-1, choice[..., None]).squeeze(-1)


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Sets all but the `top_k` largest logits of the last axis to -inf; those equal to the smallest kept one stay."""
    if top_k >= logits.shape[-1]:
        return logits
    return logits.masked_fill(logits < logits.topk(top_k, dim=-1).values[..., -1:], -torch.inf)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Keeps the smallest set of most probable tokens whose probabilities reach `top_p` (nucleus sampling, arXiv
    1904.09751).
    """
    if top_p >= 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True)
    probability = ordered.softmax(dim=-1)
    outside = probability.cumsum(dim=-1) - probability >= top_p
    outside[..., 0] = False
    return logits.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -torch.inf)


def propose(
    logits: Tensor,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    first_id: int = 0,
    mask_id: int | None = None,
    draw: Draw | None = None,
) -> Proposal:
    """One token per position and its probability.

    At temperature 0 the token is the most probable one and its probability that under the plain softmax. Otherwise
    the logits are divided by the temperature, filtered by `top_k`, then by `top_p`, and the token is drawn; its
    probability is that under the filtered distribution.

    Args:
        logits: float32 [N, B, V].
        first_id: the id of the first logit.
        mask_id: an id that is never proposed. At temperature 0 it keeps its share of the softmax, as in the
            reference.
        draw: gives uniform numbers [N, B]; only used above temperature 0.

    Raises:
        ValueError: a temperature above 0 and nothing to draw with.
    """
    forbidden = None if mask_id is None or not 0 <= mask_id - first_id < logits.shape[-1] else mask_id - first_id
    if temperature == 0:
        distribution = logits.softmax(dim=-1)
        choice = _most_probable(logits, forbidden)
    else:
        if draw is None:
            raise ValueError("draw: got None, a temperature above 0 needs random numbers")
        scaled = logits / temperature
        if forbidden is not None:
            scaled[..., forbidden] = -torch.inf
        if top_k is not None:
            scaled = keep_top_k(scaled, top_k)
        if top_p is not None:
            scaled = keep_top_p(scaled, top_p)
        distribution = scaled.softmax(dim=-1)
        choice = _drawn(distribution, draw())
    return Proposal(
        tokens=choice + first_id,
        confidence=distribution.gather(-1, choice[..., None]).squeeze(-1),
        distribution=distribution,
        first_id=first_id,
        forbidden=forbidden,
    )


def _most_probable(values: Tensor, forbidden: int | None) -> Tensor:
    """The place of the largest value of the last axis, but never `forbidden`."""
    if forbidden is None:
        return values.argmax(dim=-1)
    # In two parts, which spares a copy of everything with one entry changed.
    sides = [(values[..., :forbidden], 0), (values[..., forbidden + 1 :], forbidden + 1)]
    found = [(side.max(dim=-1), first) for side, first in sides if side.shape[-1]]
    if len(found) == 1:
        return found[0][0].indices + found[0][1]
    (left, _), (right, first) = found
    return torch.where(right.values > left.values, right.indices + first, left.indices)


def _drawn(probability: Tensor, numbers: Tensor) -> Tensor:
    """Inverse-transform sampling: one uniform number per position picks from the cumulated probabilities [N, B, V]."""
    # Doubles keep the sum over a large vocabulary exact enough; Apple's devices have none.
    exact = torch.float32 if probability.device.type == "mps" else torch.float64
    cumulated = probability.to(exact).cumsum(dim=-1)
    choice = torch.searchsorted(cumulated, numbers.to(exact)[..., None] * cumulated[..., -1:], right=True).squeeze(-1)
    last_possible = probability.shape[-1] - 1 - (probability.flip(-1) > 0).long().argmax(dim=-1)
    return torch.minimum(choice, last_possible)
