"""The block-diffusion training objective: what is masked, who sees whom, and how the loss is weighed.

A document is laid out as one clean stream and two noisy copies of its blocks that hold something to predict; the
copies' masks are each other's complement, so every target is supervised once per document (LLaDA2.0, arXiv 2512.15745;
block diffusion, arXiv 2503.09573). Documents that begin with the same blocks, such as two questions about one picture,
share them: the shared blocks are computed once, and the documents branch from there.

    noisy copy  sees its own block, and earlier blocks of its clean stream and of what that branches from
    clean       sees its own and earlier blocks, and what it branches from
    document    never sees another one
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unimodal.diffusion.canvas import Locate

UNSUPERVISED = -1


@dataclass(frozen=True)
class Document:
    """Tokens of a whole number of blocks.

    Args:
        tokens: ids [L].
        targets: bool [L], what is masked and predicted.
        supervised: bool [L], the targets whose prediction counts in the loss.
        fillers: bool [L], positions that a sampler leaves behind a picture's last code: never predicted, masked or
            holding any code in the noisy copies.
    """

    tokens: np.ndarray
    targets: np.ndarray
    supervised: np.ndarray
    fillers: np.ndarray


@dataclass
class Streams:
    """Parallel arrays over the positions of a row, filled stream by stream; `coordinates` where a model wants them."""

    tokens: list[np.ndarray] = field(default_factory=list)
    positions: list[np.ndarray] = field(default_factory=list)
    coordinates: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    stream: list[np.ndarray] = field(default_factory=list)
    noisy: list[bool] = field(default_factory=list)
    ancestors: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def length(self) -> int:
        return sum(len(part) for part in self.tokens)

    @property
    def position_ids(self) -> np.ndarray:
        """Positions, int64 [L]; with coordinates [L, 3]: position, row and column."""
        positions = np.concatenate(self.positions)
        if not self.coordinates:
            return positions
        return np.column_stack([positions, np.concatenate(self.coordinates)])

    def add(
        self,
        tokens: np.ndarray,
        positions: np.ndarray,
        ancestors: tuple[int, ...],
        coordinates: np.ndarray | None,
        noisy: bool = False,
    ) -> int:
        """Appends a stream without supervision; returns its number."""
        number = len(self.ancestors)
        self.tokens.append(tokens)
        self.positions.append(positions)
        if coordinates is not None:
            self.coordinates.append(coordinates)
        self.labels.append(np.full(len(tokens), UNSUPERVISED))
        self.weights.append(np.zeros(len(tokens), dtype=np.float32))
        self.stream.append(np.full(len(tokens), number))
        self.noisy.append(noisy)
        self.ancestors.append(ancestors)
        return number


@dataclass(frozen=True)
class Noise:
    """How masks are drawn.

    Args:
        mask_id: the id that stands for a masked position.
        codes: first id of a picture code and one past the last, for fillers.
        mask_ratios: the band (lowest, highest) that each block's ratio t is drawn from.
    """

    mask_id: int
    codes: tuple[int, int]
    mask_ratios: tuple[float, float]


def lay_out(
    documents: Sequence[Document],
    shared: int,
    block_length: int,
    noise: Noise,
    random: np.random.Generator,
    locate: Locate | None = None,
) -> tuple[Streams, float]:
    """One group of documents, whose first `shared` tokens (whole blocks) are the same, as streams.

    Args:
        locate: rows and columns of picture codes, for a backbone that wants them (`SequenceBuilder.coordinates`).

    Returns:
        The streams, and the sum of the copies' weights: the denominator of the loss.
    """
    streams, total = Streams(), 0.0
    positions = np.arange(max(len(d.tokens) for d in documents))
    root: tuple[int, ...] = ()
    if shared:
        tokens = documents[0].tokens[:shared]
        root = (streams.add(tokens, positions[:shared], (), find_coordinates(tokens, locate)),)
    for document in documents:
        noisy_blocks = np.unique(np.nonzero(document.targets)[0] // block_length)
        # Nobody looks at the clean copy of the last block that is predicted.
        clean_end = max(shared, int(noisy_blocks[-1]) * block_length)
        ancestors = root
        if clean_end > shared:
            part = slice(shared, clean_end)
            found = find_coordinates(document.tokens[:clean_end], locate, shared)
            ancestors = (*root, streams.add(document.tokens[part], positions[part], root, found))
        # 1. draw the mask ratio of each block, and which targets it masks
        columns = np.concatenate([np.arange(b * block_length, (b + 1) * block_length) for b in noisy_blocks])
        ratio = np.repeat(random.uniform(*noise.mask_ratios, len(noisy_blocks)), block_length)
        masked = random.random(len(columns)) < ratio
        targets = document.targets[columns]
        for chosen, t in ((masked, ratio), (~masked, 1 - ratio)):
            hidden = chosen & targets
            counted = hidden & document.supervised[columns]
            if not counted.any():
                continue
            # 2. mask them; what a sampler leaves behind a picture holds a mask or any code
            tokens = document.tokens[columns].copy()
            tokens[hidden] = noise.mask_id
            fillers = document.fillers[columns]
            left = np.where(random.random(len(columns)) < t, noise.mask_id, random.integers(*noise.codes, len(columns)))
            tokens[fillers] = left[fillers]
            add_copy(streams, document.tokens, tokens, columns, block_length, ancestors, locate)
            # 3. weigh: 1/t per token (the ELBO of a linear schedule), 1/sqrt(masked tokens) per copy
            beta = 1 / np.sqrt(counted.sum())
            streams.labels[-1] = np.where(counted, document.tokens[columns], UNSUPERVISED)
            streams.weights[-1] = (beta / np.maximum(t, noise.mask_ratios[0])).astype(np.float32)
            total += float(beta)
    return streams, total


def add_copy(
    streams: Streams,
    clean: np.ndarray,
    noisy: np.ndarray,
    columns: np.ndarray,
    block_length: int,
    ancestors: tuple[int, ...],
    locate: Locate | None = None,
) -> int:
    """Appends a noisy copy of whole blocks of a document; returns the number of its stream.

    Args:
        clean: the document's tokens [L].
        noisy: those of the copy [M].
        columns: their places in the document, int [M].
        ancestors: the streams whose earlier blocks the copy sees.
    """
    found = None
    if locate is not None:
        # A block sees the clean blocks before it: a header that it still hides announces no grid yet.
        blocks = zip(columns.reshape(-1, block_length), noisy.reshape(-1, block_length), strict=True)
        rows = [np.concatenate([clean[: own[0]], tokens]) for own, tokens in blocks]
        found = np.concatenate([_coordinates(row, locate)[-block_length:] for row in rows])
    return streams.add(noisy, columns, ancestors, found, noisy=True)


def find_coordinates(tokens: np.ndarray, locate: Locate | None, start: int = 0) -> np.ndarray | None:
    """Rows and columns of the tokens [L] from `start` on, int64 [L - start, 2]; None if no model wants them."""
    return None if locate is None else _coordinates(tokens, locate)[start:]


def _coordinates(tokens: np.ndarray, locate: Locate) -> np.ndarray:
    return locate(torch.from_numpy(tokens)).numpy()


def collate(rows: Sequence[Sequence[Streams]], block_length: int, pad_id: int) -> dict[str, Tensor]:
    """Rows of stream groups as one padded batch.

    Returns:
        `tokens` int [R, L]; `position_ids` int [R, L], or [R, L, 3] with coordinates; `attention_mask`
        bool [R, 1, L, L], True = visible; and over the N supervised positions `rows`, `columns`, `labels` int [N] and
        `weights` float [N].
    """
    length = max(sum(group.length for group in row) for row in rows)
    tokens = np.full((len(rows), length), pad_id)
    positions = np.zeros((len(rows), length, *rows[0][0].position_ids.shape[1:]), dtype=np.int64)
    mask = np.zeros((len(rows), length, length), dtype=bool)
    labels = np.full((len(rows), length), UNSUPERVISED)
    weights = np.zeros((len(rows), length), dtype=np.float32)
    for number, row in enumerate(rows):
        start = 0
        for group in row:
            here = slice(start, start + group.length)
            tokens[number, here] = np.concatenate(group.tokens)
            positions[number, here] = group.position_ids
            labels[number, here] = np.concatenate(group.labels)
            weights[number, here] = np.concatenate(group.weights)
            mask[number, here, here] = visibility(group, block_length)
            start += group.length
    row_index, column_index = np.nonzero(labels != UNSUPERVISED)
    arrays = {
        "tokens": tokens,
        "position_ids": positions,
        "attention_mask": mask[:, None],
        "rows": row_index,
        "columns": column_index,
        "labels": labels[row_index, column_index],
        "weights": weights[row_index, column_index],
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def visibility(group: Streams, block_length: int) -> np.ndarray:
    """Who sees whom among the positions of a group of streams, bool [L, L]."""
    block = np.concatenate(group.positions) // block_length
    stream = np.concatenate(group.stream)
    count = len(group.ancestors)
    ancestor = np.zeros((count, count), dtype=bool)
    for number, others in enumerate(group.ancestors):
        ancestor[number, list(others)] = True
    noisy = np.array(group.noisy)[stream]
    same_stream = stream[:, None] == stream[None, :]
    same_block = block[:, None] == block[None, :]
    earlier = block[None, :] < block[:, None]
    own = same_stream & (same_block | (earlier & ~noisy[:, None]))
    return own | (ancestor[stream][:, stream] & earlier)


def weighted_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Σ weight · cross entropy, and the cross entropies [N] themselves, detached.

    Args:
        logits: float [N, V] at the supervised positions.
        labels: int [N].
        weights: float [N], from `collate`; divide the sum by the summed weights that `lay_out` returned.
    """
    entropies = F.cross_entropy(logits.float(), labels, reduction="none")
    return (entropies * weights).sum(), entropies.detach()
