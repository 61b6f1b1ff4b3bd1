"""A picture of what the tour found, in one row: a question, drawings, an edit and the story."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from unimodal.output_files import save_picture

_TILE, _GAP, _MARGIN, _CAPTION, _LINES, _FONT = 256, 24, 28, 30, 5, 20
_PAPER, _INK, _SOFT, _LINE, _EDGE = "#faf8f4", "#1d1c1a", "#6b6760", "#ddd7cc", 1


def draw_overview(found: Mapping[str, Any], folder: str | Path, path: str | Path) -> None:
    """Draws the row.

    Args:
        found: as `unimodal.quickstart.run` returns it, its files in `folder`.
        path: of the PNG to write.
    """
    folder, tiles = Path(folder), _tiles(found)
    width = 2 * _MARGIN + len(tiles) * _TILE + (len(tiles) - 1) * _GAP
    sheet = Image.new("RGB", (width, 2 * _MARGIN + _TILE + _LINES * _CAPTION), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_FONT)
    shape, edge = _rounded(0), _rounded(_EDGE)
    frame = Image.new("RGB", shape.size, _LINE)
    for column, (name, title, text) in enumerate(tiles):
        left = _MARGIN + column * (_TILE + _GAP)
        with Image.open(folder / name) as picture:
            shown = picture.convert("RGB").resize((_TILE, _TILE), Image.Resampling.LANCZOS)
        sheet.paste(frame, (left, _MARGIN), shape)
        sheet.paste(shown, (left, _MARGIN), edge)
        lines = [title, *_wrapped(text, font, _TILE)][:_LINES]
        for number, line in enumerate(lines):
            place = left + 2, _MARGIN + _TILE + 10 + number * (_CAPTION - 4)
            draw.text(place, line, fill=_INK if number else _SOFT, font=font)
    save_picture(sheet, path, {"model": str(found["model"]), "seed": str(found["seed"])})


def _rounded(inset: int) -> Image.Image:
    """A mask of the tile with smooth round corners."""
    scale = 4
    mask = Image.new("L", (scale * _TILE, scale * _TILE), 0)
    box = (scale * inset, scale * inset, scale * (_TILE - inset) - 1, scale * (_TILE - inset) - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius=16 * scale, fill=255)
    return mask.resize((_TILE, _TILE), Image.Resampling.LANCZOS)


def _tiles(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """File, title and words of each tile."""
    tiles: list[tuple[str, str, str]] = []
    for question in found["questions"][:1]:
        tiles.append((question["picture"], "understand", f"{question['question']} {question['answer']}"))
    for drawing in found["drawings"][:3]:
        tiles.append((drawing["image"], "generate", drawing["prompt"]))
    for edit in found["edits"][:1]:
        tiles.append((edit["image"], f"edit {edit['sources'][-1]}", edit["instruction"]))
    words = ""
    for segment in found["story"]["segments"]:
        if "text" in segment:
            words = segment["text"]
        elif sum(title == "interleave" for _, title, _ in tiles) < 2:
            tiles.append((segment["image"], "interleave", words))
    return tiles


def _wrapped(text: str, font: Any, width: int) -> Sequence[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
