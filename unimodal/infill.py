"""Texts with gaps: how they are written down, what may stand in a gap, and forms made of them.

    "The <gap:2> sat on the <gap>."                         two tokens exactly; up to as many as the call allows
    ["The ", Gap(tokens=2), " sat on the ", Gap(), "."]     the same in parts, whose texts are taken as they are
    "a tag is written \\<gap>"                               a backslash makes a tag plain text, two are one and a gap

Gaps are masks of the diffusion: a gap of free length is as many masks as it may have tokens, and those that the model
fills with its end-of-text token are dropped. What is known is never changed, neither its characters nor its tokens.
Tokenizers join a space to the word behind it, so a space before a gap comes with the first token of the gap.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

Content = Literal["text", "line", "quoted", "word", "next_word", "number"]

_TAG = re.compile(r"(\\*)<gap(?::([^<>]*))?>")


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A place to fill.

    Args:
        tokens: exactly so many tokens; None = a free length.
        at_most: the largest free length in tokens; None = the `gap_length` of the call.
        at_least: the smallest free length in tokens.
        content: any `text`; a `line` (no line break); what may stand between JSON quotes (`quoted`); one `word`
            without white space, quotes or backslashes, or a space and such a word (`next_word`); a whole `number` in
            decimal digits. Words and numbers are never empty.

    Raises:
        ValueError: a length below 1, a smallest length above the largest, a fixed and a free length, or another
            content.
    """

    tokens: int | None = None
    at_most: int | None = None
    at_least: int = 0
    content: Content = "text"

    def __post_init__(self) -> None:
        for name in ("tokens", "at_most"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}: got {value!r}, a gap has a whole number of tokens, at least 1")
        if isinstance(self.at_least, bool) or not isinstance(self.at_least, int) or self.at_least < 0:
            raise ValueError(f"at_least: got {self.at_least!r}, it must be a whole number of at least 0")
        if self.tokens is not None and (self.at_most is not None or self.at_least):
            raise ValueError(f"tokens: got {self.tokens} beside at_most or at_least, a gap of fixed length has neither")
        if self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least: got {self.at_least}, it must be at most at_most, {self.at_most}")
        if self.content not in get_args(Content):
            raise ValueError(f"content: got {self.content!r}, allowed are {', '.join(get_args(Content))}")

    @property
    def is_free(self) -> bool:
        return self.tokens is None

    @property
    def least(self) -> int:
        """The tokens that it has at least."""
        return self.tokens or max(self.at_least, self.content in ("word", "next_word", "number"))

    def room(self, gap_length: int) -> int:
        """The tokens that it has room for, where free gaps that state no length have room for `gap_length`."""
        return self.tokens or self.at_most or max(gap_length, self.at_least)


Part = str | Gap
GappedText = str | Sequence[Part]


def parse_gaps(text: str) -> list[Part]:
    """The parts of a text in which gaps are written as `<gap>`, or `<gap:5>` for five tokens exactly.

    Raises:
        ValueError: a tag with anything else than a number of at least 1.
    """
    parts: list[Part] = []
    known, end = "", 0
    for match in _TAG.finditer(text):
        slashes, length = match.groups()
        known += text[end : match.start()] + "\\" * (len(slashes) // 2)
        end = match.end()
        if len(slashes) % 2:
            known += text[match.start(1) + len(slashes) : end]
            continue
        if length is not None and not (length.isascii() and length.isdigit() and int(length)):
            raise ValueError(
                f"text: got the gap {match.group()!r}, allowed are <gap> and <gap:N> with N of at least 1; "
                "a backslash before it makes it plain text"
            )
        parts += [known, Gap(tokens=int(length) if length else None)]
        known = ""
    return [part for part in (*parts, known + text[end:]) if part != ""]


def read_gapped_texts(value: GappedText | Sequence[GappedText]) -> list[list[Part]]:
    """The parts of one text or of a list of texts. A list that holds a `Gap` is one text in parts.

    Raises:
        ValueError: something else, or a text without a gap.
    """
    if isinstance(value, str) or (isinstance(value, Sequence) and any(isinstance(part, Gap) for part in value)):
        texts: list[Any] = [value]
    else:
        texts = list(value) if isinstance(value, Sequence) else []
    if not texts:
        raise ValueError(f"text: got {value!r}, it must be a text with gaps, its parts, or a list of such texts")
    found = [parse_gaps(text) if isinstance(text, str) else _joined(text) for text in texts]
    for text, parts in zip(texts, found, strict=True):
        if not any(isinstance(part, Gap) for part in parts):
            raise ValueError(f"text: {text!r} has no gap; one is written as <gap>, or as <gap:5> for five tokens")
    return found


def _joined(parts: Any) -> list[Part]:
    """Texts that follow one another as one, so that they are tokenised together."""
    if not isinstance(parts, Sequence) or any(not isinstance(part, str | Gap) for part in parts):
        raise ValueError(f"text: got {parts!r}, the parts of a text are strings and gaps")
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    return joined


def exactly_words(count: int, *, tokens_per_word: int = 1) -> list[Part]:
    """An answer of exactly `count` words with single spaces between them.

    Args:
        tokens_per_word: tokens that a word may have. More than 1 allows rarer words, and leaves it to the model which
            of its places stay empty.

    Raises:
        ValueError: a number below 1.
    """
    for name, value in (("count", count), ("tokens_per_word", tokens_per_word)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: got {value!r}, it must be a whole number of at least 1")
    return [Gap(at_most=tokens_per_word, content="next_word" if place else "word") for place in range(count)]


def json_template(values: Mapping[str, Any]) -> list[Part]:
    """A JSON object with fixed keys, whose gaps are filled so that the whole is JSON.

    Args:
        values: for each key a gap, a nested mapping or list, or a fixed value. A gap is filled with a string, or with
            a number where its content is `number`.

    Raises:
        ValueError: a value that JSON does not know.
    """
    return _joined(_json_parts(values))


def _json_parts(value: Any) -> list[Part]:
    if isinstance(value, Gap):
        if value.content == "number":
            return [value]
        content: Content = "word" if value.content in ("word", "next_word") else "quoted"
        return ['"', replace(value, content=content), '"']
    if isinstance(value, Mapping):
        entries = [[f"{json.dumps(str(key), ensure_ascii=False)}: ", *_json_parts(own)] for key, own in value.items()]
        return ["{", *_separated(entries), "}"]
    if isinstance(value, list | tuple):
        return ["[", *_separated([_json_parts(own) for own in value]), "]"]
    try:
        return [json.dumps(value, ensure_ascii=False, allow_nan=False)]
    except (TypeError, ValueError) as error:
        raise ValueError(f"values: got {value!r}, which JSON does not know") from error


def _separated(entries: Sequence[Sequence[Part]]) -> list[Part]:
    return [part for place, entry in enumerate(entries) for part in ([", ", *entry] if place else entry)]
