"""A picture that comes again is not encoded again, unless something about it or its tokenizer is different."""

import pytest
import torch
from PIL import Image
from torch import nn

from unimodal.model_identity import ModelIdentities
from unimodal.picture_cache import PictureCache


class Encoder:
    """Counts what it encodes."""

    def __init__(self):
        self.pictures = 0

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        self.pictures += 1
        return torch.full((picture.height, picture.width), self.pictures)


def colored(color: int, size: tuple[int, int] = (4, 2)) -> Image.Image:
    return Image.new("RGB", size, (color, 0, 0))


def test_the_same_pixels_are_encoded_once():
    cache, tokenizer, encode = PictureCache(), nn.Linear(2, 2), Encoder()
    first = cache.codes(colored(1), tokenizer, encode)
    first.fill_(-1)  # belongs to the caller
    assert cache.codes(colored(1), tokenizer, encode).tolist() == [[1] * 4] * 2
    again = cache.codes(colored(1), tokenizer, encode)
    again.fill_(-1)
    assert cache.codes(colored(1), tokenizer, encode).tolist() == [[1] * 4] * 2
    assert encode.pictures == 1


def test_other_pixels_sizes_tokenizers_and_weights_are_encoded():
    cache, tokenizer, encode = PictureCache(), nn.Linear(2, 2), Encoder()
    pictures = [colored(1), colored(2), colored(1, (2, 4)), colored(1).convert("RGBA")]
    for picture in pictures:
        cache.codes(picture, tokenizer, encode)
    assert encode.pictures == 4
    cache.codes(colored(1), nn.Linear(2, 2), encode)
    with torch.no_grad():
        tokenizer.weight.mul_(2)
    cache.codes(colored(1), tokenizer, encode)
    assert encode.pictures == 6


def test_the_picture_that_was_not_used_for_longest_goes_first():
    cache, tokenizer, encode = PictureCache(max_pictures=2), nn.Linear(2, 2), Encoder()
    for color in (1, 2, 1, 3, 1, 2):
        cache.codes(colored(color), tokenizer, encode)
    assert encode.pictures == 4 and len(cache) == 2
    cache.clear()
    assert len(cache) == 0
    with pytest.raises(ValueError, match="max_pictures: got -1"):
        PictureCache(-1)


def test_models_are_told_apart_and_not_kept_alive():
    identities, one = ModelIdentities(), nn.Linear(2, 2)
    other = nn.Linear(2, 2)
    assert identities.of(one) == identities.of(one) != identities.of(other)
    before = identities.of(one)
    one.to(torch.float64)
    assert identities.of(one) != before
    del one
    assert len(identities._numbers) == 1
