"""The one training loop: every stage brings a module, batches and an evaluation, the loop does the rest.

Everything random in a batch is a function of (seed, step, sample index), never of a stream, so a run that was stopped
continues exactly, and N processes see the batch that one process would see. Progress goes to `log.jsonl`, sample
pictures to `samples/`, the resumable state to `state/` (written to a temporary name and renamed).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from unimodal.training.optimizers import build_optimizers, learning_rate_factor
from unimodal.training.recipe import Recipe


@dataclass
class StepOutput:
    """What a stage's module makes of a batch.

    Args:
        loss_sum: the weighted sum over the samples, to be divided by the summed `weight` of the batches.
        metrics: averages for the log.
        state: what `Stage.after_step` needs.
    """

    loss_sum: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
    state: Any = None


class Stage(ABC):
    """One trainable part. `module` holds every parameter of the run, and its forward maps a batch to a `StepOutput`."""

    recipe: Recipe
    module: nn.Module

    @abstractmethod
    def batch(self, step: int, indices: range) -> dict[str, Any]:
        """Samples `indices` of `step`, collated, with `weight`: the denominator that these samples add to the loss."""

    def before_step(self, step: int, module: nn.Module) -> None:  # noqa: B027
        """Changes that hold from `step` on, such as a new phase of the schedule."""

    def after_step(self, step: int, module: nn.Module, outputs: list[StepOutput], accelerator: Accelerator) -> None:  # noqa: B027
        """Updates outside gradient descent: codebooks, router biases."""

    def finish(self, module: nn.Module) -> None:  # noqa: B027
        """Last changes to the averaged weights, after the last step."""

    @abstractmethod
    def evaluate(self, module: nn.Module, samples: Path, step: int) -> dict[str, float]:
        """Held-out metrics of the averaged weights, already exported; writes pictures to `samples`."""

    @abstractmethod
    def export(self, module: nn.Module) -> None:
        """Writes the trained component into the checkpoint folder, in the published layout."""

    def is_matrix(self, name: str, parameter: Tensor) -> bool:
        """Whether Muon takes this parameter, where the recipe asks for it: matrices, except embeddings and heads."""
        return 2 <= parameter.ndim <= 4 and not any(word in name for word in ("embed", "head", "codebook"))


def train(stage: Stage, output: Path, cpu: bool = False, stop_after: int | None = None) -> dict[str, float]:
    """Runs `stage` to the last step of its recipe, continuing from `output/state` where there is one.

    Args:
        output: folder of the log, the sample pictures and the state.
        cpu: keep to the CPU even where an accelerator is present.
        stop_after: end (with the state saved) once this many steps are done, as an interruption would.

    Returns:
        The last evaluation's metrics; none if the run stopped before its last step, nor outside the main process.

    Raises:
        ValueError: `output` holds a run of another recipe.
    """
    recipe = stage.recipe
    accelerator = Accelerator(mixed_precision=recipe.precision, cpu=cpu)
    set_seed(recipe.seed)  # only weights that are initialised late could draw from it
    module = accelerator.prepare(stage.module.to(accelerator.device))
    optimizers = [accelerator.prepare(o) for o in build_optimizers(stage.module, recipe.optimizer, stage.is_matrix)]
    peak_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    average = AveragedModel(
        stage.module, multi_avg_fn=get_ema_multi_avg_fn(recipe.optimizer.ema_decay), use_buffers=True
    )
    accelerator.register_for_checkpointing(average)
    forward = torch.compile(module, dynamic=True) if recipe.compile else module

    state = output / "state"
    step = _resume(accelerator, state, recipe)
    if accelerator.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
    had_all_steps = step == recipe.steps
    last = min(recipe.steps, stop_after or recipe.steps)
    hidden = None if accelerator.is_local_main_process else True  # None shows the bar on a terminal only
    progress = tqdm(total=recipe.steps, initial=step, desc=recipe.stage, disable=hidden)
    seconds, metrics = time.monotonic(), {}
    module.train()
    while step < last:
        stage.before_step(step, stage.module)
        factor = learning_rate_factor(step, recipe.steps, recipe.optimizer)
        for optimizer, rates in zip(optimizers, peak_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        outputs, loss = _accumulate(accelerator, stage, forward, step)
        norm = accelerator.clip_grad_norm_(module.parameters(), recipe.optimizer.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        stage.after_step(step, stage.module, outputs, accelerator)
        average.update_parameters(stage.module)
        step += 1
        progress.update()
        if step % recipe.log_every == 0 or step == last:
            now = time.monotonic()
            line = {"step": step, "loss": loss, "gradient_norm": float(norm or 0.0), "seconds": round(now - seconds, 2)}
            line |= {k: float(torch.stack([o.metrics[k] for o in outputs]).mean()) for k in outputs[0].metrics}
            seconds = now
            progress.set_postfix(loss=f"{loss:.4f}")
            _log(accelerator, output, line)
        if step % recipe.save_every == 0 or step == last:
            _save(accelerator, state, step, recipe)
        if step % recipe.evaluate_every == 0 or step == recipe.steps:
            metrics = _evaluate(accelerator, stage, average.module, output, step)
            module.train()
    if had_all_steps:
        # Stopped between its last step and its end, or asked for again.
        stage.before_step(step, stage.module)
        metrics = _evaluate(accelerator, stage, average.module, output, step)
    progress.close()
    return metrics if step == recipe.steps else {}


def _accumulate(accelerator: Accelerator, stage: Stage, forward: Any, step: int) -> tuple[list[StepOutput], float]:
    """Forward and backward over this process's share of the batch, in micro batches with one common denominator."""
    recipe = stage.recipe
    share = recipe.batch_size // accelerator.num_processes
    if share * accelerator.num_processes != recipe.batch_size:
        raise ValueError(f"batch_size: {recipe.batch_size} does not divide by {accelerator.num_processes} processes")
    size = min(recipe.micro_batch_size or share, share)
    first = share * accelerator.process_index
    batches = [
        _to(stage.batch(step, range(start, min(start + size, first + share))), accelerator.device)
        for start in range(first, first + share, size)
    ]
    weight = sum_over_processes(accelerator, [b["weight"] for b in batches])
    outputs, total = [], torch.zeros((), device=accelerator.device)
    for position, batch in enumerate(batches):
        synchronize = position == len(batches) - 1
        with torch.enable_grad() if synchronize else accelerator.no_sync(forward):
            out = forward(batch)
            loss = out.loss_sum / weight
            accelerator.backward(loss * accelerator.num_processes)  # the gradient is averaged over processes
        total += loss.detach()
        outputs.append(out)
    return outputs, float(sum_over_processes(accelerator, [total]))


def sum_over_processes(accelerator: Accelerator, parts: Sequence[Tensor]) -> Tensor:
    """The sum of the parts of all processes."""
    total = accelerator.reduce(reduce(torch.add, parts), reduction="sum")
    assert isinstance(total, Tensor)
    return total


def _to(value: Any, device: torch.device) -> Any:
    """Tensors inside dictionaries and lists, moved to the device."""
    if isinstance(value, dict):
        return {name: _to(part, device) for name, part in value.items()}
    if isinstance(value, list):
        return [_to(part, device) for part in value]
    return value.to(device) if isinstance(value, Tensor) else value


def _evaluate(accelerator: Accelerator, stage: Stage, module: nn.Module, output: Path, step: int) -> dict[str, float]:
    accelerator.wait_for_everyone()
    metrics: dict[str, float] = {}
    if accelerator.is_main_process:
        samples = output / "samples"
        samples.mkdir(exist_ok=True)
        module.eval()
        with torch.no_grad(), accelerator.autocast():
            if step == stage.recipe.steps:
                stage.finish(module)
            stage.export(module)
            metrics = stage.evaluate(module, samples, step)
        _log(accelerator, output, {"step": step, "evaluation": metrics})
        line = ", ".join(f"{k} {v:.4g}" for k, v in metrics.items())
        tqdm.write(f"{stage.recipe.stage} {step}: {line}", file=sys.stderr)
    accelerator.wait_for_everyone()
    return metrics


def _fingerprint(recipe: Recipe) -> str:
    """What must not change between the parts of one run. The length may: a run can be prolonged or be ended early."""
    free = {"steps", "compile", "log_every", "evaluate_every", "save_every", "optimizer"}
    free |= {name for name in type(recipe).model_fields if name.startswith("evaluation_")}
    data = recipe.model_dump(mode="json", exclude=free)
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _save(accelerator: Accelerator, state: Path, step: int, recipe: Recipe) -> None:
    temporary = state.with_name("state.partial")
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(temporary))
    if accelerator.is_main_process:
        progress = {"step": step, "recipe": recipe.model_dump(mode="json"), "fingerprint": _fingerprint(recipe)}
        (temporary / "progress.json").write_text(json.dumps(progress, indent=1), encoding="utf-8")
        previous = state.with_name("state.previous")
        shutil.rmtree(previous, ignore_errors=True)
        if state.exists():
            state.rename(previous)
        temporary.rename(state)
        shutil.rmtree(previous, ignore_errors=True)
    accelerator.wait_for_everyone()


def _resume(accelerator: Accelerator, state: Path, recipe: Recipe) -> int:
    """Loads the state, if there is one; returns the steps that it has behind it."""
    previous = state.with_name("state.previous")
    if accelerator.is_main_process and previous.is_dir() and not state.exists():
        previous.rename(state)  # stopped while one state took the other's place
    accelerator.wait_for_everyone()
    if not state.is_dir():
        return 0
    progress = json.loads((state / "progress.json").read_text(encoding="utf-8"))
    if progress["fingerprint"] != _fingerprint(recipe):
        raise ValueError(
            f"output: {str(state.parent)!r} holds a run of another recipe; choose another folder or remove it"
        )
    accelerator.load_state(str(state))
    return progress["step"]


def _log(accelerator: Accelerator, output: Path, line: dict[str, Any]) -> None:
    if accelerator.is_main_process:
        with (output / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
