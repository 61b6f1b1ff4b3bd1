"""The block-diffusion objective: visibility by hand, equivalences between layouts, and the sampler's own forward."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from small_backbone import small_backbone

from unimodal.backbone import MaskedDiffusionTransformer
from unimodal.diffusion.canvas import Canvas
from unimodal.diffusion.denoiser import PlainDenoiser
from unimodal.diffusion.objective import (
    UNSUPERVISED,
    Document,
    Noise,
    Streams,
    collate,
    lay_out,
    visibility,
    weighted_loss,
)

MASK, END, CODES = 50, 51, (40, 50)
NOISE = Noise(mask_id=MASK, codes=CODES, mask_ratios=(0.2, 0.9))
BLOCK = 4


def document(
    length: int, targets: range, fillers: range = range(0), uncounted: range = range(0), seed: int = 0
) -> Document:
    """Random tokens, of which those in `targets` are predicted, and count in the loss unless they are `uncounted`."""
    tokens = np.random.default_rng(seed).integers(0, 40, length)
    where = np.arange(length)
    predicted = np.isin(where, list(targets))
    return Document(tokens, predicted, predicted & ~np.isin(where, list(uncounted)), np.isin(where, list(fillers)))


def drawn(
    documents: list[Document], shared: int = 0, seed: int = 0, block: int = BLOCK, noise: Noise = NOISE
) -> tuple[Streams, float]:
    return lay_out(documents, shared, block, noise, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def model() -> MaskedDiffusionTransformer:
    return small_backbone(vocab_size=END + 1, image_token_offset=CODES[0])


def logits(model: MaskedDiffusionTransformer, rows: list[list[Streams]]) -> torch.Tensor:
    """[R, L, V] of whole rows."""
    batch = collate(rows, BLOCK, END)
    with torch.no_grad():
        return model(batch["tokens"], position_ids=batch["position_ids"], attention_mask=batch["attention_mask"]).logits


def spans(group: Streams) -> list[slice]:
    """Where each stream lies within its group."""
    ends = np.cumsum([len(part) for part in group.tokens])
    return [slice(int(end) - len(part), int(end)) for end, part in zip(ends, group.tokens, strict=True)]


def test_visibility_by_hand() -> None:
    # Blocks of 2. A clean stream of two blocks (a b), and a noisy copy of the second and third block (b c).
    group = Streams()
    clean = group.add(np.arange(4), np.arange(4), (), np.zeros((4, 2)))
    group.add(np.array([9, 9, 9, 9]), np.arange(2, 6), (clean,), np.zeros((4, 2)), noisy=True)
    expected = """
        aabb bbcc
        11.. ....
        11.. ....
        1111 ....
        1111 ....
        11.. 11..
        11.. 11..
        1111 ..11
        1111 ..11
    """
    lines = [line.replace(" ", "") for line in expected.split("\n")[2:-1]]
    rows = np.array([[mark == "1" for mark in line] for line in lines if line])
    assert np.array_equal(visibility(group, 2), rows)


def test_visibility_of_branches_by_hand() -> None:
    # Blocks of 1. A shared block s; two documents branch from it, each a clean block and a noisy copy of the next.
    group = Streams()
    nowhere = np.zeros((1, 2))
    root = group.add(np.array([1]), np.array([0]), (), nowhere)
    for token in (2, 3):
        clean = group.add(np.array([token]), np.array([1]), (root,), nowhere)
        group.add(np.array([9]), np.array([2]), (root, clean), nowhere, noisy=True)
    assert visibility(group, 1).astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 1, 1],
    ]


def test_groups_of_a_row_do_not_see_each_other() -> None:
    first, second = (drawn([document(12, range(5, 12), seed=seed)])[0] for seed in (1, 2))
    mask = collate([[first, second]], BLOCK, END)["attention_mask"][0, 0]
    assert not mask[: first.length, first.length :].any() and not mask[first.length :, : first.length].any()


def test_every_target_is_supervised_once_by_its_own_token() -> None:
    one = document(24, range(9, 23), fillers=range(23, 24))
    for seed in range(20):
        group, _ = drawn([one], seed=seed)
        found: Counter[int] = Counter()
        for tokens, positions, labels, noisy in zip(
            group.tokens, group.positions, group.labels, group.noisy, strict=True
        ):
            hidden = labels != UNSUPERVISED
            assert noisy or not hidden.any()
            found.update(positions[hidden].tolist())
            assert np.array_equal(labels[hidden], one.tokens[positions[hidden]])
            assert (tokens[hidden] == MASK).all()
            visible = ~hidden & ~one.fillers[positions]
            assert np.array_equal(tokens[visible], one.tokens[positions[visible]])
            filler = tokens[one.fillers[positions]]
            assert ((filler == MASK) | ((filler >= CODES[0]) & (filler < CODES[1]))).all()
        assert found == Counter(range(9, 23))


def test_targets_that_do_not_count_are_masked_all_the_same() -> None:
    one = document(8, range(2, 8), uncounted=range(5, 8))
    masked, counted = Counter[int](), Counter[int]()
    for seed in range(20):
        group, total = drawn([one], seed=seed)
        betas = 0.0
        for tokens, labels in zip(group.tokens[1:], group.labels[1:], strict=True):
            masked.update(np.nonzero(tokens == MASK)[0].tolist())
            counted.update(np.nonzero(labels != UNSUPERVISED)[0].tolist())
            betas += 1 / np.sqrt((labels != UNSUPERVISED).sum())
        assert total == pytest.approx(betas)
    assert counted == Counter({2: 20, 3: 20, 4: 20})
    assert all(0 < masked[position] <= 20 for position in range(5, 8))


def test_streams_hold_no_more_than_is_looked_at() -> None:
    one = document(24, range(9, 14))  # in blocks 2 and 3 of 6
    group, _ = drawn([one])
    assert group.positions[0].tolist() == list(range(12))  # the clean blocks before the last predicted one
    assert all(positions.tolist() == list(range(8, 16)) for positions in group.positions[1:])
    alone, _ = drawn([document(8, range(2))])  # nothing clean to look at
    assert all(alone.noisy) and set(alone.ancestors) == {()}


def test_weights_by_hand() -> None:
    one = document(8, range(2, 8))
    group, total = drawn([one], seed=3)
    draws = np.random.default_rng(3)
    ratios = np.repeat(draws.uniform(0.2, 0.9, 2), 4)
    masked = draws.random(8) < ratios
    expected_total = 0.0
    assert group.noisy == [False, True, True]
    for labels, weights, chosen, ratio in zip(
        group.labels[1:], group.weights[1:], (masked, ~masked), (ratios, 1 - ratios), strict=True
    ):
        hidden = chosen & one.targets
        assert np.array_equal(labels != UNSUPERVISED, hidden)
        beta = 1 / np.sqrt(hidden.sum())
        assert weights == pytest.approx(beta / np.maximum(ratio, 0.2))
        expected_total += beta
    assert total == pytest.approx(expected_total)


def test_loss_by_hand() -> None:
    scores = torch.tensor([[2.0, 0.0], [0.0, 0.0]], requires_grad=True)
    loss, entropies = weighted_loss(scores, torch.tensor([0, 1]), torch.tensor([3.0, 0.5]))
    first, second = float(torch.log1p(torch.tensor(-2.0).exp())), float(torch.log(torch.tensor(2.0)))
    assert entropies.tolist() == pytest.approx([first, second])
    assert loss.item() == pytest.approx(3 * first + 0.5 * second)
    loss.backward()
    assert scores.grad is not None and not entropies.requires_grad


def test_all_masked_has_one_copy() -> None:
    group, total = drawn([document(8, range(4, 8))], noise=Noise(MASK, CODES, (1.0, 1.0)))
    assert group.noisy == [False, True]
    assert (group.tokens[1] == MASK).all() and total == 0.5
    assert group.weights[1].tolist() == [0.5] * 4


def test_collation_pads_and_lists_what_is_supervised() -> None:
    long, short = (drawn([document(length, range(3, length))])[0] for length in (16, 8))
    batch = collate([[long], [short]], BLOCK, END)
    assert batch["tokens"].shape == (2, long.length)
    assert (batch["tokens"][1, short.length :] == END).all()
    assert not batch["attention_mask"][1, :, short.length :].any()
    assert not batch["attention_mask"][1, :, :, short.length :].any()
    assert len(batch["labels"]) == 13 + 5 == int((batch["tokens"] == MASK).sum())
    assert (batch["tokens"][batch["rows"], batch["columns"]] == MASK).all()


def test_positions_have_rows_and_columns_where_a_model_wants_them() -> None:
    def locate(tokens: torch.Tensor) -> torch.Tensor:
        return torch.stack([tokens, (tokens == MASK).cumsum(dim=-1)], dim=-1)

    long, short = (document(length, range(3, length)) for length in (16, 8))
    groups = [lay_out([one], 0, BLOCK, NOISE, np.random.default_rng(0), locate)[0] for one in (long, short)]
    plain = [lay_out([one], 0, BLOCK, NOISE, np.random.default_rng(0))[0] for one in (long, short)]
    placed, alone = (collate([[group] for group in some], BLOCK, END) for some in (groups, plain))
    assert alone["position_ids"].shape == (2, groups[0].length)
    assert placed["position_ids"].shape == (2, groups[0].length, 3)
    assert torch.equal(placed["position_ids"][..., 0], alone["position_ids"])
    held = [group.length for group in groups]
    for row, length in enumerate(held):
        assert torch.equal(placed["position_ids"][row, :length, 1], placed["tokens"][row, :length])
        assert not placed["position_ids"][row, length:].any()
    # A block counts its own masks only, for the blocks before it are clean.
    masks = (placed["tokens"][0] == MASK).view(-1, BLOCK)
    assert torch.equal(placed["position_ids"][0, :, 2].view(-1, BLOCK), masks.cumsum(dim=1))


def test_packed_documents_are_as_alone(model: MaskedDiffusionTransformer) -> None:
    groups = [drawn([document(length, range(5, length), seed=length)])[0] for length in (12, 16, 8)]
    packed = logits(model, [groups[:2], groups[2:]])
    start = 0
    for row, group in ((0, groups[0]), (0, groups[1]), (1, groups[2])):
        start = 0 if row else start
        torch.testing.assert_close(
            packed[row, start : start + group.length], logits(model, [[group]])[0], atol=1e-5, rtol=1e-5
        )
        start += group.length


def test_documents_that_share_a_prefix_are_as_alone(model: MaskedDiffusionTransformer) -> None:
    prefix = document(8, range(0), seed=7).tokens
    ends = [document(8, range(2, 8), seed=seed) for seed in (1, 2, 3)]
    predicted = [np.concatenate([np.zeros(8, bool), end.targets]) for end in ends]
    documents = [
        Document(np.concatenate([prefix, end.tokens]), targets, targets, np.zeros(16, bool))
        for end, targets in zip(ends, predicted, strict=True)
    ]
    group, total = drawn(documents, shared=8, seed=5)
    together = logits(model, [[group]])[0]
    # The same noise, laid out without sharing: one generator goes from document to document.
    draws = np.random.default_rng(5)
    alone = [lay_out([one], 0, BLOCK, NOISE, draws) for one in documents]
    assert total == pytest.approx(sum(weight for _, weight in alone))
    assert group.length < sum(single.length for single, _ in alone)
    noisy = [span for span, is_noisy in zip(spans(group), group.noisy, strict=True) if is_noisy]
    for single, _ in alone:
        separate = logits(model, [[single]])[0]
        for span, is_noisy in zip(spans(single), single.noisy, strict=True):
            if is_noisy:
                here = noisy.pop(0)
                torch.testing.assert_close(together[here], separate[span], atol=1e-5, rtol=1e-5)
    assert not noisy


def test_noisy_copies_are_what_the_sampler_computes(model: MaskedDiffusionTransformer) -> None:
    one = document(20, range(6, 20), seed=4)
    group, _ = drawn([one], seed=8)
    trained = logits(model, [[group]])[0]
    compared = 0
    for span, tokens, positions, noisy in zip(spans(group), group.tokens, group.positions, group.noisy, strict=True):
        for start in range(0, len(tokens), BLOCK) if noisy else ():
            first = int(positions[start])
            canvas = Canvas.lay_out([[[0]]], [19], block_length=BLOCK, mask_id=MASK)
            canvas.tokens[0] = torch.from_numpy(one.tokens)
            canvas.tokens[0, first : first + BLOCK] = torch.from_numpy(tokens[start : start + BLOCK])
            canvas.tokens[0, first + BLOCK :] = MASK
            with torch.no_grad():
                sampled = PlainDenoiser(model).logits(canvas, first // BLOCK)[0]
            here = trained[span][start : start + BLOCK]
            torch.testing.assert_close(here, sampled, atol=1e-5, rtol=1e-5)
            compared += 1
    assert compared == 8  # four blocks with something to predict, in two copies
