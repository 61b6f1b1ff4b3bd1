"""Tokens as the words people read, one piece of text for each place."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from unimodal_apps.studio.frames import UNDECIDED

END = "end"
"""The name of the token that ends a text."""
_BROKEN = "\N{REPLACEMENT CHARACTER}"
_LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8, and so tokens that it may be spread over."""


@dataclass(frozen=True)
class Piece:
    """What stands at one place: text, nothing yet (`text` is None), or a special token under a short name."""

    text: str | None
    special: bool = False


class Words:
    """Pieces of text from the ids of one checkpoint."""

    def __init__(self, pipe: Any):
        self._tokenizer, self._vocab = pipe.text_tokenizer, pipe.vocab
        self._piece = cache(self._read)

    def pieces(self, ids: np.ndarray) -> list[Piece]:
        """One piece per id [n]. Of several tokens that make up one character the first has it, the others nothing."""
        values = ids.tolist()
        pieces = [Piece(None) if value == UNDECIDED else self._piece(value) for value in values]
        for place, piece in enumerate(pieces):
            if piece.text is None or piece.special or _BROKEN not in piece.text:
                continue
            for length in range(2, _LONGEST_CHARACTER + 1):
                run = values[place : place + length]
                if len(run) < length or UNDECIDED in run:
                    break
                joined = self._tokenizer.decode(run)
                if _BROKEN not in joined:
                    pieces[place : place + length] = [Piece(joined), *[Piece("")] * (length - 1)]
                    break
        return pieces

    def text(self, ids: Sequence[int] | np.ndarray) -> str:
        """The words that are decided, without special tokens."""
        return self._tokenizer.decode([int(value) for value in ids if value != UNDECIDED])

    def _read(self, value: int) -> Piece:
        vocab = self._vocab
        first, last = vocab.image_range
        if first <= value < last:
            return Piece("code", special=True)
        names = {vocab.eos_id: END, vocab.soi_id: "picture", vocab.boi_id: "begins", vocab.eoi_id: "picture ends"}
        if value in names:
            return Piece(names[value], special=True)
        side = vocab.size_of(value)
        if side is not None:
            return Piece(str(side), special=True)
        plain = self._tokenizer.decode([value])
        raw = self._tokenizer.decode([value], skip_special_tokens=False)
        if raw and not plain:
            return Piece(raw.strip("<|>"), special=True)
        return Piece(raw)
