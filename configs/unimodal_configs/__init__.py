"""YAML resources: model sizes, training recipes, sampling presets and the levels of the picture-book world."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml


def names(folder: str) -> list[str]:
    """The resources of a folder (`models`, `training`, `sampling`, `world`), sorted, without `.yaml`."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in (files(__name__) / folder).iterdir()
        if entry.name.endswith(".yaml")
    )


def read(folder: str, name: str) -> dict[str, Any]:
    """Reads `<folder>/<name>.yaml`.

    Raises:
        ValueError: no such resource; the message lists those that exist.
    """
    resource = files(__name__) / folder / f"{name}.yaml"
    if not resource.is_file():
        raise ValueError(f"name: no {folder} configuration {name!r}; there are {', '.join(names(folder))}")
    return yaml.safe_load(resource.read_text(encoding="utf-8"))


def read_file(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping.

    Raises:
        ValueError: no such file, or something else in it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"path: there is no file {str(path)!r}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"path: {str(path)!r} is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ValueError(f"path: {str(path)!r} must hold keys with values, it holds {content!r}")
    return content


def read_named(folder: str, name_or_path: str | Path) -> dict[str, Any]:
    """Reads `<folder>/<name>.yaml`, or any file whose name ends in `.yaml` or `.yml`.

    Raises:
        ValueError: no such resource or file, or one that holds no mapping.
    """
    if Path(name_or_path).suffix in (".yaml", ".yml"):
        return read_file(name_or_path)
    return read(folder, str(name_or_path))


def read_model(name_or_path: str | Path) -> dict[str, Any]:
    """The sizes of a model's components, by name or from a YAML file with the same keys as those of `models`."""
    return read_named("models", name_or_path)
