"""The logits of the block that is being filled, with and without a cache of the blocks before it.

A token never sees a later block, so the keys and values of a block are final as soon as its tokens are.
`CachedDenoiser` keeps them: a step computes one block only, and the pass that stores a finished block is the same as
the first pass of the next one. `PlainDenoiser` is its slow twin, which computes the whole window in every step, as
the published code does.

Legend: R rows, B positions of a block, V vocabulary or the part of it that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from unimodal.diffusion.canvas import Canvas

if TYPE_CHECKING:
    from unimodal.backbone import PrefixCache


class Denoiser(Protocol):
    """Reads a canvas; `forwards` counts the passes through the model, `computed` the columns that they computed."""

    forwards: int
    computed: int

    def logits(self, canvas: Canvas, block: int) -> Tensor:
        """Logits of one block, float32 [R, B, V]. Blocks are asked for in order; those before `block` have no masks
        any more.
        """
        ...

    def keep(self, rows: Tensor) -> None:
        """Told that only these rows of the canvas remain."""
        ...


MakeDenoiser = Callable[[Any, tuple[int, int] | None], Denoiser]


class PlainDenoiser:
    """Computes everything up to the end of the block, each time."""

    def __init__(self, model: Any, vocab_range: tuple[int, int] | None = None):
        self.forwards = 0
        self.computed = 0
        self._model = model
        self._vocab_range = vocab_range

    def logits(self, canvas: Canvas, block: int) -> Tensor:
        columns = canvas.columns(block)
        stop = columns.stop
        self.forwards += 1
        self.computed += stop
        return self._model(
            canvas.tokens[:, :stop],
            position_ids=canvas.positions(0, stop),
            attention_mask=canvas.visible(0, stop),
            logits_for=columns,
            vocab_range=self._vocab_range,
        ).logits

    def keep(self, rows: Tensor) -> None:
        pass


class CachedDenoiser:
    """Keeps keys and values of finished blocks. Exact: they are those that `PlainDenoiser` computes again."""

    def __init__(self, model: Any, vocab_range: tuple[int, int] | None = None):
        self.forwards = 0
        self.computed = 0
        self._model = model
        self._vocab_range = vocab_range
        self._cache: PrefixCache | None = None

    def logits(self, canvas: Canvas, block: int) -> Tensor:
        cache = self._cache or self._model.new_cache(capacity=canvas.tokens.shape[1])
        self._cache = cache
        start = cache.length
        columns = canvas.columns(block)
        final = columns.start > start
        self.forwards += 1
        self.computed += columns.stop - start
        output = self._model(
            canvas.tokens[:, start : columns.stop],
            position_ids=canvas.positions(start, columns.stop),
            attention_mask=canvas.visible(start, columns.stop),
            cache=cache,
            update_cache=final,
            logits_for=slice(columns.start - start, columns.stop - start),
            vocab_range=self._vocab_range,
        )
        if final:
            # The block in work is not final: its part of what was stored goes again.
            cache.truncate(columns.start)
        return output.logits

    def keep(self, rows: Tensor) -> None:
        if self._cache is not None and self._cache.length:
            self._cache = self._cache.select(rows)
