"""The first pass over prompts that begin alike: what rows share is computed for one of them.

Rows are lined up by their own first block, and the depth is cut where it pays: each part is one pass over the rows
that still differ there and are not known yet, and reads what the parts before it left.
"""

import itertools
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unimodal.backbone import PrefixCache
from unimodal.diffusion.canvas import Canvas
from unimodal.diffusion.prefixes import FinishedBlock, Names

# A pass of its own costs about as much as this many more columns of a pass that runs anyway.
PASS_IN_COLUMNS = 64

# Runs columns `start` to `stop` of a canvas, keeps them in the cache, and tells how sure the model is of each token
# [rows, stop - start], if anyone wants to know.
Compute = Callable[[Canvas, int, int, PrefixCache], Tensor | None]


@dataclass(frozen=True, kw_only=True)
class Prefill:
    """Keys and values of the prompts' whole blocks, in the columns of the canvas, and their names.

    Args:
        confidence: of each token, float32 [R, columns], 0 on padding; None where no one asked.
    """

    cache: PrefixCache
    confidence: Tensor | None


def share_prefill(
    canvas: Canvas,
    names: Sequence[Names],
    known: Mapping[bytes, FinishedBlock],
    compute: Compute,
    num_layers: int,
) -> Prefill | None:
    """Computes the blocks before `canvas.first_block`, each one that rows share once.

    Args:
        names: of those blocks, per row, as `block_names`.
        known: blocks that need not be computed.

    Returns:
        None if one pass over all rows is cheaper than sharing.
    """
    length = canvas.block_length
    cuts, cost = plan_cuts(names, known, length)
    if cost >= canvas.tokens.shape[0] * canvas.first_block * length:
        return None
    blocks = dict(known)
    for start, stop in itertools.pairwise(cuts):
        rows = _rows_to_compute(names, blocks, start, stop)
        if not rows:
            continue
        part = _lined_up(canvas, names, rows, stop)
        if start:
            before = [[blocks[name].layers for name in names[row][:start]] for row in rows]
            cache = PrefixCache.joined(before, start * length, stop * length)
        else:
            cache = PrefixCache(num_layers, stop * length)
        confidence = compute(part, start * length, stop * length, cache)
        for place, row in enumerate(rows):
            for name, block in zip(
                names[row][start:stop], cut_blocks(cache, place, length, start, confidence), strict=False
            ):
                blocks.setdefault(name, block)
    chosen = [[blocks[name] for name in row] for row in names]
    columns = canvas.first_block * length
    cache = PrefixCache.joined(
        [[block.layers for block in row] for row in chosen], columns, capacity=canvas.tokens.shape[1]
    )
    return Prefill(cache=cache, confidence=_joined_confidence(chosen, columns))


def cut_blocks(cache: PrefixCache, row: int, block_length: int, first: int, confidence: Tensor | None = None):
    """Yields the finished blocks of one row from block `first` on; views.

    Args:
        confidence: of the tokens from that block on, [rows, columns].
    """
    for place, start in enumerate(range(first * block_length, cache.length, block_length)):
        columns = slice(start, start + block_length)
        inside = slice(place * block_length, (place + 1) * block_length)
        yield FinishedBlock(
            layers=tuple(cache.pair(layer)[:, row, :, columns] for layer in range(cache.num_layers)),
            confidence=None if confidence is None else confidence[row, inside],
        )


def plan_cuts(names: Sequence[Names], known: Container[bytes], block_length: int) -> tuple[list[int], int]:
    """Depths at which to cut so that passes and the columns they compute cost least together, and that cost."""
    deepest = max(len(row) for row in names)
    candidates = sorted({0, deepest} | set(_depths_of_change(names, known)))
    best: dict[int, tuple[int, list[int]]] = {0: (0, [0])}
    for stop in candidates[1:]:
        best[stop] = min(
            (cost + _cost(names, known, start, stop, block_length), [*cuts, stop])
            for start, (cost, cuts) in best.items()
        )
    cost, cuts = best[deepest]
    return cuts, cost


def _depths_of_change(names: Sequence[Names], known: Container[bytes]):
    """Yields the depths below which other or other many blocks are to compute than above."""
    before: int | None = None
    for depth in range(max(len(row) for row in names)):
        count = len({row[depth] for row in names if depth < len(row) and row[depth] not in known})
        if before not in (None, count):
            yield depth
        before = count


def _cost(names: Sequence[Names], known: Container[bytes], start: int, stop: int, block_length: int) -> int:
    rows = len(_rows_to_compute(names, known, start, stop))
    return rows * (stop - start) * block_length + PASS_IN_COLUMNS if rows else 0


def _rows_to_compute(names: Sequence[Names], known: Container[bytes], start: int, stop: int) -> list[int]:
    """One row for each different content of blocks `start` to `stop` that is not known; beginnings of longer ones are
    not different.
    """
    ends: dict[bytes, int] = {}
    inner: set[bytes] = set()
    for row, own in enumerate(names):
        part = own[start:stop]
        if any(name not in known for name in part):
            ends.setdefault(part[-1], row)
            inner.update(part[:-1])
    return [row for name, row in ends.items() if name not in inner]


def _lined_up(canvas: Canvas, names: Sequence[Names], rows: Sequence[int], stop: int) -> Canvas:
    """Some rows of a canvas, each from its first block on, `stop` blocks wide."""
    length = canvas.block_length
    tokens = canvas.tokens.new_zeros(len(rows), stop * length)
    padding = canvas.padding[list(rows)]
    for place, row in enumerate(rows):
        first = int(padding[place]) // length * length
        count = min(len(names[row]), stop) * length
        tokens[place, :count] = canvas.tokens[row, first : first + count]
    return Canvas(
        tokens=tokens,
        padding=padding % length,
        starts=torch.full((len(rows),), stop * length, device=tokens.device),
        num_branches=1,
        block_length=length,
        first_block=stop,
        locate=canvas.locate,
    )


def _joined_confidence(rows: Sequence[Sequence[FinishedBlock]], columns: int) -> Tensor | None:
    known = [[block.confidence for block in row if block.confidence is not None] for row in rows]
    if not any(known):
        return None
    sample = next(parts[0] for parts in known if parts)
    joined = sample.new_zeros(len(rows), columns)
    for row, parts in enumerate(known):
        if parts:
            whole = torch.cat(parts)
            joined[row, columns - len(whole) :] = whole
    return joined
