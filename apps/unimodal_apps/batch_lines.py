"""Requests from a JSONL file: every line is checked before anything is computed."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from unimodal.arguments import read_texts
from unimodal.settings import checked
from unimodal_apps.options import Run, Settings
from unimodal_apps.requests import Request, Source
from unimodal_apps.session import pick_seed
from unimodal_apps.standard_streams import DASH, read_lines

TEXT_KEYS = {
    "understand": "question",
    "generate": "prompt",
    "edit": "instruction",
    "interleave": "prompt",
    "infill": "text",
}
WITH_PICTURES = {"understand": True, "edit": True, "interleave": False, "infill": False}
"""Whether a line of these tasks must have pictures; lines of the others have none."""
DRAWN, WRITTEN = ("generate", "edit"), ("understand", "infill")
"""Tasks of pictures alone, and of text alone."""

_ID = re.compile(r"\w[\w.-]{0,99}")


@dataclass(frozen=True)
class Line:
    """A request and where it stands.

    Args:
        number: in the file, from 1.
        id: names its files.
        digest: of all that the line and the options state, to tell whether a result is of this request.
    """

    number: int
    id: str
    request: Request
    digest: str


def read_requests(source: str, task: str, settings: Settings, run: Run, count: int) -> list[Line]:
    """The requests of a file, in order; blank lines count but ask for nothing.

    Args:
        settings, count: what lines leave open.

    Raises:
        ValueError: a line that cannot be used; the message names it and the others that are wrong.
    """
    reader = _Reader(source, task, settings, run, count)
    found: list[Line] = []
    wrong: dict[int, str] = {}
    for number, text in enumerate(read_lines(source), start=1):
        if not text.strip():
            continue
        try:
            found.append(reader.read(number, text))
        except ValueError as error:
            wrong[number] = str(error)
    name = "the standard input" if source == DASH else source
    if wrong:
        first, *others = wrong
        also = f" (also wrong: {', '.join(f'line {number}' for number in others)})" if others else ""
        raise ValueError(f"{name}, line {first}: {wrong[first]}{also}")
    if not found:
        raise ValueError(f"--input: {name} has no line that asks for something")
    return found


class _Reader:
    def __init__(self, source: str, task: str, settings: Settings, run: Run, count: int):
        self._task, self._settings, self._run, self._count = task, settings, run, count
        self._folder = Path() if source == DASH else Path(source).expanduser().parent
        self._text_key = TEXT_KEYS[task]
        self._model = _line_model(task, type(settings))
        self._base_seed = pick_seed(run.seed)
        self._seen: dict[str, int] = {}

    def read(self, number: int, text: str) -> Line:
        values = self._values(text)
        stated = checked(self._model, values).model_dump(exclude_unset=True)
        [words] = read_texts(self._text_key, stated.pop(self._text_key))
        name = self._name(number, stated.pop("id", None))
        seed, count = stated.pop("seed", None), stated.pop("num_images", self._count)
        sources = self._sources(stated.pop("images", []))
        mask = stated.pop("mask", None)
        request = Request(
            task=self._task,
            text=words,
            seed=self._seed(name) if seed is None else seed,
            sources=sources,
            count=count,
            mask=None if mask is None else Source.read(str(self._folder / mask), "mask", keep=False),
            arguments={**self._settings.stated(), **_without_none(stated)},
        )
        is_seeded = seed is not None or self._run.seed is not None
        return Line(number, name, request, _digest(request, self._run.model, is_seeded))

    def _values(self, text: str) -> dict[str, Any]:
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ValueError(f"it is not JSON ({error})") from None
        if isinstance(values, str):
            values = {self._text_key: values}
        if not isinstance(values, dict):
            raise ValueError(f"it must be an object with {self._text_key!r}, got {text.strip()[:40]}")
        if unknown := [name for name in values if name not in self._model.model_fields]:
            raise ValueError(f"there is no {unknown[0]!r}, allowed are {', '.join(self._model.model_fields)}")
        return values

    def _name(self, number: int, stated: str | int | None) -> str:
        name = str(number if stated is None else stated)
        if not _ID.fullmatch(name):
            raise ValueError(f"id: {name!r} must be letters, digits, and . _ - after the first, 100 at most")
        # Some file systems do not tell capitals from small letters.
        earlier = self._seen.setdefault(name.casefold(), number)
        if earlier != number:
            raise ValueError(f"id: {name!r} is already that of line {earlier}")
        return name

    def _sources(self, stated: str | list[str]) -> tuple[Source, ...]:
        paths = [stated] if isinstance(stated, str) else stated
        if not paths and WITH_PICTURES.get(self._task, False):
            raise ValueError("images: give at least one picture file")
        return tuple(Source.read(str(self._folder / path), "images", keep=False) for path in paths)

    def _seed(self, name: str) -> int:
        """Of a line that states none: from the seed of the run and the line's id, whatever stands around it."""
        return int.from_bytes(hashlib.sha256(f"{self._base_seed} {name}".encode()).digest()[:4], "big") >> 1


def _line_model(task: str, settings: type[Settings]) -> type[BaseModel]:
    """What a line may state."""
    keys: dict[str, Any] = {TEXT_KEYS[task]: (str, ...)}
    if task in WITH_PICTURES:
        keys["images"] = (str | list[str], ... if WITH_PICTURES[task] else [])
    if task == "edit":
        keys["mask"] = (str | None, None)
    keys |= {"id": (str | int | None, None), "seed": (int | None, Field(None, ge=0))}
    if task in DRAWN:
        keys["num_images"] = (int, Field(1, ge=1))
    keys |= {name: (kind | None, None) for name, kind in get_type_hints(settings).items()}
    return create_model("Line", __config__=ConfigDict(extra="forbid", strict=True), **keys)


def _without_none(stated: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stated.items() if value is not None}


def _digest(request: Request, model: str, is_seeded: bool) -> str:
    stated = {
        "task": request.task,
        "text": request.text,
        "sources": [source.sha256 for source in request.sources],
        "mask": None if request.mask is None else request.mask.sha256,
        "count": request.count,
        "arguments": dict(request.arguments),
        "model": model,
        "seed": request.seed if is_seeded else None,
    }
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
