"""Crops that the pixel decoder is trained on: codes, latents and loss weights of the same place."""

from random import Random

import pytest
import torch

from unimodal.training.stages.decoder import crop

CODES = torch.arange(64).reshape(8, 8)
# Channel 0 of a latent names the code that it belongs to; four latents a side for each code.
LATENTS = CODES.repeat_interleave(4, 0).repeat_interleave(4, 1)[None].float()


def test_the_parts_belong_together():
    importance = torch.ones(32, 32)
    seen = set()
    for seed in range(200):
        codes, latents, weights = crop(CODES, LATENTS, importance, 3, Random(seed))
        assert codes.shape == (3, 3) and weights.shape == (12, 12)
        assert latents[0].equal(codes.repeat_interleave(4, 0).repeat_interleave(4, 1).float())
        seen.add(int(codes[0, 0]))
    assert seen == {row * 8 + column for row in range(6) for column in range(6)}


def test_most_hold_a_thing():
    importance = torch.full((32, 32), 0.5)
    importance[30, 2] = 5.0  # in the last row of codes, the first column
    crops = [crop(CODES, LATENTS, importance, 2, Random(seed)) for seed in range(500)]
    holding = sum(bool((codes == 56).any()) for codes, _, _ in crops)
    by_chance = 0.2 / 49
    assert holding / 500 == pytest.approx(0.8 + by_chance, abs=0.05)
    assert all(bool((codes == 56).any()) == bool((weights == 5).any()) for codes, _, weights in crops)


def test_a_crop_larger_than_the_picture_is_refused():
    with pytest.raises(ValueError, match="crop_size: got 9"):
        crop(CODES, LATENTS, torch.ones(32, 32), 9, Random(0))
