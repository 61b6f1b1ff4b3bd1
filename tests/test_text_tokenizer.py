"""The text tokenizer on a small byte-level vocabulary."""

from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from unimodal_tokenizers.text import TextTokenizer


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(["a red ball , a red box"] * 5, trainer)
    bpe.add_special_tokens([AddedToken("<|mask|>", special=True, normalized=False)])
    return TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=bpe))


@pytest.mark.parametrize("text", ["", "a red ball , .", "  spaces \n\t twice  ", "Grüße, 世界 🎈"])
def test_text_returns_character_for_character(tokenizer: TextTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_nothing_is_added_and_special_strings_become_one_id(tokenizer: TextTokenizer) -> None:
    mask = tokenizer.id_of("<|mask|>")
    assert tokenizer.encode("<|mask|>") == [mask] and mask == len(tokenizer) - 1
    ids = tokenizer.encode("a<|mask|>red")
    assert tokenizer.decode(ids) == "ared"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "a<|mask|>red"


def test_strings_of_several_ids_have_no_id(tokenizer: TextTokenizer) -> None:
    with pytest.raises(ValueError, match="uncondition"):
        tokenizer.id_of("<|uncondition|>")


def test_saved_files_load(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "new")
    again = TextTokenizer.from_pretrained(tmp_path / "new")
    text = "a red<|mask|> box"
    assert again.encode(text) == tokenizer.encode(text) and len(again) == len(tokenizer)
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        TextTokenizer.from_pretrained(tmp_path)
