"""Frames as a GIF: the same panels as in the page, drawn with Pillow alone."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unimodal_apps.studio.drawing import draw_codes
from unimodal_apps.studio.frames import UNDECIDED, Frame, PicturePanel, TextPanel, stage_title
from unimodal_apps.studio.markup import confidence_level
from unimodal_apps.studio.words import Words
from unimodal_configs.atomic import replacing

MOST_FRAMES = 160
_WIDTH, _MARGIN, _GAP, _SIDE, _SMALL = 640, 24, 16, 256, 120
_FONT, _LINE = 17, 30
_PAPER, _INK, _SOFT, _MASK, _TRACK, _ACCENT = "#faf8f4", "#1d1c1a", "#6b6760", "#dcd6ca", "#e6e1d8", "#b4491f"
_CONFIDENCE = ("#f4c9a8", "#f3dcae", "#e9e6b4", "#cfe6bd", "#b5e0c5")
_STEP, _END = 90, 1600
"""Milliseconds of a frame, and of the last one."""


def save_animation(
    frames: Sequence[Frame], words: Words, colors: np.ndarray | None, title: str, path: str | Path
) -> None:
    """Writes a GIF that repeats.

    Args:
        frames: at least one; of many only `MOST_FRAMES`, evenly spread, are drawn.
        title: a line above them, as the prompt.

    Raises:
        ValueError: no frames.
    """
    if not frames:
        raise ValueError("frames: got none, at least one is needed")
    places = np.linspace(0, len(frames) - 1, min(len(frames), MOST_FRAMES)).round().astype(int)
    height = max(_layout(frames[place], words)[1] for place in (*places[:: max(1, len(places) // 8)], places[-1]))
    pages = [_draw(frames[place], words, colors, title, height) for place in places]
    shown = [page.convert("P", palette=Image.Palette.ADAPTIVE, colors=128) for page in pages]
    durations = [_STEP] * (len(shown) - 1) + [_END]
    with replacing(path) as temporary:
        shown[0].save(
            temporary, format="GIF", save_all=True, append_images=shown[1:], duration=durations, loop=0, optimize=False
        )


@cache
def _font() -> Any:
    return ImageFont.load_default(size=_FONT)


def _layout(frame: Frame, words: Words) -> tuple[list[int], int]:
    """Where each panel begins from above, and the height of all."""
    top, tops = _MARGIN + 2 * _LINE + 12, []
    for panel, following in zip(frame.panels, (*frame.panels[1:], None), strict=True):
        tops.append(top)
        if isinstance(panel, TextPanel):
            top += _LINE * (1 + _text_lines(panel, words)) + _GAP
        elif not isinstance(following, PicturePanel) or not _is_small(frame):
            top += (_SMALL if _is_small(frame) else _SIDE) + _GAP
    return tops, top + _MARGIN


def _is_small(frame: Frame) -> bool:
    return sum(isinstance(panel, PicturePanel) for panel in frame.panels) > 1


def _draw(frame: Frame, words: Words, colors: np.ndarray | None, title: str, height: int) -> Image.Image:
    page = Image.new("RGB", (_WIDTH, height), _PAPER)
    draw, font = ImageDraw.Draw(page), _font()
    draw.text((_MARGIN, _MARGIN - 4), _shortened(title, font, _WIDTH - 2 * _MARGIN), fill=_INK, font=font)
    draw.text((_MARGIN, _MARGIN + _LINE - 8), f"{stage_title(frame.stage)}  ·  {frame.forwards} forwards", _SOFT, font)
    bar = _MARGIN + 2 * _LINE - 6
    draw.rectangle((_MARGIN, bar, _WIDTH - _MARGIN, bar + 3), fill=_TRACK)
    draw.rectangle((_MARGIN, bar, _MARGIN + (_WIDTH - 2 * _MARGIN) * frame.done, bar + 3), fill=_ACCENT)
    tops, _ = _layout(frame, words)
    left = _MARGIN
    for number, (panel, top) in enumerate(zip(frame.panels, tops, strict=True)):
        if isinstance(panel, TextPanel):
            _draw_text(draw, panel, words, top, font)
            continue
        assert colors is not None
        side = _SMALL if _is_small(frame) else _SIDE
        after_picture = number > 0 and isinstance(frame.panels[number - 1], PicturePanel)
        left = left + 2 * side + 2 * _GAP if after_picture and _is_small(frame) else _MARGIN
        _paste(page, draw_codes(panel.codes, panel.fresh, colors), left, top, side)
        if panel.pixels is not None:
            _paste(page, panel.pixels, left + side + _GAP // 2, top, side)
    return page


def _paste(page: Image.Image, picture: Image.Image, left: int, top: int, side: int) -> None:
    scale = side / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    shown = picture.resize(size, Image.Resampling.LANCZOS)
    page.paste(shown, (left, top), shown if shown.mode == "RGBA" else None)


def _boxes(panel: TextPanel, words: Words, font: Any) -> list[tuple[int, float, float, int, str | None]]:
    """Line, left and right side, place and text of every piece."""
    boxes, line, left = [], 0, float(_MARGIN)
    known = np.flatnonzero(panel.ids != UNDECIDED)
    shown = min(len(panel.ids), (int(known[-1]) + 1 if len(known) else 0) + 24)
    for place, piece in enumerate(words.pieces(panel.ids[:shown])):
        text = None if piece.text is None else piece.text.replace("\n", " ")
        width = 15.0 if text is None else font.getlength(text)
        if left + width > _WIDTH - _MARGIN and left > _MARGIN:
            line, left = line + 1, float(_MARGIN)
        boxes.append((line, left, left + width, place, text))
        left += width + 1
    return boxes


def _text_lines(panel: TextPanel, words: Words) -> int:
    boxes = _boxes(panel, words, _font())
    return boxes[-1][0] + 1 if boxes else 1


def _draw_text(draw: ImageDraw.ImageDraw, panel: TextPanel, words: Words, top: int, font: Any) -> None:
    draw.text((_MARGIN, top), panel.title, fill=_SOFT, font=font)
    for line, left, right, place, text in _boxes(panel, words, font):
        above = top + _LINE * (line + 1)
        if text is None:
            draw.rounded_rectangle((left, above + 2, right - 2, above + _FONT + 2), radius=4, fill=_MASK)
            continue
        level = confidence_level(float(panel.confidence[place]))
        if level is not None and text:
            edge = _ACCENT if panel.fresh[place] else None
            draw.rounded_rectangle((left, above, right, above + _FONT + 5), 4, _CONFIDENCE[level], edge)
        draw.text((left, above), text, fill=_INK, font=font)


def _shortened(text: str, font: Any, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
