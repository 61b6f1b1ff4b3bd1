"""Steps whose shapes and addresses never change, so that a GPU can replay them.

A step of a small batch is many small kernels, and starting them takes longer than running them. A CUDA graph starts
all of them at once, if every input lies where it lay before. So the steps that store nothing read the prefix at a width
rounded up, behind a mask, and get their inputs copied into place. Where graphs are not to be had the same steps run
one kernel after the other.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unimodal.backbone import CacheWindow, PrefixCache
from unimodal.diffusion.canvas import Canvas
from unimodal.diffusion.denoiser import CachedDenoiser
from unimodal.diffusion.prefixes import PrefixStore

Step = Callable[..., Tensor]


def denoiser_for(device: torch.device, dtype: torch.dtype) -> type[CachedDenoiser]:
    """The cached denoiser of the steps that a device does best."""
    return StaticDenoiser if can_replay(device, dtype) else CachedDenoiser


def can_replay(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether steps can be recorded: on CUDA, in bfloat16, where experts wait for no one."""
    return device.type == "cuda" and dtype == torch.bfloat16


class StaticDenoiser(CachedDenoiser):
    """A `CachedDenoiser` with the same logits, whose steps within a block have one shape for each width.

    Args:
        width_multiple: the prefix and the block are read up to a multiple of this many columns, as far as the canvas
            goes.
        record: replays CUDA graphs; None does so where `can_replay`.

    Raises:
        ValueError: `width_multiple` below 1.
    """

    def __init__(
        self,
        model: Any,
        vocab_range: tuple[int, int] | None = None,
        *,
        width_multiple: int = 256,
        record: bool | None = None,
        prefixes: PrefixStore | None = None,
    ):
        super().__init__(model, vocab_range, prefixes=prefixes)
        if isinstance(width_multiple, bool) or not isinstance(width_multiple, int) or width_multiple < 1:
            raise ValueError(f"width_multiple: got {width_multiple!r}, it must be a whole number of at least 1")
        self._width_multiple = width_multiple
        self._steps = RecordedSteps(record=can_replay(model.device, model.dtype) if record is None else record)

    def logits(self, canvas: Canvas, block: int, places: Tensor | None = None) -> Tensor:
        # Places differ from step to step: all are computed.
        logits = super().logits(canvas, block)
        return logits if places is None else logits[:, places]

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self._steps.clear()  # the rows that stay lie elsewhere

    def _run(
        self, canvas: Canvas, start: int, stop: int, cache: PrefixCache, wanted: slice | Tensor, *, update: bool
    ) -> tuple[Tensor, Tensor | None]:
        if update or start == 0:
            return super()._run(canvas, start, stop, cache, wanted, update=update)
        self.forwards += 1
        self.computed += stop - start
        width = min(-(-stop // self._width_multiple) * self._width_multiple, cache.capacity)
        inputs = {
            "tokens": canvas.tokens[:, start:stop],
            "positions": canvas.positions(start, stop),
            "visible": self._visible_in(canvas, start, stop, width),
            "places": torch.arange(start, stop, device=canvas.tokens.device),
        }

        def step(tokens: Tensor, positions: Tensor, visible: Tensor, places: Tensor) -> Tensor:
            window = CacheWindow(cache, width, places)
            return self._model(
                tokens,
                position_ids=positions,
                attention_mask=visible,
                cache=window,
                logits_for=wanted,
                vocab_range=self._vocab_range,
            ).logits

        return self._steps((id(cache), stop - start, width), step, inputs), None

    def _visible_in(self, canvas: Canvas, start: int, stop: int, width: int) -> Tensor:
        visible = self._visible(canvas, start, stop)
        if visible is None:
            visible = torch.ones(1, 1, stop - start, stop, dtype=torch.bool, device=canvas.tokens.device)
        return F.pad(visible, (0, width - stop))


@dataclass(kw_only=True)
class _Recorded:
    inputs: Mapping[str, Tensor]
    replay: Callable[[], None]
    output: Tensor


class RecordedSteps:
    """Functions of tensors, recorded when they are first called and replayed after that.

    Args:
        record: False calls them every time.
    """

    def __init__(self, *, record: bool):
        self._record_graphs = record
        self._recorded: dict[Hashable, _Recorded] = {}

    def __call__(self, name: Hashable, step: Step, inputs: Mapping[str, Tensor]) -> Tensor:
        """What `step` returns for `inputs`; valid until the next call.

        Args:
            name: says which function it is. It is taken as it was when it was first called under this name.
        """
        if not self._record_graphs:
            return step(**inputs)
        recorded = self._recorded.get(name)
        if recorded is None:
            recorded = self._recorded[name] = self._record(step, inputs)
        for key, value in inputs.items():
            recorded.inputs[key].copy_(value)
        recorded.replay()
        return recorded.output

    def clear(self) -> None:
        """Forgets what was recorded."""
        self._recorded.clear()

    @staticmethod
    def _record(step: Step, inputs: Mapping[str, Tensor]) -> _Recorded:
        own = {key: value.clone() for key, value in inputs.items()}
        # Kernels are chosen and memory is found in a first run, which is not recorded.
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            step(**own)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = step(**own)
        return _Recorded(inputs=own, replay=graph.replay, output=output)
