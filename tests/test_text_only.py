"""Folders of text-only models, in the layout of LLaDA2.0 and LLaDA2.1: what works, and what says that it cannot."""

import json
import shutil
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from quick_pipeline import quiet_pipeline, seeded
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import unimodal
from unimodal.checkpoint import read_config
from unimodal.pipeline import Pipeline
from unimodal.vocab import ABSENT, UnifiedVocab
from unimodal.writer import Writer
from unimodal_tokenizers.text import TextTokenizer

GOLDEN = Path(__file__).parent / "golden" / "text_a"
QUICK: dict[str, Any] = {"num_inference_steps": 4, "block_length": 16}
TEMPLATE = (
    "<role>SYSTEM</role>{% if messages[0].role == 'system' %}{{ messages[0].content }}\n{% endif %}"
    "detailed thinking off<|role_end|>"
    "{% for message in messages %}{% if message.role != 'system' %}"
    "<role>{{ 'HUMAN' if message.role == 'user' else 'ASSISTANT' }}</role>{{ message.content }}<|role_end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<role>ASSISTANT</role>{% endif %}"
)


def write_tokenizer(folder: Path, **special: int) -> None:
    """Bytes, a space joined with each letter, and special tokens: `tokenizer.json` and its companions."""
    merges = [("Ġ", letter) for letter in string.ascii_lowercase]
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    vocab = {piece: place for place, piece in enumerate(pieces)} | special
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    library = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    library.chat_template = TEMPLATE
    library.save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference backbone with a tokenizer whose special ids are those that its configuration states."""
    folder = tmp_path_factory.mktemp("text_only")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / name, folder / name)
    config = read_config(folder)
    assert config.mask_token_id is not None
    assert config.eos_token_id is not None
    special = {"<|endoftext|>": config.eos_token_id, "<|mask|>": config.mask_token_id}
    write_tokenizer(folder, **special, **{"<|role_end|>": config.mask_token_id + 1})
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": config.eos_token_id}))
    return folder


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Pipeline:
    return quiet_pipeline(folder)


def test_the_vocabulary_is_text_alone(pipe):
    config = pipe.backbone.config
    vocab = pipe.vocab
    assert vocab.is_text_only
    assert vocab.text_range == (0, config.vocab_size)
    assert vocab.image_range == (config.vocab_size, config.vocab_size)
    assert (vocab.mask_id, vocab.eos_id) == (config.mask_token_id, config.eos_token_id)
    assert (vocab.soi_id, vocab.eoi_id, vocab.boi_id, vocab.size_ids) == (ABSENT, ABSENT, ABSENT, {})
    assert not vocab.is_code(torch.arange(config.vocab_size)).any()


def test_ids_come_from_the_strings_and_else_from_the_configuration(pipe, tmp_path):
    write_tokenizer(tmp_path, **{"<|endoftext|>": 300})
    tokenizer = TextTokenizer.from_pretrained(tmp_path)
    vocab = UnifiedVocab.text_only(tokenizer, vocab_size=640, mask_id=310, eos_id=320)
    assert (vocab.mask_id, vocab.eos_id) == (310, 300)
    with pytest.raises(ValueError, match=r"token: '<\|mask\|>' is not a single token"):
        UnifiedVocab.text_only(tokenizer, vocab_size=640)
    with pytest.raises(ValueError, match="mask_id: got 640"):
        UnifiedVocab.text_only(tokenizer, vocab_size=640, mask_id=640)


def test_gaps_are_filled(pipe):
    result = pipe.infill("one <gap:3> and <gap>.", gap_length=4, **QUICK)
    assert result.text == f"one {result.gaps[0]} and {result.gaps[1]}."
    answer = pipe.infill(unimodal.exactly_words(2), prompt="who?", **QUICK)
    assert len(answer.text.split()) == 2


@pytest.mark.parametrize(
    ("job", "arguments"),
    [
        ("understand", (Image.new("RGB", (64, 64)), "what is it?")),
        ("generate", ("a cat",)),
        ("edit", (Image.new("RGB", (64, 64)), "make it red")),
        ("interleave", ("a story",)),
    ],
)
def test_jobs_with_pictures_say_what_the_folder_lacks(pipe, folder, job, arguments):
    message = f"(image_tokenizer|vae): the pipeline of {folder}, a text-only checkpoint, has none, .* the folder lacks "
    with pytest.raises(ValueError, match=f"^{message}image_tokenizer/, decoder/, vae/$"):
        getattr(pipe, job)(*arguments)


def test_a_gap_about_a_picture_says_what_the_folder_lacks(pipe):
    with pytest.raises(ValueError, match=r"image_tokenizer: .* a text-only checkpoint"):
        pipe.infill("it is <gap>", prompt="what is it?", images=Image.new("RGB", (64, 64)))


def test_what_is_saved_loads_and_fills_the_same(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    assert not [entry.name for entry in tmp_path.iterdir() if entry.is_dir()]
    loaded = quiet_pipeline(tmp_path)
    assert loaded.vocab == pipe.vocab
    assert loaded.infill("one <gap:3>", **QUICK).text == pipe.infill("one <gap:3>", **QUICK).text


def test_texts_are_judged(pipe):
    asked = pipe.likelihood("who?", answer="me", samples=4, generator=seeded(0))
    assert asked.tokens == 3
    assert asked.log_likelihood < 0
    with pytest.raises(ValueError, match=r"image_tokenizer: .* a text-only checkpoint"):
        pipe.likelihood("who?", image=Image.new("RGB", (64, 64)))


def test_a_question_is_put_as_the_template_of_the_tokenizer_says(pipe, monkeypatch):
    prompts = []
    fill = Writer.fill

    def watched(own, tasks, *arguments, **named):
        prompts.append(list(tasks[0].prompt))
        return fill(own, tasks, *arguments, **named)

    monkeypatch.setattr(Writer, "fill", watched)
    pipe.infill("<gap:2>", prompt="who?", **QUICK)
    text = pipe.text_tokenizer.decode(prompts[0], skip_special_tokens=False)
    assert text == (
        "<role>SYSTEM</role>detailed thinking off<|role_end|><role>HUMAN</role>who?<|role_end|><role>ASSISTANT</role>"
    )


def test_chat_answers(pipe):
    messages = [{"role": "user", "content": "who?"}]
    answer = pipe.chat(messages, gen_length=8, **QUICK)
    assert isinstance(answer.text, str)
    with pytest.raises(ValueError, match=r"(image_tokenizer|vae): .* a text-only checkpoint"):
        pipe.chat(messages, modalities=("text", "image"))
