"""The one vocabulary: special ids by their strings, sides of grids, and the way between codes and ids."""

from pathlib import Path
from typing import Any

import pytest
import torch

from unimodal.checkpoint import read_config
from unimodal.vocab import UnifiedVocab
from unimodal_tokenizers.text import TextTokenizer


@pytest.fixture(scope="module")
def vocab() -> UnifiedVocab:
    folder = Path(__file__).parent / "golden" / "uni_a"
    config = read_config(folder)
    return UnifiedVocab.from_tokenizer(
        TextTokenizer.from_pretrained(folder),
        vocab_size=config.vocab_size,
        image_token_offset=config.image_token_offset,
    )


def small(**changes: Any) -> UnifiedVocab:
    ids: dict[str, Any] = {"mask_id": 0, "eos_id": 1, "soi_id": 2, "eoi_id": 3, "boi_id": 4, "size_ids": {8: 5, 10: 6}}
    return UnifiedVocab(**{"vocab_size": 20, "image_token_offset": 10, "codebook_size": 8, **ids, **changes})


def test_special_ids_are_those_of_the_tokenizer(vocab: UnifiedVocab) -> None:
    assert (vocab.mask_id, vocab.eos_id) == (324, 321)
    assert (vocab.soi_id, vocab.eoi_id, vocab.boi_id) == (330, 331, 333)
    assert vocab.size_id(8) == 332 and vocab.size_of(332) == 8
    assert vocab.size_of(vocab.boi_id) is None


def test_sides_without_a_token_are_refused_with_those_there_are(vocab: UnifiedVocab) -> None:
    for side in (7, 9, 35, 256):
        with pytest.raises(ValueError, match=rf"side: got {side} .* 8 to 36 in steps of 2, 37 to 255"):
            vocab.size_id(side)


def test_codes_and_ids_both_ways() -> None:
    vocab = small()
    codes = torch.arange(8).view(2, 4)
    tokens = vocab.codes_to_tokens(codes)
    assert tokens.tolist() == [[10, 11, 12, 13], [14, 15, 16, 17]]
    assert torch.equal(vocab.tokens_to_codes(tokens), codes)
    assert vocab.codes_to_tokens(codes.to(torch.uint8)).dtype == torch.int64
    assert vocab.text_range == (0, 10) and vocab.image_range == (10, 18)
    assert vocab.is_code(torch.tensor([9, 10, 17, 18])).tolist() == [False, True, True, False]


@pytest.mark.parametrize("code", [-1, 8])
def test_codes_outside_the_codebook_are_refused(code: int) -> None:
    with pytest.raises(ValueError, match=rf"codes: got {code} to {code}, allowed is 0 to 7"):
        small().codes_to_tokens(torch.tensor([code]))


@pytest.mark.parametrize("token", [9, 18])
def test_ids_that_are_no_codes_are_refused(token: int) -> None:
    with pytest.raises(ValueError, match=r"tokens: .* allowed is 10 to 17"):
        small().tokens_to_codes(torch.tensor([12, token]))


def test_codes_are_whole_numbers() -> None:
    with pytest.raises(ValueError, match="codes"):
        small().codes_to_tokens(torch.tensor([1.0]))


@pytest.mark.parametrize(("field", "value"), [("codebook_size", 11), ("codebook_size", 0), ("mask_id", 10)])
def test_ids_that_do_not_fit_are_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field):
        small(**{field: value})
