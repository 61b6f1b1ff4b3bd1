"""YAML resources: model sizes, training recipes, sampling presets and the levels of the picture-book world."""

from importlib.resources import files
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
