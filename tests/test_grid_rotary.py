"""Rows and columns of picture codes in the rotary embedding: by hand, equal on every path, absent as published."""

import numpy as np
import pytest
import torch
from quick_pipeline import GOLDEN, quick_sequences
from small_backbone import small_backbone

from unimodal.backbone import BackboneConfig, MaskedDiffusionTransformer
from unimodal.backbone.rotary import rotary_table
from unimodal.checkpoint import read_config
from unimodal.diffusion.canvas import Canvas
from unimodal.diffusion.denoiser import PlainDenoiser
from unimodal.diffusion.guidance import prompt_guidance
from unimodal.diffusion.objective import Document, Noise, collate, lay_out
from unimodal.diffusion.sampler import SamplingOptions, SamplingTask, sample
from unimodal.sequence import SequenceBuilder

BLOCK = 16


@pytest.fixture(scope="module")
def build() -> SequenceBuilder:
    return quick_sequences()


@pytest.fixture(scope="module")
def model(build: SequenceBuilder) -> MaskedDiffusionTransformer:
    return small_backbone(
        vocab_size=build.vocab.vocab_size,
        image_token_offset=build.vocab.image_token_offset,
        head_dim=16,
        partial_rotary_factor=1.0,
        grid_rotary_dim=4,
    )


def test_coordinates_by_hand(build):
    codes = torch.zeros(2, 4, dtype=torch.long)
    picture = [*build.header(8, 10)[:1], build.vocab.size_id(8), build.vocab.size_id(8), build.vocab.boi_id]
    tokens = torch.tensor([5, *picture, *([build.vocab.mask_id] * 9), *build.vocab.codes_to_tokens(codes)[0].tolist()])
    found = build.coordinates(tokens)
    assert found[:5].tolist() == [[0, 0]] * 5  # text and header
    assert found[5:13].tolist() == [[1, column] for column in range(1, 9)]  # masks of an announced grid count too
    assert found[13:].tolist() == [[2, column] for column in range(1, 6)]
    assert build.coordinates(torch.stack([tokens, tokens.flip(0)]))[0].equal(found)


def test_a_grid_ends_and_another_begins(build):
    vocab = build.vocab
    picture = build.picture(torch.zeros(8, 8, dtype=torch.long))
    found = build.coordinates(torch.tensor([*picture, 5, *picture, *picture]))
    assert found[67].tolist() == [8, 8] and found[68:74].tolist() == [[0, 0]] * 6
    assert found[74].tolist() == [1, 1] and found[-2].tolist() == [8, 8] and found[-1].tolist() == [0, 0]
    for lost in (1, 2, 3):  # a header that is not whole announces nothing
        assert not build.coordinates(torch.tensor([*picture[:lost], vocab.mask_id, *picture[lost + 1 :]])).any()


def test_pairs_of_dimensions_turn_with_their_own_axis():
    places = torch.tensor([[[7, 0, 0], [7, 1, 0], [7, 0, 3]]])
    cosine, sine = rotary_table(places, 12, 12, 100.0, torch.float32, grid_dim=4, grid_periods=(4.0, 16.0))
    angles = torch.atan2(sine, cosine)[0, :, 0, 6:]  # two pairs each of position, row and column
    torch.testing.assert_close(angles[0], torch.tensor([7 - 2 * torch.pi, 0.7, 0, 0, 0, 0]))
    quarter, sixteenth = torch.pi / 2, torch.pi / 8
    torch.testing.assert_close(angles[1, 2:], torch.tensor([quarter, sixteenth, 0, 0]))
    torch.testing.assert_close(angles[2, 2:], torch.tensor([0, 0, 3 * quarter - 2 * torch.pi, 3 * sixteenth]))


def test_text_is_as_without_a_grid(model):
    tokens = torch.randint(10, (1, 12), generator=torch.Generator().manual_seed(0))
    places = torch.arange(12)[None, :, None] * torch.tensor([1, 0, 0])
    torch.testing.assert_close(model(tokens).logits, model(tokens, position_ids=places).logits)
    with pytest.raises(ValueError, match="position_ids"):
        model(tokens, position_ids=torch.arange(12)[None])


def test_codes_know_their_places(model, build):
    prompt = build.generation("a cat", 8, 8).prompt
    tokens = torch.tensor([[*prompt, *([build.vocab.mask_id] * 64)]])
    positions = torch.arange(tokens.shape[1])[None, :, None]
    with_grid = model(tokens, position_ids=torch.cat([positions, build.coordinates(tokens)], dim=-1)).logits
    without = model(
        tokens, position_ids=torch.cat([positions, torch.zeros(1, len(tokens[0]), 2, dtype=torch.long)], -1)
    ).logits
    assert (with_grid - without).abs().amax() > 1e-3


def test_cached_and_plain_sampling_agree_in_batches_of_ragged_prompts(model, build):
    branches = [build.generation(text, 8, 8) for text in ("a cat", "a much longer sentence about a dog and a tree")]
    tasks = [SamplingTask(prompt=b.prompt, length=64, others=b.others) for b in branches]
    options = SamplingOptions(num_inference_steps=4, block_length=BLOCK, threshold=1.0)

    def run(tasks: list[SamplingTask], use_cache: bool) -> list[list[int]]:
        result = sample(
            model,
            tasks,
            options,
            mask_id=build.vocab.mask_id,
            vocab_range=build.vocab.image_range,
            guidance=prompt_guidance(3.0, 0.7),
            use_cache=use_cache,
            locate=build.coordinates,
        )
        return [tokens.tolist() for tokens in result.tokens]

    together = run(tasks, True)
    assert together == run(tasks, False)
    assert together == [run([task], True)[0] for task in tasks]


@pytest.mark.parametrize("hides_header", [False, True])
def test_training_sees_the_coordinates_that_the_sampler_sees(model, build, hides_header):
    grid = torch.arange(64).reshape(8, 8) % build.vocab.codebook_size
    prompt = build.thinking("a cat")
    answer = [*build.thoughts("a cat in the middle"), *build.picture(grid)[:-1]]
    tokens = np.array([*prompt, *answer])
    tokens = np.concatenate([tokens, np.full(-len(tokens) % BLOCK, build.vocab.eos_id)])
    targets = np.arange(len(tokens)) >= (len(prompt) if hides_header else len(prompt) + len(answer) - 64)
    noise = Noise(build.vocab.mask_id, build.vocab.image_range, (1.0, 1.0) if hides_header else (0.3, 0.6))
    document = Document(tokens, targets, targets, np.zeros(len(tokens), dtype=bool))

    group, _ = lay_out([document], 0, BLOCK, noise, np.random.default_rng(0), build.coordinates)
    batch = collate([[group]], BLOCK, build.vocab.eos_id)
    assert batch["position_ids"].shape == (1, group.length, 3)
    trained = model(batch["tokens"], position_ids=batch["position_ids"], attention_mask=batch["attention_mask"]).logits[
        0
    ]
    start = 0
    for noisy, own, positions in zip(group.noisy, group.tokens, group.positions, strict=True):
        for first in range(0, len(own), BLOCK) if noisy else ():
            block = int(positions[first]) // BLOCK
            row = [*tokens[: block * BLOCK].tolist(), *own[first : first + BLOCK].tolist()]
            canvas = Canvas.lay_out(
                [[row]], [BLOCK], block_length=BLOCK, mask_id=build.vocab.mask_id, locate=build.coordinates
            )
            sampled = PlainDenoiser(model).logits(canvas, block)[0]
            here = slice(start + first, start + first + BLOCK)
            torch.testing.assert_close(trained[here], sampled, atol=1e-4, rtol=1e-4)
        start += len(own)


def test_published_files_do_not_state_it(model):
    assert model.config.to_published()["grid_rotary_dim"] == 4
    assert "grid_rotary_dim" not in read_config(GOLDEN).to_published()
    with pytest.raises(ValueError, match="grid_rotary_dim"):
        BackboneConfig(**{**model.config.to_dict(), "grid_rotary_dim": 8}).check()
    with pytest.raises(ValueError, match="grid_rotary_periods"):
        BackboneConfig(**{**model.config.to_dict(), "grid_rotary_periods": (8.0, 4.0)}).check()
