"""Whose numbers these are: tells models apart, and the states of one whose weights were changed or moved."""

import itertools
import weakref
from typing import Any

from torch import nn


class ModelIdentities:
    """Numbers the models that it is asked about; it keeps none of them alive."""

    def __init__(self) -> None:
        self._numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._counter = itertools.count()

    def of(self, model: Any) -> bytes:
        """Differs between models, and between states of one."""
        number = self._numbers.get(model)
        if number is None:
            number = self._numbers[model] = next(self._counter)
        return repr((number, weights_state(model))).encode()


def weights_state(model: Any) -> tuple[tuple[int, int], ...]:
    """Where each weight of a module lies and how often it was written; nothing for what is no module."""
    if not isinstance(model, nn.Module):
        return ()
    tensors = itertools.chain(model.parameters(), model.buffers())
    return tuple((tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors)
