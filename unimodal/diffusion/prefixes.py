"""Beginnings that several requests share are computed once: rows of one batch, and calls one after the other.

The keys and values of a finished block follow from the tokens up to its end and from where they stand, so a block has
a name: the digest of the model, the block length, and all tokens and positions up to its end. Rows with the same name
at some depth share everything up to there.

    row 0   picture picture picture question 0        depth 0, 1, 2 are computed for one row, and copied;
    row 1   picture picture picture question 1        depth 3 for both together

`PrefixStore` keeps blocks by name between calls, within a budget of bytes, and forgets the ones that were not used for
longest.
"""

import hashlib
import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unimodal.diffusion.canvas import Canvas
from unimodal.model_identity import ModelIdentities

Names = list[bytes]


@dataclass(frozen=True, kw_only=True)
class FinishedBlock:
    """What is kept of one block.

    Args:
        layers: for each layer keys and values [2, kv_heads, B, head_dim].
        confidence: how sure the model is of each token, float32 [B]; None where no one asked.
    """

    layers: tuple[Tensor, ...]
    confidence: Tensor | None = None

    def own(self) -> "FinishedBlock":
        """A copy that does not hold on to the tensors it was cut from."""
        confidence = None if self.confidence is None else self.confidence.clone()
        return FinishedBlock(layers=tuple(layer.clone() for layer in self.layers), confidence=confidence)

    @property
    def num_bytes(self) -> int:
        tensors = self.layers if self.confidence is None else (*self.layers, self.confidence)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class PrefixStore:
    """Finished blocks by name, at most `max_bytes` of them, on the device of the model. Calls may come from several
    threads.

    Raises:
        ValueError: a negative number of bytes.
    """

    def __init__(self, max_bytes: int = 256 * 2**20):
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0:
            raise ValueError(f"max_bytes: got {max_bytes!r}, it must be a whole number of 0 or more")
        self.max_bytes = max_bytes
        self._blocks: OrderedDict[bytes, FinishedBlock] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()
        self._identities = ModelIdentities()

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def num_bytes(self) -> int:
        """Bytes held now."""
        return self._num_bytes

    def clear(self) -> None:
        with self._lock:
            self._blocks.clear()
            self._num_bytes = 0

    def known(self, names: Sequence[bytes], *, with_confidence: bool = False) -> list[FinishedBlock]:
        """The first blocks of a row, as many as are held without a gap."""
        with self._lock:
            found = list(itertools.takewhile(lambda block: block is not None, map(self._blocks.get, names)))
            blocks = [block for block in found if block is not None]
            if with_confidence:
                blocks = list(itertools.takewhile(lambda block: block.confidence is not None, blocks))
            self._touch(names[: len(blocks)])
            return blocks

    def put(self, names: Sequence[bytes], blocks: Iterable[FinishedBlock]) -> None:
        """Keeps the first blocks of a row; those that are held already stay, unless the new ones know more."""
        with self._lock:
            for name, block in zip(names, blocks, strict=True):
                held = self._blocks.get(name)
                if held is not None and (held.confidence is not None or block.confidence is None):
                    continue
                self._num_bytes += block.num_bytes - (0 if held is None else held.num_bytes)
                self._blocks[name] = block.own()
            self._touch(names)
            while self._num_bytes > self.max_bytes:
                _, forgotten = self._blocks.popitem(last=False)
                self._num_bytes -= forgotten.num_bytes

    def identity(self, model: Any) -> bytes:
        """Differs between models, and between states of one whose weights were changed or moved."""
        return self._identities.of(model)

    def _touch(self, names: Sequence[bytes]) -> None:
        # The last block of a row is forgotten first: without those before it, it is of no use.
        for name in reversed(names):
            if name in self._blocks:
                self._blocks.move_to_end(name)


def block_names(canvas: Canvas, stop: int, identity: bytes = b"", before: Sequence[Names] | None = None) -> list[Names]:
    """The names of the blocks below block `stop` that hold tokens, for each row.

    Args:
        identity: what else the keys and values depend on, as `PrefixStore.identity`.
        before: names found earlier for the same rows, which are gone on from.
    """
    length = canvas.block_length
    tokens = canvas.tokens[:, : stop * length].cpu().numpy()
    positions = canvas.positions(0, stop * length).cpu().numpy()
    rows = []
    for row, padding in enumerate(canvas.padding.tolist()):
        first, inside = divmod(padding, length)
        names = list(before[row]) if before else []
        last = names[-1] if names else hashlib.blake2b(repr((identity, length, inside)).encode()).digest()
        for block in range(first + len(names), stop):
            columns = slice(max(block * length, padding), (block + 1) * length)
            content = tokens[row, columns].tobytes() + positions[row, columns].tobytes()
            last = hashlib.blake2b(last + content).digest()
            names.append(last)
        rows.append(names)
    return rows
