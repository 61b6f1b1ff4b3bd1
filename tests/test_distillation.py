"""Flow matching and distillation on Gaussian data, where velocity and flow map are known in closed form."""

import math
from itertools import repeat

import pytest
import torch
from torch import Tensor

from unimodal_decoders import flow
from unimodal_decoders.conditioner import build_conditioner
from unimodal_decoders.distillation import TwoHeadTransformer, distillation_loss, path_derivative
from unimodal_decoders.losses import (
    blend,
    condition_gap,
    flow_matching_loss,
    resolution_multiplier,
    training_features,
    training_times,
)
from unimodal_decoders.transformer import build_transformer, final_layer, velocity

MEAN, DEVIATION = 0.7, 0.4
DECODER = {
    "dim": 24,
    "n_layers": 1,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "cap_feat_dim": 10,
    "axes_dims": [4, 4, 4],
}


def as_column(times: Tensor) -> Tensor:
    return times.view(-1, 1, 1, 1)


def spread(times: Tensor) -> Tensor:
    """Standard deviation of x_t for x₀ ~ N(0, 1) and x₁ ~ N(MEAN, DEVIATION²)."""
    return (as_column(times).square() * DEVIATION**2 + (1 - as_column(times)).square()).sqrt()


def true_velocity(latents: Tensor, times: Tensor) -> Tensor:
    t = as_column(times)
    slope = (t * DEVIATION**2 - (1 - t)) / spread(times).square()
    return MEAN + slope * (latents - t * MEAN)


def true_flow_map(latents: Tensor, times: Tensor) -> Tensor:
    """(x₁ - x_t) / (1 - t) along the path, which keeps the number of standard deviations."""
    t = as_column(times)
    end = MEAN + DEVIATION * (latents - t * MEAN) / spread(times)
    # At t = 1 the ratio's limit is the velocity.
    return torch.where(t < 1, (end - latents) / (1 - t).clamp_min(1e-9), true_velocity(latents, times))


def true_fields(latents: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    return true_velocity(latents.double(), times.double()), true_flow_map(latents.double(), times.double())


def draw_pairs(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    noise, data = torch.randn(2, count, 1, 1, 1, generator=generator, dtype=torch.float64)
    return MEAN + DEVIATION * data, noise


@pytest.mark.parametrize("time", [0.0, 0.02, 0.3, 0.7, 0.99, 1.0])
def test_the_true_flow_map_has_no_loss(time: float) -> None:
    data, noise = draw_pairs(50)
    times = torch.full((50,), time, dtype=torch.float64)
    loss = distillation_loss(true_fields, data, noise, times, teacher=true_velocity, difference=1e-2)
    assert loss.velocity.max() < 1e-9
    # At the very ends the difference is centred one half-span inside.
    assert loss.flow_map.max() < (2e-3 if time < 1e-2 else 1e-5)


def test_the_other_sign_would_have_a_loss() -> None:
    data, noise = draw_pairs(50)
    times = torch.full((50,), 0.3, dtype=torch.float64)
    latents = blend(noise, data, times)
    field = true_velocity(latents, times)
    slope = path_derivative(true_fields, latents, times, field, 1e-3)
    flow_map = true_flow_map(latents, times)
    assert (field + 0.7 * slope - flow_map).abs().max() < 1e-3
    assert (field - 0.7 * slope - flow_map).square().mean() > 1e-2


def test_sampled_velocities_leave_the_target_unbiased() -> None:
    """With x₁ - x₀ in place of v, the residual of the true fields is noise: uncorrelated with anything known at x_t."""
    data, noise = draw_pairs(40000)
    times = torch.full((40000,), 0.4, dtype=torch.float64)
    latents = blend(noise, data, times)
    sampled = data - noise
    target = sampled + 0.6 * path_derivative(true_fields, latents, times, sampled, 5e-3)
    residual = target - true_flow_map(latents, times)
    assert residual.std() > 0.1
    for known in (torch.ones_like(latents), latents - latents.mean(), latents.square()):
        assert abs((residual * known).mean()) < 4 * residual.std() * known.square().mean().sqrt() / 200


def test_only_the_flow_map_keeps_the_data_s_spread_in_few_steps() -> None:
    """Why the flow map is exported: one step of the velocity gives every noise the mean of the data."""
    _, noise = draw_pairs(4000)
    generator = torch.Generator().manual_seed(1)
    for steps in (1, 2, 4):
        fresh = flow.normal_draws(noise.shape, generator, "cpu", torch.float64)
        *_, state = flow.turbo(true_flow_map, noise, steps, fresh)
        assert state.latents.mean().item() == pytest.approx(MEAN, abs=0.03)
        assert state.latents.std().item() == pytest.approx(DEVIATION, abs=0.03)
    *_, blurred = flow.turbo(true_velocity, noise, 1, repeat(torch.zeros_like(noise)))
    assert blurred.latents.std() < 0.01


def test_no_time_outside_the_path_is_asked_for() -> None:
    asked: list[Tensor] = []

    def fields(latents: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(times)
        return latents, latents

    data, noise = draw_pairs(3)
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    distillation_loss(fields, data, noise, times, difference=0.1)
    assert torch.cat(asked).min() >= 0 and torch.cat(asked).max() <= 1
    with pytest.raises(ValueError, match="difference"):
        distillation_loss(fields, data, noise, times, difference=0.0)


@pytest.fixture
def student() -> TwoHeadTransformer:
    torch.manual_seed(0)
    return TwoHeadTransformer(build_transformer(DECODER))


def test_both_heads_learn_and_either_is_exported(student: TwoHeadTransformer) -> None:
    with torch.no_grad():
        student.flow_map_head.get_parameter("linear.weight").mul_(2)
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 2, 16, 4, 4, generator=generator)
    times, features = torch.tensor([0.2, 0.8]), torch.randn(2, 16, 10, generator=generator)
    loss = distillation_loss(lambda latents, t: student(latents, t, features), data, noise, times)
    assert loss.velocity.shape == loss.flow_map.shape == (2,)
    (loss.velocity + loss.flow_map).mean().backward()
    assert all(weight.grad is not None for weight in student.parameters())
    with torch.no_grad():
        heads = student(data, times, features)
        for head, expected in zip(("velocity", "flow_map"), heads, strict=True):
            exported = student.export(head)  # type: ignore[arg-type]
            assert set(exported.state_dict()) == set(student.transformer.state_dict())
            assert torch.equal(velocity(exported, data, times, features), expected)
    assert not torch.allclose(*heads)
    with pytest.raises(ValueError, match="head"):
        student.export("both")  # type: ignore[arg-type]


def test_flow_matching_of_a_zero_output_is_the_mean_square_velocity() -> None:
    transformer, conditioner = build_transformer(DECODER), build_conditioner({"vocab_size": 9, "inner_dim": 10})
    with torch.no_grad():
        for name in ("weight", "bias"):
            final_layer(transformer).get_parameter(f"linear.{name}").zero_()
    latents, codes = torch.full((3, 16, 4, 8), 2.0), torch.zeros(3, 1, 2, dtype=torch.long)
    loss = flow_matching_loss(transformer, conditioner, latents, codes, torch.Generator().manual_seed(0))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss, (2 - noise).square().mean(dim=(1, 2, 3)))
    gap = condition_gap(transformer, conditioner, latents, codes, torch.Generator().manual_seed(0))
    assert gap["true"] == gap["shuffled"] == gap["other"] == gap["none"]


def test_times_lean_towards_the_noise_as_the_released_code_shifts_them() -> None:
    for side, logarithm in ((32, 0.5), (128, 1.15)):
        latents = torch.empty(5, 16, side, side)
        times = training_times(latents, 2, torch.Generator().manual_seed(0))
        sigma = 1 - torch.rand(5, generator=torch.Generator().manual_seed(0))
        expected = 1 - math.exp(logarithm) / (math.exp(logarithm) + 1 / sigma - 1)
        torch.testing.assert_close(times, expected)


def test_dropped_conditions_are_zeros() -> None:
    conditioner = build_conditioner({"vocab_size": 9, "inner_dim": 6})
    codes, latents = torch.zeros(400, 1, 1, dtype=torch.long), torch.empty(400, 16, 2, 2)
    features = training_features(conditioner, codes, latents, torch.Generator().manual_seed(0), 0.25)
    dropped = (features == 0).all(dim=(1, 2))
    assert 60 < dropped.sum() < 140
    torch.testing.assert_close(features[~dropped], conditioner(codes[~dropped]))
    with pytest.raises(ValueError, match="drop_probability"):
        training_features(conditioner, codes, latents, torch.Generator(), 1.5)


def test_the_multiplier_is_that_of_the_grids() -> None:
    codes = torch.zeros(2, 3, 5)
    assert resolution_multiplier(codes, torch.empty(2, 16, 6, 10)) == 1
    assert resolution_multiplier(codes, torch.empty(2, 16, 12, 20)) == 2
    for shape in ((2, 16, 12, 10), (2, 16, 4, 10), (1, 16, 6, 10)):
        with pytest.raises(ValueError, match="latents"):
            resolution_multiplier(codes, torch.empty(shape))
