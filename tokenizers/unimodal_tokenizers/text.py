"""Text to ids and back: the checkpoint's own `tokenizer.json`, with nothing added around a text."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from transformers import PreTrainedTokenizerFast

from unimodal_configs.atomic import replacing


class TextTokenizer:
    """A byte-level BPE vocabulary; `library` is the `transformers` tokenizer it wraps."""

    def __init__(self, library: PreTrainedTokenizerFast) -> None:
        self.library = library

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Reads `tokenizer.json` and its companions from a checkpoint's folder.

        Raises:
            ValueError: the folder has no `tokenizer.json`, or one that is none.
        """
        if not (Path(folder) / "tokenizer.json").is_file():
            raise ValueError(f"folder: {folder} has no tokenizer.json")
        try:
            return cls(PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True))
        except Exception as error:  # the library underneath raises plain Exceptions
            raise ValueError(f"folder: {Path(folder) / 'tokenizer.json'} cannot be read: {error}") from error

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `tokenizer.json` and its companions."""
        with tempfile.TemporaryDirectory() as temporary:
            self.library.save_pretrained(temporary)
            for source in Path(temporary).iterdir():
                with replacing(Path(folder) / source.name) as target:
                    target.write_bytes(source.read_bytes())

    def __len__(self) -> int:
        """Ids in use, added tokens included."""
        return len(self.library)

    def encode(self, text: str) -> list[int]:
        """The ids of `text` alone; special tokens written out in it become their ids."""
        return self.library.encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`, character for character; bytes that form no character become U+FFFD."""
        text = self.library.decode(
            list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return str(text)

    def id_of(self, token: str) -> int:
        """The one id that stands for `token`.

        Raises:
            ValueError: the tokenizer splits it into several ids, or has no id for it.
        """
        ids = self.encode(token)
        if len(ids) != 1 or self.decode(ids, skip_special_tokens=False) != token:
            raise ValueError(f"token: {token!r} is not a single token of this tokenizer, it encodes to {ids}")
        return ids[0]
