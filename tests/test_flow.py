"""The two samplers on fields with known answers."""

import itertools

import pytest
import torch
from torch import Tensor

from unimodal_decoders import flow

SHAPE = (2, 3, 4, 6)


def draw(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def zeros() -> itertools.repeat:
    return itertools.repeat(torch.zeros(SHAPE))


def towards(data: Tensor) -> flow.Velocity:
    """The exact field of a single picture: (x₁ - x) / (1 - t)."""
    return lambda latents, times: (data - latents) / (1 - times.view(-1, 1, 1, 1)).clamp_min(1e-12)


def test_shifted_times() -> None:
    times = flow.time_shift(torch.arange(50, dtype=torch.float64) / 49, 6.0)
    expected = {0: 0.0, 1: 0.0034602, 24: 0.1379310, 48: 0.8888889, 49: 1.0}
    for index, value in expected.items():
        assert times[index].item() == pytest.approx(value, abs=1e-7)


def test_fifty_points_are_forty_nine_evaluations() -> None:
    seen: list[float] = []

    def field(latents: Tensor, times: Tensor) -> Tensor:
        assert latents.dtype == torch.float32 and times.shape == (2,)
        seen.append(times[0].item())
        return torch.ones_like(latents)

    noise = draw(0).float()
    states = list(flow.euler(field, noise, 50))
    assert len(seen) == len(states) == 49 and seen[0] == 0.0 and seen[-1] == pytest.approx(8 / 9)
    assert [state.step for state in states] == list(range(1, 50)) and states[-1].time == 1.0
    torch.testing.assert_close(states[-1].latents, noise + 1)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_perfect_velocity_gives_the_data(steps: int) -> None:
    data, noise = draw(1), draw(2)
    fresh = iter([draw(3 + step) for step in range(steps)])
    *_, turbo = flow.turbo(towards(data), noise, steps, fresh)
    assert turbo.latents.dtype == torch.float64
    torch.testing.assert_close(turbo.latents, data, rtol=0, atol=1e-6)
    assert next(fresh, None) is None
    *_, normal = flow.euler(towards(data), noise, steps + 1)
    torch.testing.assert_close(normal.latents, data.float(), rtol=0, atol=1e-5)


def test_turbo_mixes_prediction_and_new_noise() -> None:
    noise, fresh, slope = draw(0), draw(1), 0.3
    first = next(flow.turbo(lambda latents, times: slope * latents, noise, 4, iter([fresh])))
    single = noise.float().double()
    torch.testing.assert_close(first.latents, 0.25 * (noise + slope * single) + 0.75 * fresh, rtol=0, atol=1e-6)
    kept = next(flow.turbo(lambda latents, times: slope * latents, noise, 4, iter([fresh]), stochasticity=0.0))
    torch.testing.assert_close(kept.latents, noise + 0.25 * slope * single, rtol=0, atol=1e-6)


def test_guidance_adds_and_never_lengthens() -> None:
    conditional, unconditional = draw(0), draw(1)
    torch.testing.assert_close(flow.guided(conditional, unconditional, 0.0), conditional.float())
    strong = flow.guided(conditional, unconditional, 3.0)
    for picture in range(2):
        p, n = conditional[picture].float(), unconditional[picture].float()
        u = p + 3 * (p - n)
        expected = u * min(1.0, (p.norm() / u.norm()).item())
        torch.testing.assert_close(strong[picture], expected)
    shorter = flow.guided(conditional, 1.5 * conditional, 1.0)
    torch.testing.assert_close(shorter, 0.5 * conditional.float())
    assert flow.guided(torch.zeros(SHAPE), torch.zeros(SHAPE), 1.0).isfinite().all()


def test_a_generator_per_picture_makes_it_independent_of_its_batch() -> None:
    seeds = [4, 5]
    together = flow.normal_draws(SHAPE, [torch.Generator().manual_seed(s) for s in seeds], "cpu", torch.float32)
    for row, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        alone = flow.normal_draws((1, *SHAPE[1:]), generator, "cpu", torch.float32)
        again = flow.normal_draws(SHAPE, [torch.Generator().manual_seed(s) for s in seeds], "cpu", torch.float32)
        for _ in range(2):
            assert torch.equal(next(again)[row], next(alone)[0])
    assert not torch.equal(next(together), next(together))


def test_impossible_options_are_refused() -> None:
    field = towards(draw(0))
    for call, name in (
        (lambda: flow.euler(field, draw(0), 1), "num_steps"),
        (lambda: flow.euler(field, draw(0), 4, shift=0.0), "shift"),
        (lambda: flow.turbo(field, draw(0), 0, zeros()), "num_steps"),
        (lambda: flow.turbo(field, draw(0), 2, zeros(), stochasticity=1.5), "stochasticity"),
        (lambda: flow.normal_draws(SHAPE, [torch.Generator()], "cpu", torch.float32), "generator"),
    ):
        with pytest.raises(ValueError, match=name):
            next(call())
