"""Muon on matrices and stacks, which parameters it takes, and the learning-rate schedule by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unimodal.training.optimizers import Muon, build_optimizers, learning_rate_factor, orthogonalize
from unimodal.training.recipe import OptimizerRecipe


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6), (3, 8, 12)])
def test_orthogonalised_matrices_turn_nothing_and_stretch_hardly(shape: tuple[int, ...], generator) -> None:
    matrices = torch.randn(shape, generator=generator)
    result = orthogonalize(matrices).float()
    assert result.shape == shape
    # Muon's iteration stops when all singular values are near one; it keeps the singular vectors.
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.4 and values.max() < 1.4
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    inside = left.mT @ result @ right.mT
    off_diagonal = inside - torch.diag_embed(inside.diagonal(dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() < 0.15


def test_the_size_of_a_matrix_does_not_matter(generator) -> None:
    matrix = torch.randn(8, 12, generator=generator)
    assert torch.allclose(orthogonalize(matrix).float(), orthogonalize(1024 * matrix).float(), atol=0.03)
    assert not orthogonalize(torch.zeros(4, 4)).any()


def step(values: Tensor, gradients: list[Tensor], **options: float) -> Tensor:
    parameter = nn.Parameter(values.clone())
    muon = Muon([parameter], **options)  # type: ignore[arg-type]
    for gradient in gradients:
        parameter.grad = gradient.clone()
        muon.step()
    return parameter.detach()


def test_a_stack_moves_as_its_matrices_alone(generator) -> None:
    values, *gradients = (torch.randn(4, 6, 10, generator=generator) for _ in range(4))
    together = step(values, gradients, lr=0.1, weight_decay=0.01)
    for index in range(4):
        alone = step(values[index], [gradient[index] for gradient in gradients], lr=0.1, weight_decay=0.01)
        torch.testing.assert_close(together[index], alone, atol=2e-3, rtol=0)


def test_convolutions_count_as_matrices(generator) -> None:
    values, gradient = (torch.randn(5, 4, 3, 3, generator=generator) for _ in range(2))
    flat = step(values.flatten(1), [gradient.flatten(1)], lr=0.1)
    torch.testing.assert_close(step(values, [gradient], lr=0.1).flatten(1), flat)


def test_an_update_by_hand() -> None:
    # The gradient is twice a permutation: its nearest orthogonal matrix is the permutation itself.
    permutation = torch.eye(4)[[1, 0, 3, 2]]
    moved = step(torch.ones(4, 4), [2 * permutation], lr=0.1, weight_decay=0.5)
    direction = orthogonalize(permutation).float()
    torch.testing.assert_close(moved, torch.ones(4, 4) * 0.95 - 0.1 * 0.2 * 2 * direction, atol=1e-3, rtol=0)
    assert direction[permutation == 0].abs().max() < 0.02
    assert ((direction[permutation == 1] - 1).abs() < 0.35).all()


def test_momentum_by_hand(generator) -> None:
    first, second = (torch.randn(4, 6, generator=generator) for _ in range(2))
    zero = torch.zeros(4, 6)
    momentum = 0.05 * first
    expected = -0.1 * 0.2 * 6**0.5 * orthogonalize(first.lerp(momentum, 0.95)).float()
    momentum = 0.95 * momentum + 0.05 * second
    expected = expected - 0.1 * 0.2 * 6**0.5 * orthogonalize(second.lerp(momentum, 0.95)).float()
    torch.testing.assert_close(step(zero, [first, second], lr=0.1), expected, atol=2e-3, rtol=0)


def test_muon_finds_a_minimum(generator) -> None:
    target = torch.randn(6, 6, generator=generator)
    parameter = nn.Parameter(torch.zeros(6, 6))
    muon = Muon([parameter], lr=0.2)
    for count in range(300):
        muon.param_groups[0]["lr"] = 0.2 * (1 - count / 300)
        muon.zero_grad()
        (parameter - target).square().sum().backward()
        muon.step()
    assert (parameter - target).abs().max() < 0.05


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.inner = nn.Linear(3, 3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)


def is_inner(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and "embed" not in name


def test_every_trained_parameter_has_one_optimizer() -> None:
    parts = Parts()
    recipe = OptimizerRecipe(learning_rate=0.1, matrix_learning_rate=0.2, weight_decay=0.3)
    adam, muon = build_optimizers(parts, recipe, is_inner)
    assert isinstance(adam, torch.optim.AdamW) and isinstance(muon, Muon)
    decayed, plain = adam.param_groups
    assert [decayed["params"], plain["params"]] == [[parts.embedding.weight], [parts.inner.bias]]
    assert (decayed["weight_decay"], plain["weight_decay"], decayed["lr"]) == (0.3, 0.0, 0.1)
    [group] = muon.param_groups
    assert group["params"] == [parts.inner.weight] and (group["lr"], group["weight_decay"]) == (0.2, 0.3)
    [alone] = build_optimizers(parts, OptimizerRecipe(learning_rate=0.1), is_inner)
    assert sum(len(group["params"]) for group in alone.param_groups) == 3


def test_schedule_by_hand() -> None:
    recipe = OptimizerRecipe(learning_rate=1.0, warmup_steps=4, decay_fraction=0.5)
    factors = [learning_rate_factor(step, 10, recipe) for step in range(10)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2])
    flat = OptimizerRecipe(learning_rate=1.0, warmup_steps=0, decay_fraction=0.0)
    assert {learning_rate_factor(step, 10, flat) for step in range(10)} == {1.0}
    both = OptimizerRecipe(learning_rate=1.0, warmup_steps=10, decay_fraction=1.0)
    rising = [learning_rate_factor(step, 10, both) for step in range(10)]
    assert rising == pytest.approx([min(step + 1, 10 - step) / 10 for step in range(10)])
