"""The logits of the block that is being filled, with and without a cache of the blocks before it.

A token never sees a later block, so the keys and values of a block are final as soon as its tokens are.
`CachedDenoiser` keeps them: a step computes one block only, and the pass that stores a finished block is the same as
the first pass of the next one. `PlainDenoiser` is its slow twin, which computes the whole window in every step, as
the published code does. `SprintDenoiser` of `sprint.py` reads a part of the finished blocks only.

Legend: R rows, B positions of a block, P places of it, V vocabulary or the part of it that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from unimodal.backbone import PrefixCache
from unimodal.diffusion.canvas import Canvas
from unimodal.diffusion.prefixes import FinishedBlock, Names, PrefixStore, block_names
from unimodal.diffusion.shared_prefill import cut_blocks, share_prefill


class Denoiser(Protocol):
    """Reads a canvas; `forwards` counts the passes through the model, `computed` the columns that they computed."""

    forwards: int
    computed: int

    def logits(self, canvas: Canvas, block: int, places: Tensor | None = None) -> Tensor:
        """Logits of one block, float32 [R, B, V], or of some `places` of it, int64 [P] -> [R, P, V]. Blocks are asked
        for in order; those before `block` have no masks any more.
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

    def logits(self, canvas: Canvas, block: int, places: Tensor | None = None) -> Tensor:
        columns = canvas.columns(block)
        stop = columns.stop
        self.forwards += 1
        self.computed += stop
        return self._model(
            canvas.tokens[:, :stop],
            position_ids=canvas.positions(0, stop),
            attention_mask=canvas.visible(0, stop),
            logits_for=columns if places is None else places + columns.start,
            vocab_range=self._vocab_range,
        ).logits

    def keep(self, rows: Tensor) -> None:
        pass


class CachedDenoiser:
    """Keeps keys and values of finished blocks. Exact: they are those that `PlainDenoiser` computes again.

    Rows that begin alike are prefilled once. With `prefixes` so are calls: finished blocks are looked up and left
    there.
    """

    _wants_confidence = False

    def __init__(self, model: Any, vocab_range: tuple[int, int] | None = None, *, prefixes: PrefixStore | None = None):
        self.forwards = 0
        self.computed = 0
        self._model = model
        self._vocab_range = vocab_range
        self._prefixes = prefixes
        self._identity = b""
        self._names: list[Names] | None = None  # of the blocks that `prefixes` has been given
        self._cache: PrefixCache | None = None
        self._mask: tuple[tuple[int, ...], Tensor | None] = (), None

    def logits(self, canvas: Canvas, block: int, places: Tensor | None = None) -> Tensor:
        cache = self._cache or self._begin(canvas)
        self._cache = cache
        start = cache.length
        columns = canvas.columns(block)
        if columns.start == start:
            wanted = slice(None) if places is None else places
            return self._run(canvas, start, columns.stop, cache, wanted, update=False)[0]
        wanted = slice(columns.start - start, columns.stop - start)
        logits, confidence = self._run(canvas, start, columns.stop, cache, wanted, update=True)
        # The block in work is not final: its part of what was stored goes again.
        cache.truncate(columns.start)
        self._finished(canvas, start, columns.start, confidence)
        return logits if places is None else logits[:, places]

    def keep(self, rows: Tensor) -> None:
        self._mask = (), None
        if self._cache is not None:
            self._cache = self._cache.select(rows)
        if self._names is not None:
            self._names = [self._names[row] for row in rows.tolist()]

    def _run(
        self, canvas: Canvas, start: int, stop: int, cache: PrefixCache, wanted: slice | Tensor, *, update: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Computes columns `start` to `stop`: float32 logits of the `wanted` ones [R, P, V], and how sure the model is
        of each token [R, stop - start] where this denoiser wants to know.
        """
        self.forwards += 1
        self.computed += stop - start
        output = self._model(
            canvas.tokens[:, start:stop],
            position_ids=canvas.positions(start, stop),
            attention_mask=self._visible(canvas, start, stop),
            cache=cache,
            update_cache=update,
            logits_for=wanted,
            vocab_range=self._vocab_range,
        )
        return output.logits, None

    def _visible(self, canvas: Canvas, start: int, stop: int) -> Tensor | None:
        """As `Canvas.visible`, made once for all steps of a block."""
        place = id(canvas), start, stop, len(canvas.tokens)
        if self._mask[0] != place:
            self._mask = place, canvas.visible(start, stop)
        return self._mask[1]

    def _begin(self, canvas: Canvas) -> PrefixCache:
        """A cache for this canvas, filled with the prompts' whole blocks if that is cheaper than one pass over all."""
        cache = self._model.new_cache(capacity=canvas.tokens.shape[1])
        store = self._prefixes
        if canvas.first_block == 0 or (store is None and len(canvas.tokens) == 1):
            return cache
        self._identity = b"" if store is None else store.identity(self._model)
        names = block_names(canvas, canvas.first_block, self._identity)
        known: dict[bytes, FinishedBlock] = {}
        if store is not None:
            for row in names:
                known |= zip(row, store.known(row, with_confidence=self._wants_confidence), strict=False)
        prefill = share_prefill(canvas, names, known, self._prefill, cache.num_layers)
        if prefill is None:
            return cache
        self._cache = prefill.cache
        self._finished(canvas, 0, prefill.cache.length, prefill.confidence)
        return prefill.cache

    def _prefill(self, canvas: Canvas, start: int, stop: int, cache: PrefixCache) -> Tensor | None:
        return self._run(canvas, start, stop, cache, slice(0, 0), update=True)[1]

    def _finished(self, canvas: Canvas, start: int, stop: int, confidence: Tensor | None) -> None:
        """Columns `start` to `stop` are in the cache now: leaves them in the store."""
        if self._prefixes is None or self._cache is None:
            return
        first = start // canvas.block_length
        self._names = block_names(canvas, stop // canvas.block_length, self._identity, self._names)
        # What is generated is the same in all branches; only the first one comes again, as somebody's beginning.
        rows = len(canvas.tokens) if first < canvas.first_block else canvas.num_samples
        for row, names in enumerate(self._names[:rows]):
            skipped = max(0, stop // canvas.block_length - first - len(names))  # blocks of padding
            sure = None if confidence is None else confidence[:, skipped * canvas.block_length :]
            blocks = list(cut_blocks(self._cache, row, canvas.block_length, first + skipped, sure))
            self._prefixes.put(names[len(names) - len(blocks) :], blocks)
