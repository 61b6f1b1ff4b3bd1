"""A finished run that can be looked through and kept: as a moving picture, and as a trace with every step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unimodal.diffusion.traces import TraceRecorder
from unimodal_apps.studio.animation import save_animation
from unimodal_apps.studio.frames import UNDECIDED, Frame, PicturePanel
from unimodal_apps.studio.markup import render_frame
from unimodal_apps.studio.words import Words


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """The frames of one run, and how it was made.

    Args:
        name: of its files, without suffix.
        facts: task, prompt, model, seed, arguments.
        stats: forwards, tokens, seconds per stage.
        written: what each step wrote.
        words, colors: to show tokens and codes.
    """

    name: str
    facts: Mapping[str, Any]
    stats: Mapping[str, Any]
    frames: Sequence[Frame]
    written: TraceRecorder
    words: Words
    colors: np.ndarray | None

    def markup(self, number: int) -> list[str]:
        """Frame `number`, the nearest there is, as pieces of HTML."""
        frame = self.frames[min(max(int(number), 0), len(self.frames) - 1)]
        return render_frame(frame, self.words, self.colors)

    def save_animation(self, folder: Path) -> Path:
        """Writes a GIF; returns its path."""
        path = folder / f"{self.name}.gif"
        save_animation(self.frames, self.words, self.colors, str(self.facts.get("prompt", "")), path)
        return path

    def save_trace(self, folder: Path) -> Path:
        """Writes the trace, from which the run can be played again (`unimodal.diffusion.traces`); returns its path."""
        path = folder / f"{self.name}.trace.json"
        codes = [
            torch.from_numpy(panel.codes)
            for panel in (self.frames[-1].panels if self.frames else ())
            if isinstance(panel, PicturePanel) and (panel.codes != UNDECIDED).all()
        ]
        facts = {**self.facts, "stats": dict(self.stats)}
        replace(self.written.trace(codes), facts=facts).save(path)
        return path
