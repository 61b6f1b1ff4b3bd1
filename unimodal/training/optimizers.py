"""Optimizer groups, the learning-rate schedule and Muon for stacks of matrices.

`torch.optim.Muon` takes two-dimensional parameters only; fused experts are stacks [experts, out, in], each of which is
orthogonalised on its own here, in one batched iteration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from unimodal.training.recipe import OptimizerRecipe

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic coefficients of Muon (Jordan et al. 2024)


def build_optimizers(
    module: nn.Module, recipe: OptimizerRecipe, is_matrix: Callable[[str, Tensor], bool]
) -> list[torch.optim.Optimizer]:
    """AdamW over everything, or AdamW and Muon where the recipe gives a `matrix_learning_rate`.

    `is_matrix(name, parameter)` says which parameters Muon takes; embeddings and heads are never among them. Weight
    decay applies to parameters with two or more dimensions.
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    muon = [p for name, p in trained if recipe.matrix_learning_rate is not None and is_matrix(name, p)]
    taken = {id(p) for p in muon}
    rest = [p for _, p in trained if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if g["params"]], lr=recipe.learning_rate, betas=recipe.betas, eps=1e-8)
    ]
    if muon:
        assert recipe.matrix_learning_rate is not None
        optimizers.append(Muon(muon, lr=recipe.matrix_learning_rate, weight_decay=recipe.weight_decay))
    return optimizers


def learning_rate_factor(step: int, steps: int, recipe: OptimizerRecipe) -> float:
    """Warm-up, stable, decay: the factor in (0, 1] on the peak rate at `step` of `steps`."""
    warmup = min(1.0, (step + 1) / max(recipe.warmup_steps, 1))
    decay_steps = max(1, math.floor(steps * recipe.decay_fraction))
    return min(warmup, max(steps - step, 1) / decay_steps) if steps - step < decay_steps else warmup


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are orthogonalised (Muon; scale of arXiv 2502.16982 §2.2: 0.2·sqrt(max(rows, columns))).

    Args:
        parameters: matrices [rows, columns], stacks of independent matrices [N, rows, columns], or convolution
            kernels [rows, channels, height, width], which count as matrices of one row per output channel.
        lr: the rate, of the size that AdamW would take.
        weight_decay: decoupled, as in AdamW.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(momentum, group["momentum"])
                direction = orthogonalize(update.flatten(1) if update.ndim == 4 else update)
                scale = 0.2 * math.sqrt(max(direction.shape[-2:]))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction.to(parameter.dtype).reshape(parameter.shape), alpha=-group["lr"] * scale)


def orthogonalize(matrices: Tensor, iterations: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrices of [..., rows, columns], roughly, by Newton-Schulz in bfloat16."""
    a, b, c = _NEWTON_SCHULZ
    x = matrices.bfloat16()
    transposed = x.shape[-2] > x.shape[-1]
    if transposed:
        x = x.mT
    stack = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).reshape(-1, *x.shape[-2:])
    for _ in range(iterations):
        gram = stack @ stack.mT
        stack = torch.baddbmm(stack, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), stack, beta=a)
    x = stack.view(x.shape)
    return x.mT if transposed else x
