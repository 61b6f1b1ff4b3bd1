"""Where results go: names of files, pictures that say how they were made, stories as Markdown.

Every file appears whole or not at all.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unimodal_configs.atomic import replacing

PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
STORY_NAME = "story.md"

EXIF_DESCRIPTION = 0x010E
_LONGEST_NAME = 48


def file_name(text: str, seed: int) -> str:
    """A short name for what was made from `text`, as in `a-red-cat-7`."""
    words = "-".join(re.findall(r"\w+", text.lower()))
    return f"{words[:_LONGEST_NAME].strip('-') or 'picture'}-{seed}"


def picture_paths(output: str | Path | None, count: int, name: str) -> list[Path]:
    """Where `count` pictures go.

    Args:
        output: a picture file (numbered where there are several) or a folder; None is the folder `outputs`.
        name: of the files in a folder, without suffix.

    Raises:
        ValueError: neither, or a place where nothing can be written.
    """
    text = "outputs" if output is None else str(output)
    path = Path(text).expanduser()
    is_folder = path.is_dir() or text.endswith(("/", os.sep)) or not path.suffix
    if not is_folder and path.suffix.lower() not in PICTURE_FORMATS:
        raise ValueError(
            f"output: {text!r} must end in {', '.join(PICTURE_FORMATS)}, or in / or nothing to be a folder"
        )
    first = path / f"{name}.png" if is_folder else path
    check_writable(first)
    if count == 1:
        return [first]
    return [first.with_name(f"{first.stem}-{number}{first.suffix}") for number in range(1, count + 1)]


def check_writable(path: str | Path) -> Path:
    """The path, if a file can be written there, its folders made on the way.

    Raises:
        ValueError: it is a folder, lies below a file, or may not be written.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise ValueError(f"output: {str(path)!r} is a folder, it must be a file")
    parent = path.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise ValueError(f"output: {str(parent)!r} is a file, it must be a folder")
    if not os.access(parent, os.W_OK):
        raise ValueError(f"output: nothing can be written in {str(parent.resolve())!r}, choose another folder")
    return path


def save_picture(image: Image.Image, path: str | Path | BinaryIO, facts: Mapping[str, Any]) -> None:
    """Writes a picture that carries how it was made: text chunks of a PNG, the description of a JPEG or WebP.

    Args:
        path: where to, or an open binary file, which takes a PNG.
        facts: prompt, model, seed, settings and the like; what is no text is written as JSON.

    Raises:
        ValueError: a suffix that is none of `PICTURE_FORMATS`.
    """
    kind = PICTURE_FORMATS.get(Path(path).suffix.lower()) if isinstance(path, str | Path) else "PNG"
    if kind is None:
        raise ValueError(f"path: {str(path)!r} must end in {', '.join(PICTURE_FORMATS)}")
    options: dict[str, Any]
    if kind == "PNG":
        chunks = PngInfo()
        for name, value in facts.items():
            chunks.add_itxt(name, value if isinstance(value, str) else json.dumps(value))
        options = {"pnginfo": chunks}
    else:
        exif = Image.Exif()
        exif[EXIF_DESCRIPTION] = json.dumps(dict(facts))
        options = {"exif": exif, "quality": 95}
    if not isinstance(path, str | Path):
        image.save(path, format=kind, **options)
        return
    with replacing(path) as temporary:
        image.save(temporary, format=kind, **options)


def save_text(text: str, path: str | Path) -> None:
    """Writes a text file in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")


def save_story(
    segments: Sequence[str | Image.Image], folder: str | Path, title: str, facts: Mapping[str, Any]
) -> list[str]:
    """Writes the pictures of an interleaved answer, then `story.md` that shows text and pictures in order.

    Args:
        facts: how the answer was made; each picture also carries its place among the pictures, `index`, from 0.

    Returns:
        The segments in order, file names in place of pictures.
    """
    folder = Path(folder)
    shown, lines = [], [f"# {title}"]
    for segment in segments:
        if isinstance(segment, str):
            shown.append(segment)
            lines.append(segment)
        else:
            index = sum(not isinstance(other, str) for other in segments[: len(shown)])
            name = f"picture-{index + 1}.png"
            save_picture(segment, folder / name, {**facts, "index": index})
            shown.append(name)
            lines.append(f"![{name}]({name})")
    save_text("\n\n".join(lines), folder / STORY_NAME)
    return shown
