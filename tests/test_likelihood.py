"""Likelihoods against the chain rule, a joint distribution worked out by hand, and a slow twin."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from quick_pipeline import gradient, quiet_pipeline, seeded
from small_backbone import MASK, SIZE, small_backbone

from unimodal.backbone import MaskedDiffusionTransformer, block_causal_mask
from unimodal.diffusion.likelihood import AnswerLayout, LikelihoodEstimate, estimate_likelihood
from unimodal.diffusion.objective import UNSUPERVISED, Document, Noise, collate, lay_out, visibility
from unimodal.pipeline import Pipeline


@pytest.fixture(scope="module")
def model() -> MaskedDiffusionTransformer:
    return small_backbone()


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return quiet_pipeline()


def estimate(model, prompt, answer, samples=1, block_length=4, number=0, **settings) -> LikelihoodEstimate:
    return estimate_likelihood(
        model,
        prompt,
        answer,
        block_length=block_length,
        mask_id=MASK,
        samples=samples,
        generator=seeded(number),
        **settings,
    )


def by_hand(model, tokens: list[int], hidden: set[int], block_length: int, vocab=(0, SIZE)) -> dict[int, float]:
    """log p of each hidden token, from the last block that `tokens` reach, all before it known."""
    length = len(tokens)
    shown = [MASK if place in hidden else token for place, token in enumerate(tokens)]
    shown += [MASK] * (-length % block_length)
    with torch.no_grad():
        mask = block_causal_mask(len(shown), block_length)
        logits = model(torch.tensor([shown]), attention_mask=mask).logits[0].double()
    logits[:, MASK] = -torch.inf
    found = logits[:, slice(*vocab)].log_softmax(dim=-1)
    return {place: float(found[place, tokens[place] - vocab[0]]) for place in hidden}


def test_one_token_per_block_is_the_chain_rule(model):
    prompt, answer = [1, 2, 3], [4, 5, 6, 7]
    found = estimate(model, prompt, answer, samples=50, block_length=1)
    tokens = [*prompt, *answer]
    chain = sum(by_hand(model, tokens[: place + 1], {place}, 1)[place] for place in range(3, 7))
    assert found.log_likelihood == pytest.approx(chain, abs=1e-4)
    assert (found.standard_error, found.exact, len(found.samples)) == (0.0, True, 1)
    assert estimate(model, prompt, answer, block_length=1, number=1).log_likelihood == found.log_likelihood


def test_a_single_answer_token_is_exact_in_any_block(model):
    found = estimate(model, [1, 2, 3, 4, 5], [6], samples=9)
    assert found.log_likelihood == pytest.approx(by_hand(model, [1, 2, 3, 4, 5, 6], {5}, 4)[5], abs=1e-4)
    assert found.standard_error == 0.0


def test_samples_are_what_single_blocks_give(model):
    """Every block alone behind its known prefix, averaged over all sets and sizes: what the samples scatter around."""
    prompt, answer = [1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11]
    tokens = [*prompt, *answer]
    exact = 0.0
    for places in ([6, 7], [8, 9, 10]):
        for count in range(1, len(places) + 1):
            sets = list(itertools.combinations(places, count))
            sums = [sum(by_hand(model, tokens[: places[-1] + 1], set(chosen), 4).values()) for chosen in sets]
            exact += len(places) / count * sum(sums) / len(sets) / len(places)
    found = estimate(model, prompt, answer, samples=1500)
    assert found.standard_error > 0
    assert found.log_likelihood == pytest.approx(exact, abs=4 * found.standard_error)
    assert found.standard_error < 0.05 * abs(exact)


class Uniform:
    """Finds every token as likely as any other."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, tokens, position_ids, attention_mask, logits_for, vocab_range=None):
        self.batches.append(tokens.shape[1])
        first, last = vocab_range or (0, SIZE)
        return SimpleNamespace(logits=torch.zeros(len(logits_for[0]), last - first))


@pytest.mark.parametrize(("span", "choices"), [(None, SIZE - 1), ((0, 20), 20), ((5, 40), 34)])
def test_a_uniform_model_is_exactly_uniform(span, choices):
    found = estimate(Uniform(), [1] * 6, [7, 8, 9, 10, 11, 12, 13], samples=20, vocab_range=span)
    assert found.log_likelihood == pytest.approx(-7 * math.log(choices), rel=1e-6)
    assert found.standard_error < 1e-6
    assert not found.exact


class Joint:
    """Knows the joint distribution of two tokens: marginals where both are hidden, conditionals where one is."""

    def __init__(self, table: torch.Tensor):
        self.table = table

    def __call__(self, tokens, position_ids, attention_mask, logits_for, vocab_range=None):
        row = tokens[0].view(-1, 2)
        logits = torch.full((len(logits_for[1]), SIZE), -1e4)
        for number, column in enumerate(logits_for[1].tolist()):
            other = int(row[column // 2, 1 - column % 2])
            table = self.table if column % 2 == 0 else self.table.T
            values = table.sum(dim=1) if other == MASK else table[:, other]
            logits[number, : len(values)] = values.log()
        return SimpleNamespace(logits=logits)


def test_a_model_that_knows_the_joint_distribution_gives_its_logarithm():
    table = torch.tensor([[0.10, 0.05, 0.15], [0.20, 0.02, 0.08], [0.05, 0.25, 0.10]])
    found = estimate(Joint(table), [], [1, 2], samples=4000, block_length=2)
    assert found.log_likelihood == pytest.approx(math.log(0.08), abs=4 * found.standard_error)
    assert found.standard_error < 0.02


def test_the_standard_error_is_that_of_repeated_estimates_and_shrinks_with_the_root_of_the_samples():
    table = torch.tensor([[0.10, 0.05, 0.15], [0.20, 0.02, 0.08], [0.05, 0.25, 0.10]])
    few, many = (estimate(Joint(table), [], [1, 2, 0, 0], samples=count, block_length=2) for count in (500, 8000))
    assert few.standard_error / many.standard_error == pytest.approx(4.0, rel=0.15)
    runs = [estimate(Joint(table), [], [1, 2], samples=25, block_length=2, number=n) for n in range(200)]
    spread = torch.tensor([run.log_likelihood for run in runs]).std()
    stated = sum(run.standard_error for run in runs) / len(runs)
    assert stated == pytest.approx(float(spread), rel=0.2)
    assert math.isnan(estimate(Joint(table), [], [1, 2], block_length=2).standard_error)


def test_the_layout_is_that_of_training():
    """The masks that training draws give the same streams, who sees whom included."""
    tokens = np.arange(1, 21)
    targets = np.zeros(20, dtype=bool)
    targets[6:] = True

    def locate(row: torch.Tensor) -> torch.Tensor:
        return torch.stack([row % 7, (row == MASK).cumsum(dim=-1)], dim=-1)

    document = Document(tokens, targets, targets, np.zeros(20, dtype=bool))
    noise = Noise(mask_id=MASK, codes=(31, 40), mask_ratios=(0.3, 0.7))
    trained, _ = lay_out([document], 0, 4, noise, np.random.default_rng(0), locate)
    copies = [stream for stream, noisy in enumerate(trained.noisy) if noisy]
    assert len(copies) == 2

    layout = AnswerLayout(tokens[:6].tolist(), tokens[6:].tolist(), 4, MASK, locate)
    masked = np.stack([trained.labels[copy] != UNSUPERVISED for copy in copies])
    ours = layout.streams(masked, np.ones(masked.shape, dtype=np.float32))
    for name in ("tokens", "positions", "coordinates", "labels", "stream"):
        for left, right in zip(getattr(ours, name), getattr(trained, name), strict=True):
            assert np.array_equal(left, right), name
    assert (ours.noisy, ours.ancestors) == (trained.noisy, trained.ancestors)
    assert np.array_equal(visibility(ours, 4), visibility(trained, 4))
    assert torch.equal(collate([[ours]], 4, 0)["attention_mask"], collate([[trained]], 4, 0)["attention_mask"])


def test_every_block_is_masked_in_every_sample():
    layout = AnswerLayout([1] * 5, [2] * 9, 4, MASK, None)
    assert [places.tolist() for places in layout.blocks] == [[1, 2, 3], [4, 5, 6, 7], [8, 9]]
    masked, weights = layout.draw(400, seeded())
    assert not masked[:, [0, 10, 11]].any()
    for places in layout.blocks:
        counts = masked[:, places].sum(axis=1)
        assert counts.min() == 1
        assert counts.max() == len(places)
        shares = np.bincount(counts, minlength=len(places) + 1)[1:] / 400
        assert abs(shares - 1 / len(places)).max() < 0.1
        assert np.allclose(weights[:, places] * counts[:, None], len(places))


def test_many_samples_are_split_over_forwards_and_change_nothing(model, monkeypatch):
    whole = estimate(model, [1, 2, 3], [4, 5, 6, 7, 8], samples=7)
    monkeypatch.setattr("unimodal.diffusion.likelihood.COLUMNS", 17)
    split = estimate(model, [1, 2, 3], [4, 5, 6, 7, 8], samples=7)
    assert (whole.forwards, split.forwards) == (1, 4)
    torch.testing.assert_close(split.samples, whole.samples, rtol=0, atol=1e-4)


@pytest.mark.parametrize("answer", [[], [MASK], [3, 19]])
def test_answers_that_cannot_be_said_are_refused(answer):
    with pytest.raises(ValueError, match="answer: got"):
        estimate(Uniform(), [1], answer, vocab_range=(0, 18) if 19 in answer else None)
    with pytest.raises(ValueError, match="samples: got 0"):
        estimate(Uniform(), [1], [2], samples=0)


def test_texts_and_pictures_of_a_checkpoint(pipe):
    picture = gradient()
    text = pipe.likelihood("what is it?", answer="a cat", images=picture, samples=4, generator=seeded())
    assert text.tokens == len(pipe.text_tokenizer.encode("a cat")) + 1
    assert text.log_likelihood < 0 < text.standard_error
    assert text.perplexity == pytest.approx(math.exp(-text.log_likelihood / text.tokens))
    assert text.bits_per_token == pytest.approx(math.log2(text.perplexity))
    assert text.samples == 4 and text.stats.forwards >= 1
    again = pipe.likelihood("what is it?", answer="a cat", images=picture, samples=4, generator=seeded())
    assert again.log_likelihood == text.log_likelihood
    assert pipe.likelihood(answer="a cat", samples=2).tokens == text.tokens

    codes = torch.arange(64).view(8, 8)
    drawn = pipe.likelihood("a cat", image=codes, samples=2, generator=seeded())
    assert drawn.tokens == 64
    assert drawn.log_likelihood != pipe.likelihood(image=codes, samples=2, generator=seeded()).log_likelihood
    edited = pipe.likelihood("make it red", image=picture, images=picture, samples=1)
    assert edited.log_likelihood < 0


def test_a_picture_is_judged_among_codes_as_it_is_drawn(pipe):
    """With one code per block the bound is the chain rule over the codes alone."""
    codes = torch.tensor([[1] * 8] * 8)
    found = pipe.likelihood("a cat", image=codes, samples=1, block_length=1)
    vocab = pipe.vocab
    tokens = [*pipe.sequences.generation("a cat", 8, 8).prompt, *vocab.codes_to_tokens(codes).flatten().tolist()]
    start = len(tokens) - 64
    with torch.no_grad():
        total = 0.0
        for place in range(start, len(tokens)):
            row = torch.tensor([[*tokens[:place], vocab.mask_id]])
            logits = pipe.backbone(row, attention_mask=block_causal_mask(place + 1, 1), logits_for=slice(place, None))
            span = logits.logits[0, 0, slice(*vocab.image_range)].double().log_softmax(dim=-1)
            total += float(span[tokens[place] - vocab.image_range[0]])
    assert found.log_likelihood == pytest.approx(total, abs=1e-2)
    assert found.standard_error == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "answer: got a text and a picture, or neither"),
        ({"answer": "a", "image": Image.new("RGB", (64, 64))}, "answer: got a text and a picture"),
        ({"answer": "a", "samples": 0}, "samples: got 0"),
        ({"answer": 3}, "answer: got 3"),
        ({"answer": "a <|mask|>"}, "answer: .*holds the mask token"),
        ({"answer": "a", "prompt": " "}, "prompt: got ' '"),
        ({"answer": "a", "images": Image.new("RGB", (64, 64))}, "images: got pictures without a prompt"),
        ({"answer": "a", "block_length": 0}, "block_length: got 0"),
        ({"answer": "long " * 5000}, "prompt, answer: the prompt has 0 tokens"),
        ({"image": torch.zeros(3, dtype=torch.long)}, r"image: got codes of shape \(3,\)"),
    ],
)
def test_bad_input_is_named(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe.likelihood(**arguments)
