"""A finished run that can be looked through and kept: as a moving picture, and as a trace with every step."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unimodal.output_files import save_text
from unimodal_apps.studio.animation import save_animation
from unimodal_apps.studio.frames import Frame, PicturePanel, TextPanel
from unimodal_apps.studio.markup import render_frame
from unimodal_apps.studio.words import Words


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """The frames of one run, and how it was made.

    Args:
        name: of its files, without suffix.
        facts: task, prompt, model, seed, arguments.
        stats: forwards, tokens, seconds per stage.
        words, colors: to show tokens and codes.
    """

    name: str
    facts: Mapping[str, Any]
    stats: Mapping[str, Any]
    frames: Sequence[Frame]
    words: Words
    colors: np.ndarray | None

    def markup(self, number: int) -> str:
        """Frame `number`, the nearest there is, as HTML."""
        frame = self.frames[min(max(int(number), 0), len(self.frames) - 1)]
        return render_frame(frame, self.words, self.colors)

    def save_animation(self, folder: Path) -> Path:
        """Writes a GIF; returns its path."""
        path = folder / f"{self.name}.gif"
        save_animation(self.frames, self.words, self.colors, str(self.facts.get("prompt", "")), path)
        return path

    def save_trace(self, folder: Path) -> Path:
        """Writes the trace, JSON in UTF-8; returns its path."""
        path = folder / f"{self.name}.json"
        save_text(json.dumps(self.trace(), ensure_ascii=False, indent=1), path)
        return path

    def trace(self) -> dict[str, Any]:
        """Facts and stats, and for every step which places it decided, as what and how surely.

        Places count from 0, row by row in pictures. The last entry of `panels` is what came out.
        """
        last = self.frames[-1].panels if self.frames else ()
        return {
            **self.facts,
            "stats": dict(self.stats),
            "panels": [_panel(panel, self.words) for panel in last],
            "steps": [_step(frame) for frame in self.frames],
        }


def _step(frame: Frame) -> dict[str, Any]:
    decided = []
    for index in frame.active:
        panel = frame.panels[index]
        places = np.flatnonzero(panel.fresh)
        values = (panel.ids if isinstance(panel, TextPanel) else panel.codes).reshape(-1)
        if len(places):
            decided.append(
                {
                    "panel": index,
                    "places": places.tolist(),
                    "values": values[places].tolist(),
                    "confidence": [round(float(value), 4) for value in panel.confidence.reshape(-1)[places]],
                }
            )
    return {
        "stage": frame.stage,
        "block": frame.block,
        "step": frame.step,
        "forwards": frame.forwards,
        "seconds": round(frame.seconds, 4),
        "decided": decided,
    }


def _panel(panel: TextPanel | PicturePanel, words: Words) -> dict[str, Any]:
    if isinstance(panel, TextPanel):
        return {"kind": "text", "title": panel.title, "ids": panel.ids.tolist(), "text": words.text(panel.ids)}
    return {"kind": "picture", "title": panel.title, "codes": panel.codes.tolist()}
