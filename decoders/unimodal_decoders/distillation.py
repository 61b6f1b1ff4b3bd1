"""Few-step distillation: one transformer learns the velocity and the flow map, and exports either as a decoder.

The loss of LLaDA2.0-Uni's turbo decoder (arXiv 2604.20796, section 4.4, equation 8), after duality models
(arXiv 2602.17682), with the derivative along the path by the central difference of UCGM (arXiv 2505.07447).

Sign. The paper's time runs from data (0) to noise (1); there the mean velocity u' from t' back to the data has
t'·u' = ∫₀^t' v' ds, hence u' = v' - t'·du'/dt', the printed equation. Our time is t = 1 - t' and our velocity
v = x₁ - x₀ points to the data. The mean velocity u over the rest of the path has

    (1 - t)·u(x_t, t) = ∫_t^1 v(x_s, s) ds,    so that    x₁ = x_t + (1 - t)·u(x_t, t),

and the derivative of both sides along the path, -u + (1 - t)·du/dt = -v, gives

    u = v + (1 - t)·du/dt,    du/dt = ∂u/∂t + (∂u/∂x)·v.

(The same by substitution: u' = -u, v' = -v, dt' = -dt.) The right side is linear in v, so the sampled x₁ - x₀ may
stand for the mean velocity at x_t, in v and in the derivative alike: the expectation of the target is unchanged.

Which head to keep. The turbo sampler takes x + (1 - t)·output for the data and adds new noise. For the flow map that is
the end of the path, so that every step lands on the data's distribution. For the velocity it is the posterior mean of
x₁, which is blurred near the noise. Read literally, the paper drops the extra projection (u); by this argument
`TwoHeadTransformer.export("flow_map")` is our turbo decoder, and `export("velocity")` a normal one. Both have the
published layout, so the reading can be changed by exporting the other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from torch import Tensor, nn

from unimodal_decoders.flow import Velocity
from unimodal_decoders.losses import blend
from unimodal_decoders.transformer import final_layer, read_out, set_final_layer, trunk

DIFFERENCE = 0.005
"""Half the span of the central difference, in time (UCGM)."""

TwoFields = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Latents [B, C, Y, X] and times [B] to velocity and flow map, both like the latents."""


@dataclass(frozen=True)
class DistillationLoss:
    """Mean squared errors of each picture, [B]; train on their sum."""

    velocity: Tensor
    flow_map: Tensor


class TwoHeadTransformer(nn.Module):
    """A transformer with a second output projection, `flow_map_head`, which starts as a copy of its own."""

    def __init__(self, transformer: ZImageTransformer2DModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.flow_map_head = copy.deepcopy(final_layer(transformer))

    def forward(self, latents: Tensor, times: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and flow map of latents [B, C, Y, X] at times [B] given features [B, N, D], from one pass."""
        tokens, modulation = trunk(self.transformer, latents, times, features)
        heads = final_layer(self.transformer), self.flow_map_head
        velocity, flow_map = (read_out(self.transformer, head, tokens, modulation, latents.shape) for head in heads)
        return velocity, flow_map

    def export(self, head: Literal["flow_map", "velocity"]) -> ZImageTransformer2DModel:
        """A copy in the published layout whose output is the chosen head."""
        if head not in ("flow_map", "velocity"):
            raise ValueError(f"head: {head!r}, expected 'flow_map' or 'velocity'")
        exported = copy.deepcopy(self.transformer)
        if head == "flow_map":
            set_final_layer(exported, copy.deepcopy(self.flow_map_head))
        return exported


def distillation_loss(
    fields: TwoFields,
    data: Tensor,
    noise: Tensor,
    times: Tensor,
    teacher: Velocity | None = None,
    difference: float = DIFFERENCE,
) -> DistillationLoss:
    """‖v_θ - v‖² and ‖u_θ - (v + (1 - t)·du_θ⁻/dt)‖², where θ⁻ carries no gradient.

    Args:
        fields: the two heads, condition already inside.
        data: x₁ [B, C, Y, X].
        noise: x₀ in the same shape.
        times: [B] in [0, 1].
        teacher: gives v in place of x₁ - x₀, for instance with guidance, which the student then needs no more.
        difference: half the span of the central difference.

    Raises:
        ValueError: `difference` is not in (0, 0.5].
    """
    if not 0 < difference <= 0.5:
        raise ValueError(f"difference: {difference}, expected above 0 and at most 0.5")
    latents = blend(noise, data, times)
    with torch.no_grad():
        target_velocity = (data - noise if teacher is None else teacher(latents, times)).float()
        slope = path_derivative(fields, latents, times, target_velocity, difference)
        remaining = (1 - times).view(-1, *[1] * (data.ndim - 1))
        target_flow_map = target_velocity + remaining * slope
    velocity, flow_map = fields(latents, times)
    axes = tuple(range(1, data.ndim))
    return DistillationLoss(
        velocity=(velocity.float() - target_velocity).square().mean(dim=axes),
        flow_map=(flow_map.float() - target_flow_map).square().mean(dim=axes),
    )


@torch.no_grad()
def path_derivative(fields: TwoFields, latents: Tensor, times: Tensor, direction: Tensor, difference: float) -> Tensor:
    """du/dt along `direction`, float32.

    Near 0 and 1 the centre is moved inward, so that no time outside [0, 1] is asked for. Runs without autocast: the
    difference of two nearly equal outputs has no correct digits in bfloat16.
    """
    centre = times.clamp(difference, 1 - difference)
    ends = torch.stack((centre - difference, centre + difference))  # [2, B]
    offsets = (ends - times).view(2, -1, *[1] * (latents.ndim - 1))
    points = latents.float() + offsets * direction
    with torch.autocast(latents.device.type, enabled=False):
        before, after = (fields(point, end)[1].float() for point, end in zip(points, ends, strict=True))
    return (after - before) / (2 * difference)
