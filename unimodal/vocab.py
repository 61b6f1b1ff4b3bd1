"""One vocabulary: text ids first, then one id per picture code. The only module that knows the offset between them.

A text-only model (LLaDA2.0, arXiv 2512.15745) has the text ids alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from unimodal_tokenizers.text import TextTokenizer

MASK, END_OF_TEXT = "<|mask|>", "<|endoftext|>"
START_OF_IMAGE, END_OF_IMAGE, BEGIN_CODES = "<|image|>", "<|/image|>", "<boi>"

ABSENT = -1
"""The id, in a text-only vocabulary, of tokens around pictures: no token has it."""

_SIZE = re.compile(r"<\|reserved_token_(\d+)\|>")


@dataclass(frozen=True, kw_only=True)
class UnifiedVocab:
    """Ids of one checkpoint.

    Args:
        vocab_size: rows of the embedding, text and codes together.
        image_token_offset: the id of code 0; text ids lie below.
        codebook_size: number of codes, 0 if there are text ids alone.
        mask_id, eos_id: a position to fill; the end of an answer.
        soi_id, eoi_id, boi_id: a picture's start, its end, and where its codes begin; `ABSENT` without codes.
        size_ids: for each grid side, in codes, the id that announces it.

    Raises:
        ValueError: the codes do not fit, or a special id is not a text id.
    """

    vocab_size: int
    image_token_offset: int
    codebook_size: int
    mask_id: int
    eos_id: int
    soi_id: int
    eoi_id: int
    boi_id: int
    size_ids: Mapping[int, int]

    def __post_init__(self) -> None:
        least = 0 if self.image_token_offset == self.vocab_size else 1
        if self.codebook_size < least or self.image_token_offset + self.codebook_size > self.vocab_size:
            raise ValueError(
                f"codebook_size: {self.codebook_size} codes from id {self.image_token_offset} on "
                f"do not fit into a vocabulary of {self.vocab_size}"
            )
        for name in ("mask_id", "eos_id", "soi_id", "eoi_id", "boi_id"):
            absent = self.is_text_only and name in ("soi_id", "eoi_id", "boi_id") and getattr(self, name) == ABSENT
            if not (absent or 0 <= getattr(self, name) < self.image_token_offset):
                raise ValueError(
                    f"{name}: got {getattr(self, name)}, allowed is a text id below {self.image_token_offset}"
                )

    @classmethod
    def from_tokenizer(
        cls, tokenizer: TextTokenizer, *, vocab_size: int, image_token_offset: int, codebook_size: int | None = None
    ) -> Self:
        """Finds the special ids by their strings.

        Args:
            codebook_size: None = all ids from the offset on.

        Raises:
            ValueError: a special string is not a single token of this tokenizer.
        """
        matches = ((_SIZE.fullmatch(token), id_) for token, id_ in tokenizer.library.get_added_vocab().items())
        return cls(
            vocab_size=vocab_size,
            image_token_offset=image_token_offset,
            codebook_size=vocab_size - image_token_offset if codebook_size is None else codebook_size,
            mask_id=tokenizer.id_of(MASK),
            eos_id=tokenizer.id_of(END_OF_TEXT),
            soi_id=tokenizer.id_of(START_OF_IMAGE),
            eoi_id=tokenizer.id_of(END_OF_IMAGE),
            boi_id=tokenizer.id_of(BEGIN_CODES),
            size_ids={int(match.group(1)): id_ for match, id_ in matches if match},
        )

    @classmethod
    def text_only(
        cls, tokenizer: TextTokenizer, *, vocab_size: int, mask_id: int | None = None, eos_id: int | None = None
    ) -> Self:
        """The vocabulary of a model without pictures.

        Args:
            mask_id, eos_id: where the tokenizer has no token of their strings.

        Raises:
            ValueError: a special string is not a single token of this tokenizer, and its id is not given.
        """
        added = tokenizer.library.get_added_vocab()
        return cls(
            vocab_size=vocab_size,
            image_token_offset=vocab_size,
            codebook_size=0,
            mask_id=tokenizer.id_of(MASK) if MASK in added or mask_id is None else mask_id,
            eos_id=tokenizer.id_of(END_OF_TEXT) if END_OF_TEXT in added or eos_id is None else eos_id,
            soi_id=ABSENT,
            eoi_id=ABSENT,
            boi_id=ABSENT,
            size_ids={},
        )

    @property
    def is_text_only(self) -> bool:
        return self.codebook_size == 0

    @property
    def text_range(self) -> tuple[int, int]:
        """First text id and one past the last."""
        return 0, self.image_token_offset

    @property
    def image_range(self) -> tuple[int, int]:
        """First id of a code and one past the last."""
        return self.image_token_offset, self.image_token_offset + self.codebook_size

    def codes_to_tokens(self, codes: Tensor) -> Tensor:
        """Codes, int of any shape, to ids of the same shape.

        Raises:
            ValueError: a code outside the codebook.
        """
        _check_range("codes", codes, 0, self.codebook_size)
        return codes.long() + self.image_token_offset

    def tokens_to_codes(self, tokens: Tensor) -> Tensor:
        """Ids of codes, int of any shape, to codes of the same shape.

        Raises:
            ValueError: an id that is not that of a code.
        """
        _check_range("tokens", tokens, *self.image_range)
        return tokens.long() - self.image_token_offset

    def is_code(self, tokens: Tensor) -> Tensor:
        """Where tokens are ids of codes, bool of the same shape."""
        first, last = self.image_range
        return (tokens >= first) & (tokens < last)

    def size_id(self, side: int) -> int:
        """The id that announces a grid side of `side` codes.

        Raises:
            ValueError: there is no such token.
        """
        if side not in self.size_ids:
            raise ValueError(f"side: got {side} codes, this vocabulary has tokens for {_ranges(self.size_ids)}")
        return self.size_ids[side]

    def size_of(self, token: int) -> int | None:
        """The grid side that `token` announces, None if it announces none."""
        return self._sides.get(int(token))

    def sides(self, tokens: Tensor) -> Tensor:
        """The grid side that each token announces, 0 where it announces none; int64 of the same shape."""
        if tokens.device not in self._side_tables:
            table = torch.zeros(self.vocab_size, dtype=torch.long)
            table[list(self._sides)] = torch.tensor(list(self._sides.values()), dtype=torch.long)
            self._side_tables[tokens.device] = table.to(tokens.device)
        return self._side_tables[tokens.device][tokens]

    @cached_property
    def _sides(self) -> dict[int, int]:
        return {id_: side for side, id_ in self.size_ids.items()}

    @cached_property
    def _side_tables(self) -> dict[torch.device, Tensor]:
        return {}


def _check_range(name: str, values: Tensor, first: int, last: int) -> None:
    if values.is_floating_point() or values.is_complex():
        raise ValueError(f"{name}: got {values.dtype}, allowed are whole numbers")
    if values.numel() and (int(values.min()) < first or int(values.max()) >= last):
        raise ValueError(f"{name}: got {int(values.min())} to {int(values.max())}, allowed is {first} to {last - 1}")


def _ranges(sides: Mapping[int, int]) -> str:
    """Whole numbers written as runs of step 1 or 2: '8, 10 to 34 in steps of 2, 36 to 255'."""
    ordered = sorted(sides)
    runs: list[tuple[int, int, int]] = []
    for side in ordered:
        if runs:
            first, last, step = runs[-1]
            if side - last == step or (first == last and side - last <= 2):
                runs[-1] = (first, side, side - last)
                continue
        runs.append((side, side, 1))
    words = [
        f"{first}" if first == last else f"{first} to {last}" + (f" in steps of {step}" if step > 1 else "")
        for first, last, step in runs
    ]
    return ", ".join(words) or "no side"
