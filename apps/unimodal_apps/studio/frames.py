"""What a run looked like after each step: texts and pictures anywhere between all masks and the result.

A `Recorder` is the callback of a pipeline's job (`unimodal.progress`); it turns every step into a `Frame`, which holds
plain arrays and small pictures and outlives the run. A panel is one text or one picture; a story has several, in
order. Frames share the arrays of panels that a step left alone.

Legend: n tokens of a text, H, W height and width of a grid of codes.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from unimodal.diffusion.traces import TraceRecorder

UNDECIDED = -1
PREVIEW_SIDE = 384
"""Pixels of the longer side of a recorded picture at most."""
LONGEST_PREVIEW_RUN = 8
"""Steps of the pixel decoder that are shown at most; each costs a pass through the autoencoder."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TextPanel:
    """A text being written.

    Args:
        title: what is going on, as in "Thinking".
        ids: int64 [n], -1 where nothing is decided.
        confidence: float32 [n], the probability each token was accepted with; NaN where none is known.
        fresh: bool [n], decided or replaced by this step.
    """

    title: str
    ids: np.ndarray
    confidence: np.ndarray
    fresh: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class PicturePanel:
    """A picture being drawn: first its codes, then its pixels.

    Args:
        codes: int64 [H, W], -1 where nothing is decided.
        confidence, fresh: as those of a text, [H, W].
        pixels: RGB, None before the first step of the decoder.
        decoded: steps of the decoder that are done, and how many there are.
    """

    title: str
    codes: np.ndarray
    confidence: np.ndarray
    fresh: np.ndarray
    pixels: Image.Image | None = None
    decoded: tuple[int, int] | None = None


Panel = TextPanel | PicturePanel


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """Everything that is visible after one step.

    Args:
        number: steps of the run before this one.
        stage: as the pipeline calls it: "text", "thinking", "picture" or "decode".
        block, step: blocks of the stage and steps of the block before this one; for "decode" the step of the decoder.
        forwards: passes through the backbone so far.
        decided: tokens decided so far.
        seconds: since the run began.
        panels: texts and pictures in the order they were begun.
        active: indices of the panels that this stage works on.
    """

    number: int
    stage: str
    block: int
    step: int
    forwards: int
    decided: int
    seconds: float
    panels: tuple[Panel, ...]
    active: tuple[int, ...]

    @property
    def done(self) -> float:
        """How much of this stage is decided, 0 to 1."""
        shares = []
        for index in self.active:
            panel = self.panels[index]
            if self.stage == "decode" and isinstance(panel, PicturePanel) and panel.decoded:
                shares.append(panel.decoded[0] / panel.decoded[1])
            else:
                known = panel.ids if isinstance(panel, TextPanel) else panel.codes
                shares.append(float((known != UNDECIDED).mean()) if known.size else 1.0)
        return sum(shares) / len(shares) if shares else 0.0


TITLES = {"text": "Writing", "thinking": "Thinking", "picture": "Drawing codes", "decode": "Decoding pixels"}


def stage_title(stage: str) -> str:
    return TITLES.get(stage, stage.capitalize())


class Recorder:
    """Turns the steps of one run into frames.

    Args:
        pipe: the pipeline whose job it watches.
        show: is handed every frame.

    Attributes:
        trace: what was written, to be kept and played again.
    """

    def __init__(self, pipe: Any, show: Callable[[Frame], None]):
        self._pipe = pipe
        self._show = show
        self.trace = TraceRecorder()
        self._started = time.perf_counter()
        self._panels: list[Panel] = []
        self._active: tuple[int, ...] = ()
        self._plan: Any = None
        self._forwards_before = self._forwards = self._decided = self._number = 0

    def __call__(self, pipe: Any, step: int, timestep: int, values: dict[str, Any]) -> None:
        """The `callback_on_step_end` of a job."""
        self.trace(pipe, step, timestep, values)
        state = values["state"]
        if values["stage"] == "decode":
            self._decode(state)
            block, step_in_block = 0, state.step
        else:
            self._write(values["stage"], state, values.get("grids"))
            block, step_in_block = state.block, state.step
        frame = Frame(
            number=self._number,
            stage=values["stage"],
            block=block,
            step=step_in_block,
            forwards=self._forwards_before + self._forwards,
            decided=self._decided,
            seconds=time.perf_counter() - self._started,
            panels=tuple(self._panels),
            active=self._active,
        )
        self._number += 1
        self._show(frame)

    def _write(self, stage: str, state: Any, grids: Any) -> None:
        self._settle()
        # All states of one stream have the same plan.
        if state.plan is not self._plan:
            self._plan = state.plan
            self._begin(stage, state, grids)
        self._forwards = state.forwards
        for place, sample in enumerate(state.samples):
            index = self._active[0] + sample.index
            panel = self._panels[index]
            self._decided += len(sample.committed)
            places = np.concatenate([_array(sample.committed), _array(sample.replaced)])
            confidence = np.concatenate([_array(sample.confidence), _array(sample.replaced_confidence)])
            if isinstance(panel, PicturePanel):
                codes = _array(grids[place])
                flat = panel.confidence.reshape(-1).copy()
                flat[places] = confidence
                fresh = np.zeros(codes.size, dtype=bool)
                fresh[places] = True
                self._panels[index] = replace(
                    panel, codes=codes, confidence=flat.reshape(codes.shape), fresh=fresh.reshape(codes.shape)
                )
            else:
                ids = self._ids(sample.tokens)
                length = max(len(panel.ids), len(ids))
                known = np.full(length, np.nan, dtype=np.float32)
                known[: len(panel.confidence)] = panel.confidence
                known[places] = confidence
                fresh = np.zeros(length, dtype=bool)
                fresh[places] = True
                # A text that is done is cut to its result.
                self._panels[index] = replace(panel, ids=ids, confidence=known[: len(ids)], fresh=fresh[: len(ids)])

    def _begin(self, stage: str, state: Any, grids: Any) -> None:
        self._forwards_before += self._forwards
        first, title = len(self._panels), stage_title(stage)
        for place, sample in enumerate(state.samples):
            if grids is None:
                shape: tuple[int, ...] = (len(self._ids(sample.tokens)),)
            else:
                shape = tuple(_array(grids[place]).shape)
            blank = {
                "title": title,
                "confidence": np.full(shape, np.nan, dtype=np.float32),
                "fresh": np.zeros(shape, dtype=bool),
            }
            nothing = np.full(shape, UNDECIDED, dtype=np.int64)
            text = grids is None
            self._panels.append(TextPanel(ids=nothing, **blank) if text else PicturePanel(codes=nothing, **blank))
        self._active = tuple(range(first, len(self._panels)))

    def _decode(self, state: Any) -> None:
        """Shows the latents of this step, which go from noise to the picture."""
        if state.step <= 1:
            self._settle()
            self._active = self._waiting(*state.latents.shape[-2:])[: len(state.latents)]
        every = math.ceil(state.num_steps / LONGEST_PREVIEW_RUN)
        shown = state.step == state.num_steps or state.step % every == 0
        previews = _pictures(self._pipe.decoder.pixels(state.latents)) if shown else None
        for place, index in enumerate(self._active):
            panel = self._panels[index]
            assert isinstance(panel, PicturePanel)
            pixels = panel.pixels if previews is None else previews[place]
            self._panels[index] = replace(panel, pixels=pixels, decoded=(state.step, state.num_steps))

    def _waiting(self, rows: int, columns: int) -> tuple[int, ...]:
        """The pictures of this shape that have no pixels yet."""
        return tuple(
            index
            for index, panel in enumerate(self._panels)
            if isinstance(panel, PicturePanel)
            and panel.pixels is None
            and panel.codes.shape[0] * columns == panel.codes.shape[1] * rows
        )

    def _settle(self) -> None:
        """Nothing that earlier steps decided is fresh any more."""
        self._panels = [
            replace(panel, fresh=np.zeros_like(panel.fresh)) if panel.fresh.any() else panel for panel in self._panels
        ]

    def _ids(self, tokens: Any) -> np.ndarray:
        ids = _array(tokens).astype(np.int64)
        return np.where(ids == self._pipe.vocab.mask_id, UNDECIDED, ids)


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _pictures(pixels: Any) -> list[Image.Image]:
    """Small RGB pictures from float pixels [B, 3, Y, X] in [-1, 1]."""
    # Truncated, as the result's pixels are.
    values = (((_array(pixels.float()) + 1) / 2).clip(0, 1) * 255).astype(np.uint8)
    pictures = [Image.fromarray(picture) for picture in values.transpose(0, 2, 3, 1)]
    for picture in pictures:
        picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    return pictures
