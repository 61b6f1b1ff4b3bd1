"""The page that shows what the tour found: one HTML file beside its pictures, without scripts or anything from afar."""

from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files
from itertools import groupby
from string import Template
from typing import Any

Found = Mapping[str, Any]


def render_page(found: Found) -> str:
    """The page, from what `unimodal.quickstart.run` found."""
    template = (files("unimodal") / "assets" / "pages" / "quickstart.html").read_text(encoding="utf-8")
    questions = found["questions"]
    return Template(template).substitute(
        model=escape(str(found["model"])),
        seed=found["seed"],
        seconds=f"{found['seconds']:.0f}",
        right=sum(entry["right"] for entry in questions),
        asked=len(questions),
        questions=_join(
            _asked(picture, group) for picture, group in groupby(questions, lambda entry: entry["picture"])
        ),
        drawings=_join(_drawing(entry) for entry in found["drawings"]),
        edits=_join(_edit(entry) for entry in found["edits"]),
        story_prompt=escape(found["story"]["prompt"]),
        story=_join(_frames(found["story"]["segments"])),
    )


def _asked(picture: str, entries: Iterable[Found]) -> str:
    lines = []
    for entry in entries:
        expected = "" if entry["right"] else f'<span class="expected">expected: {escape(entry["expected"])}</span>'
        mark = "right" if entry["right"] else "wrong"
        lines.append(
            f'<dt>{escape(entry["question"])}</dt><dd class="{mark}">{escape(entry["answer"]) or "(nothing)"}'
            f"{expected}</dd>"
        )
    return f'<article class="asked">{_image(picture, picture)}<dl>{"".join(lines)}</dl></article>'


def _drawing(entry: Found) -> str:
    thought = entry["thinking"]
    note = f'<span class="thought">{escape(thought)}</span>' if thought else ""
    caption = f"<figcaption>{escape(entry['prompt'])}{note}</figcaption>"
    return f"<figure>{_image(entry['image'], entry['prompt'])}{caption}</figure>"


def _edit(entry: Found) -> str:
    sources = "".join(_image(source, source) for source in entry["sources"])
    result = _image(entry["image"], entry["instruction"])
    return (
        f'<figure class="edit"><div class="row">{sources}<span class="arrow" aria-hidden="true">&rarr;</span>{result}'
        f"</div><figcaption>{escape(entry['instruction'])}</figcaption></figure>"
    )


def _frames(segments: Iterable[Found]) -> Iterable[str]:
    """A picture with the sentences that come before it."""
    words: list[str] = []
    for segment in segments:
        if "text" in segment:
            words.append(escape(segment["text"]))
        else:
            caption = f"<figcaption>{' '.join(words)}</figcaption>"
            yield f"<figure>{_image(segment['image'], ' '.join(words))}{caption}</figure>"
            words = []
    if words:
        yield f"<p>{' '.join(words)}</p>"


def _image(name: str, description: str) -> str:
    return f'<img src="{escape(name)}" alt="{escape(description)}" width="256" height="256">'


def _join(parts: Iterable[str]) -> str:
    return "\n".join(parts)
