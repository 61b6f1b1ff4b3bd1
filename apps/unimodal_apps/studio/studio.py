"""What all tabs share: the model, who runs it when, and where files go."""

import gc
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unimodal import Pipeline, Stats
from unimodal.benchmark.machine import forget_peak, peak_memory
from unimodal_apps.metadata import Maker
from unimodal_apps.requests import Request
from unimodal_apps.studio.drawing import code_colors
from unimodal_apps.studio.frames import Frame, PicturePanel, Recorder
from unimodal_apps.studio.runner import Runner
from unimodal_apps.studio.words import Words

STAGES = {"encode": "Reading", "thinking": "Thinking", "text": "Writing", "picture": "Drawing", "decode": "Decoding"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to: whatever its tab shows, and what it cost."""

    value: Any
    stats: Stats


@dataclass(frozen=True, kw_only=True)
class Work:
    """A run that is to be made.

    Args:
        name: of the files that are kept of it, without suffix.
        facts: how to make it again: task, prompt, model, seed, arguments.
        call: makes it; the recorder is the pipeline's callback.
        request: what is asked, where the command line could ask it too.
    """

    name: str
    facts: Mapping[str, Any]
    call: Callable[[Pipeline, Recorder], Outcome]
    request: Request | None = None


class Studio:
    """One loaded model behind a page.

    Args:
        model: what users call it.
        low_memory: after every run the parts that the next one may not need are forgotten.
    """

    def __init__(self, pipe: Pipeline, model: str, *, low_memory: bool = False):
        self.pipe = pipe
        self.model = model
        self.words = Words(pipe)
        self._low_memory = low_memory
        self._folder = tempfile.TemporaryDirectory(prefix="unimodal-studio-")
        self._colors_lock = threading.Lock()
        self.runner = Runner(pipe, before=self._before, after=self._after)

    @property
    def name(self) -> str:
        """A short name of the model."""
        return Path(self.model).name

    @property
    def device(self) -> str:
        device = self.pipe.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)

    @property
    def dtype(self) -> str:
        return str(self.pipe.dtype).removeprefix("torch.")

    @cached_property
    def maker(self) -> Maker:
        """What the records of pictures say about the model; reading its files takes a moment, the first time."""
        return Maker.of(self.pipe, self.model)

    def new_folder(self) -> Path:
        """A folder for the files of one run; all are gone when the studio closes."""
        return Path(tempfile.mkdtemp(dir=self._folder.name))

    def colors(self, frame: Frame) -> np.ndarray | None:
        """The colours of codes, if the frame has any."""
        if not any(isinstance(panel, PicturePanel) for panel in frame.panels):
            return None
        with self._colors_lock:
            return self._code_colors

    @cached_property
    def _code_colors(self) -> np.ndarray:
        return code_colors(self.pipe.decoder.conditioner.prior_token_embedding.weight)

    def facts(self, stats: Stats, seed: int, *, stopped: bool = False) -> dict[str, str]:
        """What the footer says about a run."""
        peak = peak_memory(self.pipe.device)
        seconds = {STAGES.get(stage, stage.capitalize()): spent for stage, spent in stats.seconds.items()}
        return {
            "Model": self.name,
            "Device": f"{self.device}, {self.dtype}",
            "Forwards": f"{stats.forwards:,}",
            "Tokens": f"{stats.tokens:,}",
            "Tokens/s": f"{stats.tokens_per_second:,.1f}",
            **{stage: f"{spent:.2f} s" for stage, spent in seconds.items()},
            "Peak memory": "unknown" if peak is None else _size(peak),
            "Seed": str(seed),
            **({"Ended": "stopped"} if stopped else {}),
        }

    def close(self) -> None:
        """Ends all runs and removes the files."""
        self.runner.close()
        self._folder.cleanup()

    def _before(self) -> None:
        forget_peak(self.pipe.device)

    def _after(self) -> None:
        if self._low_memory:
            self.pipe.release()
            gc.collect()
            if self.pipe.device.type == "cuda":
                torch.cuda.empty_cache()


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
