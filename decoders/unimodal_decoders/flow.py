"""From noise to data along straight paths x_t = t·x₁ + (1 - t)·x₀: an Euler sampler and a few-step one.

Time runs from 0 (noise x₀) to 1 (data x₁) and the network's output is the velocity x₁ - x₀, sign as it is. Both
samplers are generators of states, and both are those of the published LLaDA2.0-Uni decoders (arXiv 2604.20796,
section 4.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NORMAL_STEPS, NORMAL_TIME_SHIFT = 50, 6.0
TURBO_STEPS = 8
LATENTS_PER_CODE = 2
"""Latents per code along each side and unit of resolution: a code is 16 pixels wide, a latent 8."""

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Latents [B, C, Y, X] and times [B] to velocities [B, C, Y, X]."""
Generators = torch.Generator | Sequence[torch.Generator] | None


@dataclass(frozen=True)
class FlowState:
    """After `step` of `num_steps` evaluations: `latents` [B, C, Y, X] at `time`; `estimate`, the last predicted x₁."""

    step: int
    num_steps: int
    time: float
    latents: Tensor
    estimate: Tensor


def time_shift(times: Tensor, factor: float) -> Tensor:
    """t / (t + f - f·t): spends more steps near the noise for f > 1; the shift of sigma = 1 - t used for Flux."""
    return times / (times + factor - factor * times)


def euler(velocity: Velocity, noise: Tensor, num_points: int, shift: float = NORMAL_TIME_SHIFT) -> Iterator[FlowState]:
    """The probability flow from `noise` [B, C, Y, X], in float32.

    `num_points` counts the points of the time grid, both ends included, as the published "50 steps" does: there are
    `num_points - 1` evaluations.

    Raises:
        ValueError: fewer than two points, or a shift that is not positive.
    """
    if num_points < 2:
        raise ValueError(f"num_steps: {num_points}, the normal decoder needs at least 2 points of time")
    if not shift > 0:
        raise ValueError(f"shift: {shift}, expected above 0")
    latents = noise.float()
    times = time_shift(torch.linspace(0, 1, num_points, dtype=torch.float64), shift).tolist()
    for step in range(num_points - 1):
        direction = velocity(latents, latents.new_full((len(latents),), times[step])).float()
        estimate = latents + (1 - times[step]) * direction
        latents = latents + (times[step + 1] - times[step]) * direction
        yield FlowState(step + 1, num_points - 1, times[step + 1], latents, estimate)


def turbo(
    velocity: Velocity, noise: Tensor, num_steps: int, step_noise: Iterator[Tensor], stochasticity: float = 1.0
) -> Iterator[FlowState]:
    """Predicts x₁, mixes it with new noise at the next time, `num_steps` times; the state is kept in float64.

    `step_noise` gives one standard normal tensor in the shape of `noise` for every step. A part `stochasticity` of the
    noise's variance is new, the rest is the predicted x₀. The last step ends on the prediction itself, whatever its
    noise; a perfect velocity therefore gives x₁ after any number of steps.

    Raises:
        ValueError: no step, or a stochasticity outside [0, 1].
    """
    if num_steps < 1:
        raise ValueError(f"num_steps: {num_steps}, expected at least 1")
    if not 0 <= stochasticity <= 1:
        raise ValueError(f"stochasticity: {stochasticity}, expected in [0, 1]")
    latents = noise.to(state_dtype(noise.device))
    for step in range(num_steps):
        time, next_time = step / num_steps, (step + 1) / num_steps
        # The network sees single precision; only the state is finer.
        direction = velocity(latents.float(), noise.new_full((len(noise),), time, dtype=torch.float32)).to(latents)
        data = latents + (1 - time) * direction
        start = latents - time * direction
        fresh = next(step_noise).to(latents)
        start = (1 - stochasticity) ** 0.5 * start + stochasticity**0.5 * fresh
        latents = next_time * data + (1 - next_time) * start
        yield FlowState(step + 1, num_steps, next_time, latents, data)


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """p + s·(p - n) for velocities p, n [B, C, Y, X], shortened to the length of p where it would be longer.

    Zero means no guidance. The length is that of a whole picture's latent, in float32.
    """
    conditional, unconditional = conditional.float(), unconditional.float()
    result = conditional + scale * (conditional - unconditional)
    allowed = torch.linalg.vector_norm(conditional, dim=(1, 2, 3), keepdim=True)
    length = torch.linalg.vector_norm(result, dim=(1, 2, 3), keepdim=True)
    return torch.where(length > allowed, result * (allowed / length.clamp_min(torch.finfo(length.dtype).tiny)), result)


def state_dtype(device: torch.device) -> torch.dtype:
    """The precision of the few-step state: float64, except on Apple GPUs, which have none."""
    return torch.float32 if device.type == "mps" else torch.float64


def normal_draws(
    shape: Sequence[int], generator: Generators, device: torch.device | str, dtype: torch.dtype
) -> Iterator[Tensor]:
    """An endless stream of standard normal tensors of `shape`, on `device`.

    With a list of generators, picture i is drawn from generator i alone, so its pixels do not depend on its batch. A
    generator draws on its own device: one on the CPU gives the same noise everywhere.

    Raises:
        ValueError: a list of another length than the batch.
    """
    if isinstance(generator, Sequence) and len(generator) != shape[0]:
        raise ValueError(f"generator: {len(generator)} generators for {shape[0]} pictures")
    return _normal_draws(tuple(shape), generator, device, dtype)


def _normal_draws(
    shape: tuple[int, ...], generator: Generators, device: torch.device | str, dtype: torch.dtype
) -> Iterator[Tensor]:
    while True:
        if isinstance(generator, Sequence):
            rows = [torch.randn(1, *shape[1:], generator=g, device=g.device, dtype=dtype) for g in generator]
            yield torch.cat([row.to(device) for row in rows])
        else:
            source = device if generator is None else generator.device
            yield torch.randn(shape, generator=generator, device=source, dtype=dtype).to(device)
