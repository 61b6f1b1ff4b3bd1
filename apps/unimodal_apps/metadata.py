"""How a picture was made, carried by its file: enough to make the same picture again.

A PNG has one text chunk per field of `Record`, a JPEG or WebP all of them as JSON in its description.
"""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import torch
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field

import unimodal
from unimodal import Pipeline
from unimodal.output_files import EXIF_DESCRIPTION, save_picture
from unimodal.settings import checked
from unimodal_apps.fingerprints import checkpoint_sha256

Task = Literal["generate", "edit", "interleave", "chat"]

SECTIONS = ("thinking", "decoder", "images")
"""Sections of a checkpoint's settings that count for any task, besides the task's own."""
SETTINGS_OF: Mapping[str, str] = {"chat": "interleave"}
"""The section of a task that has none of its own name: pictures come from a conversation as from a story."""
LIBRARIES = ("torch", "transformers", "diffusers", "numpy", "pillow")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Input(_Strict):
    """A picture that went in.

    Args:
        path: as it was stated; None for one that came without a file.
        sha256: of its pixels, see `picture_sha256`.
    """

    path: str | None = None
    sha256: str


class Maker(_Strict):
    """What makes pictures: a checkpoint on a machine.

    Args:
        model: as `unimodal.load` takes it.
        model_sha256: of the checkpoint's files, None for one made from parts.
        device, hardware, dtype, threads: where and how it computes.
        versions: of this package, Python and the libraries that compute.
    """

    model: str
    model_sha256: str | None
    device: str
    hardware: str
    dtype: str
    threads: int
    versions: dict[str, str]

    @classmethod
    def of(cls, pipe: Pipeline, model: str) -> Self:
        """Reads the checkpoint's files once: keep it as long as the pipeline."""
        device = pipe.device
        return cls(
            model=model,
            model_sha256=None if pipe.folder is None else checkpoint_sha256(pipe.folder),
            device=str(device),
            hardware=torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
            dtype=str(pipe.dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            versions={
                "unimodal": unimodal.__version__,
                "python": platform.python_version(),
                **{name: version(name) for name in LIBRARIES},
            },
        )

    def differences(self, other: "Maker") -> list[str]:
        """What is not the same in another, a line each."""
        lines = []
        if self.model_sha256 != other.model_sha256:
            lines.append(f"the files of model {self.model!r} are not those that made it")
        for name in ("hardware", "dtype", "threads"):
            if getattr(self, name) != getattr(other, name):
                lines.append(f"{name}: {getattr(self, name)} then, {getattr(other, name)} now")
        for name in dict.fromkeys((*self.versions, *other.versions)):
            then, now = self.versions.get(name, "none"), other.versions.get(name, "none")
            if then != now:
                lines.append(f"version of {name}: {then} then, {now} now")
        return lines


class Record(Maker):
    """How one picture was made.

    Args:
        prompt: the prompt or instruction, of a conversation the last message.
        messages: of a conversation, up to the one that was answered; see `unimodal_apps.recorded_messages`.
        sources, mask: pictures that went in.
        seed: of the generator that the call was given.
        index, count: which of the `count` pictures of the call it is, from 0; for an interleaved answer or one in a
            conversation the place among its pictures, with a count of 1 since one generator draws them all.
        arguments: what the call stated beside prompt, pictures, count and generator.
        settings: the checkpoint's sections of settings that were in force for the rest.
    """

    task: Task
    prompt: str
    messages: list[dict[str, Any]] = []
    sources: list[Input] = []
    mask: Input | None = None
    seed: int = Field(ge=0, lt=2**64)
    index: int = Field(default=0, ge=0)
    count: int = Field(default=1, ge=1, le=10_000)
    arguments: dict[str, Any] = {}
    settings: dict[str, dict[str, Any]] = {}

    @classmethod
    def of_call(cls, maker: Maker, pipe: Pipeline, task: Task, **values: Any) -> Self:
        """The record of a picture that `pipe` has drawn; `values` are the other fields."""
        sections = pipe.settings.model_dump()
        kept = {name: sections[name] for name in (SETTINGS_OF.get(task, task), *SECTIONS) if name in sections}
        return cls(**maker.model_dump(), task=task, settings=kept, **values)

    def facts(self) -> dict[str, Any]:
        """What goes into the file, most telling first; what is empty is left out."""
        values = self.model_dump(exclude_defaults=True)
        first = ("task", "prompt", "model", "seed")
        ordered = {name: values[name] for name in first} | values
        return {**ordered, "software": f"unimodal {self.versions.get('unimodal', '')}".strip()}


def save_png(image: Image.Image, path_or_file: str | Path | BinaryIO, record: Record) -> None:
    """Writes a PNG that says how it was made, to a path (whole or not at all) or an open binary file.

    Raises:
        ValueError: a path that does not end in `.png`.
    """
    if isinstance(path_or_file, str | Path) and Path(path_or_file).suffix.lower() != ".png":
        raise ValueError(f"path_or_file: {str(path_or_file)!r} must end in .png")
    save_picture(image, path_or_file, record.facts())


def read_record(path: str | Path) -> Record:
    """How the picture of a file was made.

    Raises:
        ValueError: no such file, no picture, or one that does not say it or not in a way that can be used.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"file: there is no file {str(path)!r}")
    try:
        with Image.open(path) as image:
            image.load()
            facts = _facts(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"file: {str(path)!r} is not a picture that can be read ({error})") from error
    if "task" not in facts or "seed" not in facts:
        raise ValueError(f"file: {str(path)!r} does not say how it was made; only pictures of this program do")
    return checked(Record, {name: value for name, value in facts.items() if name != "software"}, f"{path}: ")


def _facts(image: Image.Image) -> dict[str, Any]:
    chunks: Mapping[str, str] = getattr(image, "text", {})
    if chunks:
        texts = {name for name, field in Record.model_fields.items() if field.annotation not in (str, Task)}
        return {name: _json(value) if name in texts else str(value) for name, value in chunks.items()}
    described = image.getexif().get(EXIF_DESCRIPTION, "")
    content = _json(described) if isinstance(described, str) else None
    return content if isinstance(content, dict) else {}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
