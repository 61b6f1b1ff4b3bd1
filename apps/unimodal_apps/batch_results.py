"""`results.jsonl`: what a batch has made, a line each, so that it can go on where it stopped."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unimodal.output_files import check_writable, save_text
from unimodal_apps.batch_lines import Line

FILE_NAME = "results.jsonl"


class Results:
    """The results of a folder; a line is added when the files that it names are whole.

    Raises:
        ValueError: the folder cannot be written, or the file holds something else.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).expanduser()
        self.path = check_writable(self.folder / FILE_NAME)
        self._entries, self._is_cut = _read(self.path)

    def left(self, lines: Iterable[Line]) -> list[Line]:
        """The lines without a result.

        Raises:
            ValueError: there is a result with the id of a line that was made from something else.
        """
        left = []
        for line in lines:
            entry = self._entries.get(line.id)
            if entry is None or not all((self.folder / name).is_file() for name in entry["files"]):
                left.append(line)
            elif entry["request"] != line.digest:
                raise ValueError(
                    f"line {line.number}: {self.path} has a result {line.id!r} of another request, model or seed; "
                    f"give another id or another --output"
                )
        return left

    def add(self, entry: Mapping[str, Any]) -> None:
        """Writes a line, through to the disk."""
        if self._is_cut:
            # A line that was cut off when an earlier run ended is dropped; what it stood for is made again.
            if self._entries:
                save_text("".join(_line(kept) for kept in self._entries.values()), self.path)
            else:
                self.path.unlink()
            self._is_cut = False
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _read(path: Path) -> tuple[dict[str, dict[str, Any]], bool]:
    """The entries by id, later ones first served, and whether the last line is cut off."""
    if not path.is_file():
        return {}, False
    *lines, last = path.read_text(encoding="utf-8", errors="replace").split("\n")
    entries: dict[str, dict[str, Any]] = {}
    for number, text in enumerate(lines, start=1):
        try:
            entry = json.loads(text)
            entries[entry["id"]] = {"files": list(entry["files"]), "request": entry["request"]} | entry
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}, line {number}: it is no result of a batch, choose another --output") from None
    return entries, bool(last)
