"""From logits to one proposed token and its probability per position.

Legend: N samples, B positions, V vocabulary (or the part of it that may be chosen).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


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
    forbidden: int | None = None,
    generators: Sequence[torch.Generator | None] = (),
) -> tuple[Tensor, Tensor]:
    """One token per position and its probability.

    At temperature 0 the token is the most probable one and its probability that under the plain softmax. Otherwise
    the logits are divided by the temperature, filtered by `top_k`, then by `top_p`, and the token is drawn; its
    probability is that under the filtered distribution.

    Args:
        logits: float32 [N, B, V].
        forbidden: an index that is never proposed (the mask id). At temperature 0 it keeps its share of the softmax,
            as in the reference.
        generators: one per sample, only used above temperature 0. Each gives B numbers per call, so that a sample
            draws the same ones whatever it is batched with; None for a sample whose proposals no one wants.

    Returns:
        Indices into the last axis, int64 [N, B], and probabilities, float32 [N, B].
    """
    if temperature == 0:
        probability = logits.softmax(dim=-1)
        choice = _without(logits, forbidden).argmax(dim=-1)
    else:
        scaled = _without(logits, forbidden) / temperature
        if top_k is not None:
            scaled = keep_top_k(scaled, top_k)
        if top_p is not None:
            scaled = keep_top_p(scaled, top_p)
        probability = scaled.softmax(dim=-1)
        choice = _draw(probability, generators)
    return choice, probability.gather(-1, choice[..., None]).squeeze(-1)


def _without(logits: Tensor, forbidden: int | None) -> Tensor:
    if forbidden is None:
        return logits
    return logits.index_fill(-1, torch.tensor(forbidden, device=logits.device), -torch.inf)


def _draw(probability: Tensor, generators: Sequence[torch.Generator | None]) -> Tensor:
    """Inverse-transform sampling: one uniform number per position picks from the cumulated probabilities [N, B, V]."""
    if len(generators) != probability.shape[0]:
        raise ValueError(f"generators: got {len(generators)}, one for each of {probability.shape[0]} samples is needed")
    uniform = torch.zeros(probability.shape[:2], device=probability.device)
    for row, source in zip(uniform, generators, strict=True):
        if source is not None:
            row.copy_(torch.rand(row.shape, generator=source, device=source.device))
    # Doubles keep the sum over a large vocabulary exact enough; Apple's devices have none.
    exact = torch.float32 if probability.device.type == "mps" else torch.float64
    cumulated = probability.to(exact).cumsum(dim=-1)
    choice = torch.searchsorted(cumulated, uniform.to(exact)[..., None] * cumulated[..., -1:], right=True).squeeze(-1)
    last_possible = probability.shape[-1] - 1 - (probability.flip(-1) > 0).long().argmax(dim=-1)
    return torch.minimum(choice, last_possible)
