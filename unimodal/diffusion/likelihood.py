"""How likely a model finds an answer: a Monte-Carlo estimate of a lower bound of its log-likelihood.

Block by block, the answer's log-likelihood is at least

    Σ over blocks  E_k E_S  n/k · Σ_{i in S} log p(x_i | the block without S, the blocks before it)

with n answer tokens in the block, k uniform in 1..n and S a random set of k of them. This is the evidence lower bound
of the absorbing process (LLaDA, arXiv 2502.09992, equation 6; MDLM, arXiv 2406.07524), taken per block (block
diffusion, arXiv 2503.09573). With n = 1 it is the chain rule, and exact.

A sample is one noisy copy of all blocks, laid out as in training beside the clean stream, so that one forward covers
all blocks of several samples. What a last block holds behind the answer is masked, as when a sampler begins with it.

Legend: S samples, N masked positions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unimodal.diffusion.canvas import Locate
from unimodal.diffusion.objective import UNSUPERVISED, Streams, add_copy, collate, find_coordinates

COLUMNS = 1024
"""Noisy columns of one forward, as far as a single copy does not have more."""


@dataclass(frozen=True, kw_only=True)
class LikelihoodEstimate:
    """What the samples say.

    Args:
        samples: float64 [S], nats; their mean is the estimate.
        tokens: the answer's length.
        exact: every block has one answer token, and nothing is random.
        forwards: passes through the model.
    """

    samples: Tensor
    tokens: int
    exact: bool
    forwards: int

    @property
    def log_likelihood(self) -> float:
        """Nats."""
        return float(self.samples.mean())

    @property
    def standard_error(self) -> float:
        """Of the estimate, in nats; not a number for a single random sample."""
        if self.exact:
            return 0.0
        if len(self.samples) == 1:
            return math.nan
        return float(self.samples.std() / math.sqrt(len(self.samples)))


@torch.no_grad()
def estimate_likelihood(
    model: Any,
    prompt: Sequence[int],
    answer: Sequence[int],
    *,
    block_length: int,
    mask_id: int,
    samples: int,
    generator: torch.Generator,
    vocab_range: tuple[int, int] | None = None,
    locate: Locate | None = None,
    device: torch.device | str = "cpu",
) -> LikelihoodEstimate:
    """The likelihood of `answer` behind `prompt`.

    Args:
        model: called like `MaskedDiffusionTransformer.forward`.
        samples: random masks of each block; where every block has one answer token a single one is taken.
        vocab_range: the ids that the answer comes from, first and one past the last; None = all. The mask id is never
            among them: a prediction of it is left out of the softmax.
        locate: rows and columns of picture codes, for a model that wants them (`SequenceBuilder.coordinates`).

    Raises:
        ValueError: an empty answer, one that is not within `vocab_range`, fewer than one sample.
    """
    if samples < 1:
        raise ValueError(f"samples: got {samples}, at least 1 is needed")
    first, last = vocab_range or (0, max(answer, default=0) + 1)
    if not answer or not all(first <= token < last and token != mask_id for token in answer):
        raise ValueError(
            f"answer: got {len(answer)} tokens, it needs at least one, all from {first} to {last - 1} and none the mask"
        )
    layout = AnswerLayout(prompt, answer, block_length, mask_id, locate)
    count = 1 if layout.exact else samples
    masked, weights = layout.draw(count, generator)
    per_forward = max(1, COLUMNS // len(layout.columns))
    found = torch.zeros(count, dtype=torch.float64)
    starts = range(0, count, per_forward)
    for start in starts:
        part = slice(start, start + per_forward)
        streams = layout.streams(masked[part], weights[part])
        batch = {name: value.to(device) for name, value in collate([[streams]], block_length, mask_id).items()}
        logits = model(
            batch["tokens"],
            position_ids=batch["position_ids"],
            attention_mask=batch["attention_mask"],
            logits_for=(batch["rows"], batch["columns"]),
            vocab_range=vocab_range,
        ).logits
        terms = batch["weights"] * _log_probabilities(logits, batch["labels"] - first, mask_id - first)
        copy = np.concatenate(streams.stream)[batch["columns"].cpu().numpy()] - streams.noisy.index(True)
        found.index_add_(0, start + torch.from_numpy(copy), terms.double().cpu())
    return LikelihoodEstimate(samples=found, tokens=len(answer), exact=layout.exact, forwards=len(starts))


def _log_probabilities(logits: Tensor, labels: Tensor, forbidden: int) -> Tensor:
    """log p of each label [N] under logits [N, V] without the forbidden entry, if it is one of them."""
    if 0 <= forbidden < logits.shape[-1]:
        logits = logits.index_fill(-1, torch.tensor(forbidden, device=logits.device), -torch.inf)
    return logits.float().log_softmax(dim=-1).gather(-1, labels[:, None]).squeeze(-1)


class AnswerLayout:
    """An answer in the blocks that it touches, and noisy copies of them beside what comes before.

    Attributes:
        tokens: prompt, answer, and masks up to the next border of a block.
        columns: the places of the blocks that hold some of the answer.
        clean: how many tokens come before the last of them.
        blocks: for each of them the answer's places in `columns`.
        exact: each of them holds one token of the answer.
    """

    def __init__(
        self, prompt: Sequence[int], answer: Sequence[int], block_length: int, mask_id: int, locate: Locate | None
    ):
        length = len(prompt) + len(answer)
        first, last = len(prompt) // block_length, (length - 1) // block_length
        self.tokens = np.array([*prompt, *answer, *[mask_id] * (-length % block_length)])
        self.columns = np.arange(first * block_length, (last + 1) * block_length)
        self.clean = last * block_length
        inside = (self.columns >= len(prompt)) & (self.columns < length)
        self.blocks = [
            np.arange(start, start + block_length)[inside[start : start + block_length]]
            for start in range(0, len(self.columns), block_length)
        ]
        self.exact = all(len(places) == 1 for places in self.blocks)
        self._block_length, self._mask_id, self._locate = block_length, mask_id, locate

    def draw(self, samples: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
        """What each sample masks, bool [S, columns], and the weight n/k of each column, float32."""
        masked = np.zeros((samples, len(self.columns)), dtype=bool)
        weights = np.zeros((samples, len(self.columns)), dtype=np.float32)
        for places in self.blocks:
            device, many = generator.device, len(places)
            counts = torch.randint(1, many + 1, (samples, 1), generator=generator, device=device).cpu()
            order = torch.rand(samples, many, generator=generator, device=device).argsort(dim=1).cpu()
            ranks = torch.empty_like(order).scatter_(1, order, torch.arange(many).expand(samples, many))
            masked[:, places] = (ranks < counts).numpy()
            weights[:, places] = (many / counts).numpy()
        return masked, weights

    def streams(self, masked: np.ndarray, weights: np.ndarray) -> Streams:
        """The clean stream, and one noisy copy for each row of `masked`."""
        streams = Streams()
        ancestors: tuple[int, ...] = ()
        if self.clean:
            known, places = self.tokens[: self.clean], np.arange(self.clean)
            ancestors = (streams.add(known, places, (), find_coordinates(known, self._locate)),)
        own = self.tokens[self.columns]
        for hidden, weight in zip(masked, weights, strict=True):
            noisy = np.where(hidden, self._mask_id, own)
            add_copy(streams, self.tokens, noisy, self.columns, self._block_length, ancestors, self._locate)
            streams.labels[-1] = np.where(hidden, own, UNSUPERVISED)
            streams.weights[-1] = weight
        return streams
