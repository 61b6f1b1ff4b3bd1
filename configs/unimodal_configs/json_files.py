"""JSON files of a checkpoint, read with errors that name the file."""

import json
from pathlib import Path
from typing import Any


def read_json(path: str | Path) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
        ValueError: no such file, not JSON, or no object.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"folder: {path.parent} has no {path.name}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"folder: {path} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"folder: {path} must hold an object, it holds a {type(content).__name__}")
    return content
