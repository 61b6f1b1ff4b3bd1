"""What the nodes ask of ComfyUI where it is there: its progress bar, its stop button, its way to block an output."""

import sys
from typing import Any

from unimodal.progress import StepCallback


def watcher() -> StepCallback | None:
    """A callback after every step that moves ComfyUI's bar and ends the work when it is told to stop; None elsewhere.

    The bar shows how much of the stage is done: tokens of the samples that are being written, or steps of the decoder.
    """
    comfy = sys.modules.get("comfy.utils")
    management = sys.modules.get("comfy.model_management")
    if comfy is None or management is None:
        return None
    bar, room, done = comfy.ProgressBar(1), 1, 0

    def watch(_: Any, step: int, timestep: int, values: dict[str, Any]) -> None:
        nonlocal room, done
        management.throw_exception_if_processing_interrupted()
        state = values["state"]
        if values["stage"] == "decode":
            bar.update_absolute(state.step, state.num_steps)
            return
        if state.block == 0 and state.step == 0:
            room, done = sum(len(sample.tokens) for sample in state.samples), 0
        done += sum(len(sample.committed) for sample in state.samples)
        bar.update_absolute(min(done, room), room)

    return watch


def blocked(reason: str) -> Any:
    """An output that ends what hangs on it, with a reason; elsewhere than in ComfyUI an error.

    Raises:
        ValueError: outside ComfyUI.
    """
    graph = sys.modules.get("comfy_execution.graph_utils")
    if graph is None:
        raise ValueError(reason)
    return graph.ExecutionBlocker(reason)
