"""Keys and values of a finished prefix, kept between forwards.

A block never sees a later one, so the keys and values of finished blocks are final and reusing them is exact.
For inference only: what is stored is detached.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class _Views(NamedTuple):
    """Parts of a layer's buffer: what a forward writes, from and up to `place`, and what it reads."""

    place: tuple[int, int]
    own_keys: Tensor
    own_values: Tensor
    keys: Tensor
    values: Tensor


class PrefixCache:
    """Keys (after norm and rotation) and values of the first `length` positions, for each layer.

    Both are [B, kv_heads, length, head_dim].

    The buffers grow by doubling, and stay where they are while they suffice. A forward writes its own keys and values
    behind the prefix and reads both as one view; they stay only if `append` is called afterwards (the model does so
    under `update_cache=True`).
    """

    def __init__(self, num_layers: int, capacity: int = 0) -> None:
        """`capacity` positions are reserved at the first write; more are added when needed."""
        self.length = 0
        self._capacity = capacity
        self._buffers: list[Tensor | None] = [None] * num_layers  # each [2, B, kv_heads, capacity, head_dim]
        # Where each layer wrote last and what it read, as views: the steps of a block do the same again and again.
        self._views: list[_Views | None] = [None] * num_layers

    @property
    def num_layers(self) -> int:
        return len(self._buffers)

    def keys(self, layer: int) -> Tensor:
        """[B, kv_heads, length, head_dim], a view."""
        return self.pair(layer)[0]

    def values(self, layer: int) -> Tensor:
        """[B, kv_heads, length, head_dim], a view."""
        return self.pair(layer)[1]

    def pair(self, layer: int) -> Tensor:
        """Keys and values [2, B, kv_heads, length, head_dim], a view."""
        return self.buffer(layer)[:, :, :, : self.length]

    def buffer(self, layer: int) -> Tensor:
        """All that is reserved, [2, B, kv_heads, capacity, head_dim]."""
        buffer = self._buffers[layer]
        if buffer is None:
            raise ValueError(f"layer: nothing has been written to layer {layer} of this cache")
        return buffer

    @property
    def capacity(self) -> int:
        """Positions that are reserved in every layer; 0 before the first write."""
        return min((0 if buffer is None else buffer.shape[3]) for buffer in self._buffers)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes keys and values [B, kv_heads, L, head_dim] behind the prefix of one layer.

        Returns:
            keys and values of prefix and news together, two views [B, kv_heads, length + L, head_dim].
        """
        stop = self.length + keys.shape[2]
        buffer = self._reserve(layer, keys, stop)
        if buffer.shape[1] != keys.shape[0]:
            raise ValueError(f"cache: holds {buffer.shape[1]} rows, the forward has {keys.shape[0]}")
        views = self._views[layer]
        if views is None or views.place != (self.length, stop):
            own, whole = buffer[:, :, :, self.length : stop], buffer[:, :, :, :stop]
            views = self._views[layer] = _Views((self.length, stop), own[0], own[1], whole[0], whole[1])
        views.own_keys.copy_(keys.detach())
        views.own_values.copy_(values.detach())
        return views.keys, views.values

    def append(self, count: int) -> None:
        """Makes the last `count` positions written by `extend` in every layer part of the prefix."""
        if self.length + count > self.capacity:
            raise ValueError(f"count: {count} positions were not written behind the {self.length} kept ones")
        self.length += count

    def truncate(self, length: int) -> None:
        """Forgets every position from `length` on."""
        if not 0 <= length <= self.length:
            raise ValueError(f"length: got {length}, the cache holds {self.length}")
        self.length = length

    def select(self, rows: Tensor | Sequence[int]) -> "PrefixCache":
        """A new cache of the batch rows `rows` (repeats allowed), in that order, with as much room as this one."""
        chosen = torch.as_tensor(rows, dtype=torch.long)
        fresh = PrefixCache(self.num_layers, self._capacity)
        fresh.length = self.length
        fresh._buffers = [
            None if buffer is None else buffer.index_select(1, chosen.to(buffer.device)) for buffer in self._buffers
        ]
        return fresh

    def gather(self, positions: Sequence[Tensor], room: int = 0) -> "PrefixCache":
        """A new cache of chosen positions, which may differ from layer to layer and from row to row (pruned prefixes).

        Args:
            positions: per layer int [B, kept], the same `kept` everywhere.
            room: positions to reserve behind them.
        """
        kept = positions[0].shape[1]
        fresh = PrefixCache(self.num_layers, kept + room)
        for layer, chosen in enumerate(positions):
            pair = self.pair(layer)
            index = chosen.to(pair.device)[None, :, None, :, None].expand(2, -1, pair.shape[2], -1, pair.shape[4])
            fresh._write(layer, 0, pair.gather(3, index))
        fresh.length = kept
        return fresh

    @classmethod
    def joined(cls, rows: Sequence[Sequence[Sequence[Tensor]]], length: int, capacity: int = 0) -> "PrefixCache":
        """A new cache from stored parts; where a row has fewer than `length` positions, it starts with zeros.

        Args:
            rows: for each row its parts in order, a part being for each layer keys and values
                [2, kv_heads, positions, head_dim].
            length: positions of the longest row, or more.
            capacity: positions to reserve in all.
        """
        sample = next(part for parts in rows for part in parts)
        fresh = cls(len(sample), max(capacity, length))
        for layer, like in enumerate(sample):
            buffer = like.new_zeros(2, len(rows), like.shape[1], fresh._capacity, like.shape[3])
            for row, parts in enumerate(rows):
                if parts:
                    whole = torch.cat([part[layer] for part in parts], dim=2)
                    buffer[:, row, :, length - whole.shape[2] : length] = whole
            fresh._buffers[layer] = buffer
        fresh.length = length
        return fresh

    def _write(self, layer: int, start: int, pair: Tensor) -> None:
        buffer = self._reserve(layer, pair[0], start + pair.shape[3])
        buffer[:, :, :, start : start + pair.shape[3]] = pair

    def _reserve(self, layer: int, like: Tensor, needed: int) -> Tensor:
        buffer = self._buffers[layer]
        if buffer is not None and buffer.shape[3] >= needed:
            return buffer
        batch, heads, _, width = like.shape
        capacity = max(needed, self._capacity, 0 if buffer is None else 2 * buffer.shape[3])
        grown = like.new_zeros(2, batch, heads, capacity, width).detach()
        if buffer is not None and self.length:
            grown[:, :, :, : self.length] = buffer[:, :, :, : self.length]
        self._buffers[layer], self._views[layer] = grown, None
        return grown


class CacheWindow:
    """A `PrefixCache` that a step reads at a fixed width, and writes at places that are a tensor.

    So the shapes and addresses of a step stay the same while the prefix grows, as a recorded CUDA graph needs them. The
    mask hides what lies beyond the prefix and the step.

    Raises:
        ValueError: `width` is more than the cache has reserved.
    """

    def __init__(self, cache: PrefixCache, width: int, places: Tensor) -> None:
        """`width` positions are read; those of the step are written at `places`, int64 [L]."""
        if width > cache.capacity:
            raise ValueError(f"width: got {width}, the cache has reserved {cache.capacity} positions")
        self.length = width - len(places)
        self._width = width
        self._places = places
        self._buffers = [cache.buffer(layer) for layer in range(cache.num_layers)]

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """As `PrefixCache.extend`, [B, kv_heads, width, head_dim]."""
        buffer = self._buffers[layer]
        buffer[0].index_copy_(2, self._places, keys.detach())
        buffer[1].index_copy_(2, self._places, values.detach())
        return buffer[0, :, :, : self._width], buffer[1, :, :, : self._width]

    def append(self, count: int) -> None:
        """Refused: what a step of fixed width writes is not kept."""
        raise ValueError("update_cache: got True, a window does not become longer")


Cache = PrefixCache | CacheWindow
