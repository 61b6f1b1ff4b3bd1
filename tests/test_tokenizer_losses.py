"""What trains the picture tokenizer: quantisation, the moving codebook, dead codes, k-means and merging, by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unimodal_tokenizers.losses import (
    MovingCodebook,
    SemanticHeads,
    assignment_sums,
    codebook_perplexity,
    merge_twins,
    quantize,
)


def angles(*degrees: float) -> Tensor:
    """Unit vectors [N, 2]."""
    turns = torch.tensor(degrees).deg2rad()
    return torch.stack([turns.cos(), turns.sin()], dim=-1)


def test_the_nearest_code_is_by_cosine(generator) -> None:
    codebook = torch.tensor([[1.0, 0.0], [0.0, 100.0], [-0.1, 0.0]])
    vectors = torch.tensor([[3.0, 2.9], [3.0, 3.1], [-0.01, 0.001]]).view(1, 1, 3, 2)
    result = quantize(vectors, codebook)
    assert result.codes.tolist() == [[[0, 1, 2]]]
    torch.testing.assert_close(result.straight, F.normalize(codebook, dim=-1)[result.codes])
    torch.testing.assert_close(result.unit.norm(dim=-1), torch.ones(1, 1, 3))
    vectors, codebook = torch.randn(2, 3, 4, 5, generator=generator), torch.randn(7, 5, generator=generator)
    slow = F.cosine_similarity(vectors[..., None, :], codebook, dim=-1).argmax(dim=-1)
    assert quantize(vectors, codebook).codes.equal(slow)


def test_gradients_go_straight_through_to_the_unit_vectors(generator) -> None:
    vectors = torch.randn(2, 2, 2, 4, generator=generator, requires_grad=True)
    twin = vectors.detach().clone().requires_grad_()
    codebook, pull = torch.randn(6, 4, generator=generator, requires_grad=True), torch.randn(4, generator=generator)
    (quantize(vectors, codebook).straight * pull).sum().backward()
    (F.normalize(twin, dim=-1) * pull).sum().backward()
    torch.testing.assert_close(vectors.grad, twin.grad)
    assert codebook.grad is None or not codebook.grad.any()


def test_commitment_by_hand() -> None:
    vectors = torch.cat([angles(0.0), angles(60.0)]).view(2, 1, 1, 2).requires_grad_()
    result = quantize(vectors, angles(0.0, 180.0))
    # 60 degrees away, the squared distance is 1, over two channels one half.
    assert result.commitment.tolist() == pytest.approx([0.0, 0.5])
    result.commitment.sum().backward()
    assert vectors.grad is not None and vectors.grad[1].abs().sum() > 0


def test_assignment_sums_by_hand() -> None:
    codes, vectors = torch.tensor([[2, 0], [2, 2]]), torch.arange(8.0).view(2, 2, 2)
    counts, sums = assignment_sums(codes, vectors, 4)
    assert counts.tolist() == [1, 0, 3, 0]
    assert sums.tolist() == [[2, 3], [0, 0], [10, 13], [0, 0]]


def test_the_codebook_follows_its_vectors() -> None:
    codebook = nn.Parameter(angles(0.0, 90.0), requires_grad=False)
    statistics = MovingCodebook(codebook, decay=0.75, revive_below=0.1)
    counts, sums = torch.tensor([2.0, 0.0]), torch.cat([2 * angles(30.0), torch.zeros(1, 2)])
    statistics.update(codebook, counts, sums)
    assert statistics.sizes.tolist() == [1.25, 0.75]
    torch.testing.assert_close(statistics.sums[0], 0.75 * angles(0.0)[0] + 0.5 * angles(30.0)[0])
    torch.testing.assert_close(codebook[0], F.normalize(statistics.sums[0], dim=0))
    torch.testing.assert_close(codebook[1], angles(90.0)[0])  # nothing came: it stays
    for _ in range(40):
        statistics.update(codebook, counts, sums)
    torch.testing.assert_close(codebook[0], angles(30.0)[0], atol=1e-4, rtol=0)


def test_dead_codes_move_to_where_the_error_is(generator) -> None:
    codebook = nn.Parameter(angles(0.0, 90.0, 180.0, 270.0), requires_grad=False)
    statistics = MovingCodebook(codebook, decay=0.9, revive_below=0.1)
    statistics.sizes.copy_(torch.tensor([4.0, 0.01, 4.0, 4.0]))
    vectors, errors = angles(*range(0, 80, 10)), torch.zeros(8)
    errors[5] = 1.0
    assert statistics.revive(codebook, vectors, errors, generator) == 1
    torch.testing.assert_close(codebook, torch.cat([angles(0.0), vectors[5:6], angles(180.0, 270.0)]))
    assert statistics.sizes[1] == pytest.approx(3.0025)
    torch.testing.assert_close(statistics.sums[1], vectors[5] * statistics.sizes[1])
    assert statistics.revive(codebook, vectors, errors, generator) == 0


def test_no_more_codes_are_revived_than_there_is_variety_for(generator) -> None:
    codebook = nn.Parameter(torch.eye(8), requires_grad=False)
    statistics = MovingCodebook(codebook, decay=0.9, revive_below=0.1)
    statistics.sizes.copy_(torch.tensor([100.0] + [0.0] * 7))
    assert statistics.revive(codebook, F.normalize(torch.ones(8, 8), dim=-1), torch.ones(8), generator) == 2


def test_kmeans_finds_clusters(generator) -> None:
    centers = (10.0, 100.0, 190.0, 280.0)
    vectors = angles(*[center + offset for center in centers for offset in (-4.0, -2.0, 0.0, 2.0, 4.0)])
    codebook = nn.Parameter(torch.zeros(4, 2), requires_grad=False)
    statistics = MovingCodebook(codebook, decay=0.9, revive_below=0.1)
    statistics.start(codebook, vectors, 10, generator)
    found = sorted(math.degrees(math.atan2(y, x)) % 360 for x, y in codebook.tolist())
    assert found == pytest.approx(centers, abs=0.01)
    assert statistics.sizes.tolist() == pytest.approx([1.0] * 4)
    torch.testing.assert_close(statistics.sums, codebook.detach())


def test_kmeans_leaves_no_code_empty(generator) -> None:
    vectors = torch.cat([angles(0.0).repeat(30, 1), angles(90.0, 180.0)])
    codebook = nn.Parameter(torch.zeros(3, 2), requires_grad=False)
    MovingCodebook(codebook, decay=0.9, revive_below=0.1).start(codebook, vectors, 5, generator)
    assert quantize(vectors.view(1, 1, -1, 2), codebook).codes.unique().numel() == 3


def test_perplexity_by_hand() -> None:
    assert codebook_perplexity(torch.tensor([5.0, 5.0, 0.0, 0.0])).item() == pytest.approx(2)
    assert codebook_perplexity(torch.tensor([7.0, 0.0])).item() == pytest.approx(1)
    assert codebook_perplexity(torch.ones(16)).item() == pytest.approx(16)


def test_twins_of_the_background_merge() -> None:
    # 0 and 1: the same of background 0. 2: a thing's. 3: close, but of background 1. 4: far. 5: unused.
    codebook = 3 * angles(0.0, 20.0, 10.0, 15.0, 120.0, 5.0)
    backgrounds = torch.tensor([[30.0, 10, 2, 0, 5, 0], [0, 0, 0, 9, 0, 0]])
    things = torch.tensor([0.0, 1, 50, 0, 0, 0])
    before = codebook.clone()
    assert merge_twins(codebook, backgrounds, things, similarity=0.9) == 1
    expected = F.normalize(30 * angles(0.0)[0] + 10 * angles(20.0)[0], dim=0)
    torch.testing.assert_close(codebook[0], expected)
    assert not codebook[1].any()
    torch.testing.assert_close(F.normalize(codebook[2:], dim=-1), F.normalize(before[2:], dim=-1))
    assert quantize(angles(20.0).view(1, 1, 1, 2), codebook).codes.item() != 1


def test_heads_read_every_patch(generator) -> None:
    heads = SemanticHeads(8, {"kind": 3, "color": 5}, patch_pixels=12, embedding_width=6)
    outputs = heads(torch.randn(2, 4, 5, 8, generator=generator))
    shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    grid = (2, 4, 5)
    assert shapes == {
        "kind": (*grid, 3),
        "color": (*grid, 5),
        "offset": (*grid, 2),
        "pixels": (*grid, 12),
        "pooled": (2, 6),
    }
