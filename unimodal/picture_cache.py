"""The codes of pictures that were encoded lately, so that a picture which comes again is not encoded again."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

from PIL import Image
from torch import Tensor, nn

from unimodal.model_identity import ModelIdentities


class PictureCache:
    """Codes by the pixels of a picture and the model that encoded it. Calls may come from several threads.

    Args:
        max_pictures: how many are kept; the one that was not used for longest goes first.

    Raises:
        ValueError: a negative number.
    """

    def __init__(self, max_pictures: int = 64):
        if isinstance(max_pictures, bool) or not isinstance(max_pictures, int) or max_pictures < 0:
            raise ValueError(f"max_pictures: got {max_pictures!r}, it must be a whole number of 0 or more")
        self.max_pictures = max_pictures
        self._codes: OrderedDict[bytes, Tensor] = OrderedDict()
        self._identities = ModelIdentities()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._codes)

    def codes(self, picture: Image.Image, tokenizer: nn.Module, encode: Callable[[Image.Image], Tensor]) -> Tensor:
        """The codes [H, W] of a picture: those kept, or those that `encode` finds with `tokenizer`; a copy."""
        name = self._name(picture, tokenizer)
        with self._lock:
            kept = self._codes.get(name)
            if kept is not None:
                self._codes.move_to_end(name)
                return kept.clone()
        found = encode(picture)
        with self._lock:
            self._codes[name] = found.clone()
            while len(self._codes) > self.max_pictures:
                self._codes.popitem(last=False)
        return found

    def clear(self) -> None:
        with self._lock:
            self._codes.clear()

    def _name(self, picture: Image.Image, tokenizer: nn.Module) -> bytes:
        shape = repr((picture.mode, picture.size, picture.getpalette())).encode()
        return hashlib.blake2b(self._identities.of(tokenizer) + shape + picture.tobytes()).digest()
