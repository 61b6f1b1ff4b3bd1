"""Frames and facts as HTML. All text from users and models is escaped here; pictures travel inside the page.

A frame is a list of pieces, which joined are its HTML. The page is told only of pieces that are not what they were in
the frame before, so what stays the same, a finished picture above all, is sent once.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from unimodal_apps.studio.drawing import draw_codes
from unimodal_apps.studio.frames import UNDECIDED, Frame, PicturePanel, TextPanel, stage_title
from unimodal_apps.studio.words import END, Words

CONFIDENCE_STEPS = (0.5, 0.7, 0.85, 0.95)
"""Borders between the five colours of confidence."""
_MASKS_SHOWN = 48
_PLACES_TOGETHER = 32
"""Places of a text that are one piece of a frame."""
_UNFINISHED_QUALITY = 40
"""Of pictures that are still noise in part, as WebP; noise takes most room and is missed least."""
_LEGEND = (
    '<div class="uni-legend"><i class="m"></i>masked<span class="uni-scale">unsure'
    + "".join(f'<i class="c{level}"></i>' for level in range(len(CONFIDENCE_STEPS) + 1))
    + "sure</span></div>"
)


def confidence_level(probability: float) -> int | None:
    """0, unsure, to 4, sure; None where nothing is known."""
    return None if np.isnan(probability) else int(np.searchsorted(CONFIDENCE_STEPS, probability, side="right"))


def render_frame(frame: Frame, words: Words, colors: np.ndarray | None) -> list[str]:
    """A frame in pieces: what is going on and how far it is, all panels, and the end.

    Args:
        colors: of the codes, as `code_colors` returns them; only needed where the frame has pictures.
    """
    count = sum(isinstance(panel, PicturePanel) for panel in frame.panels)
    panels: list[str] = []
    for panel in frame.panels:
        if isinstance(panel, TextPanel):
            panels += _text(panel, words, alone=len(frame.panels) == 1)
        else:
            assert colors is not None
            panels += _picture(panel, colors, small=count > 1)
    where = f"step {frame.step}" if frame.stage == "decode" else f"block {frame.block + 1}, step {frame.step + 1}"
    counted = f"{where} · {_counted(frame.forwards, 'forward')} · {_counted(frame.decided, 'token')}"
    status = (
        f'<div class="uni-status"><strong>{escape(stage_title(frame.stage))}</strong><span>{counted}</span></div>'
        f'<div class="uni-bar"><i style="width:{100 * frame.done:.1f}%"></i></div>'
    )
    legend = _LEGEND if any(isinstance(panel, TextPanel) for panel in frame.panels) else ""
    opening = f'<div class="uni-live" data-stage="{escape(frame.stage)}">{status}<div class="uni-panels">'
    return [opening, *panels, f"</div>{legend}</div>"]


def render_idle(title: str, hint: str) -> str:
    """The stage before anything ran."""
    return (
        f'<div class="uni-live uni-idle"><div class="uni-lattice" aria-hidden="true"></div>'
        f"<strong>{escape(title)}</strong><span>{escape(hint)}</span></div>"
    )


def render_waiting(ahead: int) -> str:
    """A run that has not begun."""
    what = "Starting" if ahead == 0 else f"Waiting for {_counted(ahead, 'other run')}"
    return f'<div class="uni-live uni-waiting"><div class="uni-status"><strong>{what}</strong></div></div>'


def render_notice(title: str, message: str) -> str:
    """Something that did not work, said in the page."""
    return (
        f'<div class="uni-live uni-notice" role="alert"><strong>{escape(title)}</strong>'
        f"<span>{escape(message)}</span></div>"
    )


def render_facts(facts: Mapping[str, str]) -> str:
    """A row of names and values."""
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="uni-facts">{cells}</dl>'


def render_story(segments: list[str | Image.Image]) -> str:
    """Text and pictures in order, a picture beside the words that lead to it."""
    parts, words = [], ""
    for segment in segments:
        if isinstance(segment, str):
            words = f"{words} {segment}".strip()
        else:
            caption = escape(words)
            image = f'<img src="{data_uri(segment)}" alt="{caption}">'
            parts.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
            words = ""
    rest = f"<p>{escape(words)}</p>" if words else ""
    return f'<article class="uni-story">{"".join(parts)}{rest}</article>'


def render_answer(text: str) -> str:
    """A text that is a result."""
    shown = escape(text) or '<span class="uni-soft">(nothing)</span>'
    return f'<div class="uni-answer">{shown}</div>'


def render_filled(text: str, gaps: Sequence[str]) -> str:
    """A text whose gaps are filled, with what was written into them marked."""
    parts, rest = [], text
    for gap in gaps:
        before, _, rest = rest.partition(gap) if gap else ("", "", rest)
        parts += [escape(before), f"<mark>{escape(gap)}</mark>" if gap else ""]
    return f'<div class="uni-answer">{"".join(parts)}{escape(rest)}</div>'


def data_uri(picture: Image.Image, quality: int = 88) -> str:
    """A picture inside a page, as WebP: without loss if it is transparent, else of a quality up to 100."""
    buffer = io.BytesIO()
    picture.save(buffer, format="webp", quality=quality, lossless=picture.mode == "RGBA", method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _text(panel: TextPanel, words: Words, *, alone: bool) -> list[str]:
    known = np.flatnonzero(panel.ids != UNDECIDED)
    end = int(known[-1]) + 1 if len(known) else 0
    shown = min(len(panel.ids), end + _MASKS_SHOWN)
    spans, ended = [], False
    for place, piece in enumerate(words.pieces(panel.ids[:shown])):
        # An end is followed by ends up to the border of the block; one tells it.
        again, ended = ended and piece.special, piece.special and piece.text == END
        if again and ended:
            continue
        if piece.text is None:
            spans.append('<i class="m"></i>')
            continue
        probability = float(panel.confidence[place])
        level = confidence_level(probability)
        marks = ["t" if not piece.special else "t s"]
        marks += [] if level is None else [f"c{level}"]
        marks += ["new"] if panel.fresh[place] else []
        title = "" if level is None else f' title="{probability:.2f}"'
        spans.append(f'<span class="{" ".join(marks)}"{title}>{escape(piece.text)}</span>')
    more = len(panel.ids) - shown
    rest = f'<span class="uni-more">and {more:,} more</span>' if more else ""
    title = "" if alone else f"<h4>{escape(panel.title)}</h4>"
    pieces = ["".join(spans[first : first + _PLACES_TOGETHER]) for first in range(0, len(spans), _PLACES_TOGETHER)]
    return [f'<section class="uni-text">{title}<p>', *pieces, f"{rest}</p></section>"]


def _picture(panel: PicturePanel, colors: np.ndarray, *, small: bool) -> list[str]:
    decided = int((panel.codes != UNDECIDED).sum())
    sure = panel.confidence[~np.isnan(panel.confidence)]
    mean = f" · confidence {sure.mean():.2f}" if len(sure) else ""
    height, width = panel.codes.shape
    ratio = f"aspect-ratio:{width}/{height}"
    codes = (
        f'<figure><img class="codes" style="{ratio}" src="{data_uri(draw_codes(panel.codes, panel.fresh, colors))}" '
        f'alt="{decided} of {panel.codes.size} codes"><figcaption>{decided} of {panel.codes.size} codes{mean}'
        "</figcaption></figure>"
    )
    if panel.pixels is None:
        pixels = f'<figure><div class="uni-blank" style="{ratio}"></div><figcaption>pixels follow</figcaption></figure>'
    else:
        done, steps = panel.decoded or (0, 0)
        source = data_uri(panel.pixels) if done == steps else data_uri(panel.pixels, _UNFINISHED_QUALITY)
        pixels = (
            f'<figure><img style="{ratio}" src="{source}" alt="the picture"><figcaption>'
            f"decoder step {done} of {steps}</figcaption></figure>"
        )
    size = " small" if small else ""
    return [f'<section class="uni-picture{size}">{codes}', f"{pixels}</section>"]


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
