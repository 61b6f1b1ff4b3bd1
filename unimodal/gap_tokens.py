"""Texts with gaps as tokens, which tokens a gap may hold, and the filled tokens as text again."""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unimodal.infill import Content, Gap, Part
from unimodal.vocab import UnifiedVocab
from unimodal_tokenizers.text import TextTokenizer


class Kind(NamedTuple):
    """What a masked position may hold.

    Args:
        content: that of its gap.
        first: it is the first of its gap.
        spaced: its token begins with the space that stands before the gap.
        may_end: the gap may end before it.
        without_zero: its token does not begin with 0.
    """

    content: Content
    first: bool
    spaced: bool
    may_end: bool
    without_zero: bool


@dataclass(frozen=True, kw_only=True)
class FilledText:
    """A text whose gaps are filled: as text, what the gaps hold, and its tokens without those that were left empty."""

    text: str
    gaps: list[str]
    tokens: list[int]


@dataclass(frozen=True, kw_only=True)
class GappedSequence:
    """A text with gaps in tokens.

    Args:
        parts: texts and gaps.
        tokens: ids, the mask id in the gaps.
        spans: for each part the tokens [start, stop) that it has.
        kinds: for each token what may stand there, None where it is known.
    """

    parts: Sequence[Part]
    tokens: list[int]
    spans: list[tuple[int, int]]
    kinds: list[Kind | None]

    @property
    def first_gap(self) -> int:
        """Tokens before the first gap."""
        return next(place for place, kind in enumerate(self.kinds) if kind is not None)


class GapTokens:
    """Writes gapped texts with the ids of one checkpoint, and reads what was filled in."""

    def __init__(self, text_tokenizer: TextTokenizer, vocab: UnifiedVocab):
        self.text_tokenizer = text_tokenizer
        self.vocab = vocab

    def write(self, parts: Sequence[Part], gap_length: int) -> GappedSequence:
        """Each text between two gaps is tokenised on its own, so that its tokens do not depend on what is filled in.

        A space before a gap is left to the first token of the gap.

        Args:
            gap_length: the largest length of free gaps that do not state one.

        Raises:
            ValueError: a known text that holds the mask token of the model.
        """
        tokens: list[int] = []
        spans: list[tuple[int, int]] = []
        kinds: list[Kind | None] = []
        for place, part in enumerate(parts):
            start = len(tokens)
            if isinstance(part, str):
                known = self._encode(part[:-1] if _gives_space(parts, place) else part)
                tokens += known
                kinds += [None] * len(known)
            else:
                room = part.room(gap_length)
                tokens += [self.vocab.mask_id] * room
                spaced = place > 0 and _gives_space(parts, place - 1)
                kinds += [_kind(part, index, room, spaced) for index in range(room)]
            spans.append((start, len(tokens)))
        return GappedSequence(parts=parts, tokens=tokens, spans=spans, kinds=kinds)

    def read(self, sequence: GappedSequence, tokens: Sequence[int]) -> FilledText:
        """What stands in the gaps of `sequence`, whose filled tokens are given."""
        kept: list[int] = []
        texts: list[str] = []
        gaps: list[str] = []
        for place, (part, span) in enumerate(zip(sequence.parts, sequence.spans, strict=True)):
            own = list(tokens[slice(*span)])
            if isinstance(part, Gap):
                own = self._filling(part, own, ends_text=place == len(sequence.parts) - 1)
                written = self.text_tokenizer.decode(own, skip_special_tokens=False)
                gaps.append(written[1:] if place > 0 and _gives_space(sequence.parts, place - 1) else written)
                texts.append(gaps[-1])
            else:
                texts.append(part)
            kept += own
        return FilledText(text="".join(texts), gaps=gaps, tokens=kept)

    def allowed(self, kinds: Sequence[Kind]) -> Tensor:
        """Which text tokens each kind of position may hold, bool [K, V], V text ids.

        Raises:
            ValueError: the tokenizer has no token that could stand there.
        """
        allowed = torch.zeros(len(kinds), self.vocab.image_token_offset, dtype=torch.bool)
        for row, kind in zip(allowed, kinds, strict=True):
            ids = _fitting(self.text_tokenizer, kind._replace(may_end=False))
            ids = ids[ids < len(row)]
            if not len(ids):
                raise ValueError(
                    f"content: the tokenizer has no token with which a {kind.content!r} gap could be filled"
                )
            row[ids] = True
            row[self.vocab.eos_id] = kind.may_end
        return allowed

    def _encode(self, text: str) -> list[int]:
        known = self.text_tokenizer.encode(text)
        if self.vocab.mask_id in known:
            raise ValueError(f"text: {text!r} holds the mask token of the model, write a gap instead")
        return known

    def _filling(self, gap: Gap, tokens: list[int], *, ends_text: bool) -> list[int]:
        """The tokens of a gap without those that were left empty.

        At the end of a text the first end token ends it. Elsewhere what follows an empty place is part of the gap:
        the model wrote it next to what stands on the right.
        """
        end = self.vocab.eos_id
        if ends_text and end in tokens:
            tokens = tokens[: tokens.index(end)]
        tokens = [token for token in tokens if token != end]
        if gap.content == "number" and gap.is_free:
            zero = self.text_tokenizer.encode("0")
            while len(tokens) > 1 and tokens[:1] == zero:
                tokens = tokens[1:]
        return tokens


def _gives_space(parts: Sequence[Part], place: int) -> bool:
    """Whether the text at `place` ends with a space that belongs to the first token of the gap behind it."""
    known, gap = parts[place], parts[place + 1] if place + 1 < len(parts) else None
    return (
        isinstance(known, str)
        and known.endswith(" ")
        and isinstance(gap, Gap)
        and gap.content not in ("next_word", "number")
    )


def _kind(gap: Gap, index: int, room: int, spaced: bool) -> Kind:
    first = index == 0
    return Kind(
        content="next_word" if spaced and gap.content == "word" else gap.content,
        first=first,
        spaced=first and spaced,
        may_end=index >= max(gap.least, spaced),
        # A free gap drops zeros at its beginning, one of fixed length cannot.
        without_zero=gap.content == "number" and first and not gap.is_free and room > 1,
    )


_PART_OF_WORD = re.compile(r"""[^\s"'\\\uFFFD\x00-\x1F]+""")
_NUMBER = re.compile("0|[1-9][0-9]*")
_NUMBER_WITHOUT_ZERO = re.compile("[1-9][0-9]*")
_TEXT = re.compile("(?s:.+)")
_QUOTED = re.compile(r"""[^"\\\x00-\x1F]+""")
_LINE = re.compile(r"[^\r\n\v\f\x1C-\x1E\x85\u2028\u2029]+")


def _rule(kind: Kind) -> Callable[[str], bool]:
    """Whether the text of a token may stand at a position of a kind."""
    if kind.content in ("word", "next_word"):
        if not kind.first:
            return lambda piece: bool(_PART_OF_WORD.fullmatch(piece))
        space = " " if kind.content == "next_word" else ""
        return lambda piece: (
            piece.startswith(space)
            and bool(_PART_OF_WORD.fullmatch(piece[len(space) :]))
            and any(character.isalnum() for character in piece)
        )
    if kind.content == "number":
        pattern = _NUMBER_WITHOUT_ZERO if kind.without_zero else _NUMBER
    else:
        pattern = {"text": _TEXT, "line": _LINE, "quoted": _QUOTED}[kind.content]
    return lambda piece: bool(pattern.fullmatch(piece)) and (not kind.spaced or piece.startswith(" "))


@functools.lru_cache(maxsize=32)
def _fitting(text_tokenizer: TextTokenizer, kind: Kind) -> Tensor:
    """The ids of the ordinary tokens that may stand at a position of a kind, int64 [n]."""
    fits = _rule(kind)
    return torch.tensor([id_ for id_, piece in _pieces(text_tokenizer).items() if fits(piece)], dtype=torch.long)


@functools.lru_cache(maxsize=4)
def _pieces(text_tokenizer: TextTokenizer) -> dict[int, str]:
    """The text of every ordinary token, by id: those that were added to the vocabulary stand for no text."""
    library = text_tokenizer.library
    ids = sorted(set(library.get_vocab().values()) - set(library.get_added_vocab().values()))
    return dict(zip(ids, library.backend_tokenizer.decode_batch([[id_] for id_ in ids]), strict=True))
