"""A single dash in place of a prompt, a picture or an output file: the standard input and output."""

import sys
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from unimodal_apps.fingerprints import picture_sha256
from unimodal_apps.requests import Source

DASH = "-"


class StandardInput:
    """The standard input, which one argument can take."""

    def __init__(self) -> None:
        self._taken_by: str | None = None

    def text(self, name: str, value: str) -> str:
        """The text itself, or where it is a dash what the standard input holds.

        Raises:
            ValueError: it is empty, no UTF-8, or taken by another argument.
        """
        if value != DASH:
            return value
        try:
            text = self._read(name).decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}: the standard input is not UTF-8 text ({error})") from None
        if not text:
            raise ValueError(f"{name}: the standard input is empty")
        return text

    def source(self, name: str, path: str, *, keep: bool = True) -> Source:
        """The picture of a file, or where the path is a dash of the standard input.

        Raises:
            ValueError: there is no picture, or the standard input is taken by another argument.
        """
        if path != DASH:
            return Source.read(path, name, keep=keep)
        try:
            with Image.open(BytesIO(self._read(name))) as image:
                image.load()
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{name}: the standard input is not a picture that can be read ({error})") from error
        return Source(None, picture_sha256(image), image)

    def _read(self, name: str) -> bytes:
        if self._taken_by is not None:
            raise ValueError(f"{name}: the standard input is taken by {self._taken_by}, only one argument can be -")
        self._taken_by = name
        return sys.stdin.buffer.read()


def read_lines(path: str) -> list[str]:
    """The lines of a file, or where the path is a dash of the standard input.

    Raises:
        ValueError: no such file, or no UTF-8.
    """
    try:
        content = sys.stdin.buffer.read() if path == DASH else _file(path).read_bytes()
        # Not `splitlines`, which also breaks at signs that JSON allows inside a text.
        return [line.rstrip("\r") for line in content.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise ValueError(f"--input: {path!r} is not UTF-8 text ({error})") from None


def _file(path: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"--input: there is no file {path!r}")
    return file


def check_dash_output(output: str | None, count: int, as_json: bool) -> bool:
    """Whether the picture goes to the standard output.

    Raises:
        ValueError: it cannot take what is asked for.
    """
    if output != DASH:
        return False
    if count != 1:
        raise ValueError(f"--output: - takes one picture, {count} were asked for")
    if as_json:
        raise ValueError("--output: - is for the picture, so that --json has no place to go")
    if sys.stdout.isatty():
        raise ValueError("--output: - writes the bytes of a picture, send them to a file or a program")
    return True
