"""The text tokenizer (`tokenizer.json`): a byte-level BPE over the world's words, with the published special tokens.

Ids follow the published order: BPE entries, special tokens, unused slots up to the image offset, then one `<IMAGEk>`
per picture code.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import unimodal_configs
from unimodal.sequence import system_texts
from unimodal.settings import Settings
from unimodal.training.recipe import Strict
from unimodal.world.scene import Scene, load_level
from unimodal.world.tasks import TASKS, sample_example
from unimodal_tokenizers.text import TextTokenizer


class TextTokenizerRecipe(Strict):
    """`grid_sides` are the picture sides, in codes, that get a token; `special_tokens` the other special strings;
    `sampling` the preset that the checkpoint states as its own defaults."""

    stage: str
    model: str
    level: str
    seed: int
    examples: int = Field(gt=0)
    bpe_size: int = Field(gt=256)
    grid_sides: tuple[int, ...]
    special_tokens: tuple[str, ...]
    eos_token: str
    mask_token: str
    sampling: str


def train_text_tokenizer(recipe: TextTokenizerRecipe, checkpoint: Path) -> PreTrainedTokenizerFast:
    """Trains and writes the tokenizer into the checkpoint folder.

    Raises:
        ValueError: more entries than the model's text range has room for.
    """
    sizes = unimodal_configs.read_model(recipe.model)
    offset = sizes["backbone"]["image_token_offset"]
    codes = sizes["image_tokenizer"]["vq_config"]["num_embeddings"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=recipe.bpe_size, initial_alphabet=alphabet, show_progress=False)  # type: ignore[call-arg]
    tokenizer.train_from_iterator(_texts(recipe), trainer)
    sides = tuple(f"<|reserved_token_{side}|>" for side in recipe.grid_sides)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (*recipe.special_tokens, *sides)])
    unused = offset - tokenizer.get_vocab_size()
    if unused < 0:
        raise ValueError(
            f"bpe_size: {recipe.bpe_size} leaves {-unused} entries too many below the image offset {offset}"
        )
    tokenizer.add_tokens([f"<dummy_unused_{slot}>" for slot in range(unused)])
    tokenizer.add_tokens([f"<IMAGE{code}>" for code in range(codes)])
    library = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=recipe.eos_token,
        pad_token=recipe.eos_token,
        mask_token=recipe.mask_token,
        clean_up_tokenization_spaces=False,
    )
    TextTokenizer(library).save_pretrained(checkpoint)
    Settings.preset(recipe.sampling).save(checkpoint)
    return library


def _texts(recipe: TextTokenizerRecipe) -> Iterator[str]:
    """Texts of every task, prompts and answers alike, in the proportions of nothing in particular."""
    level, source = load_level(recipe.level), random.Random(recipe.seed)
    yield from system_texts()
    yield "<uncondition>"
    for _ in range(recipe.examples):
        for task in TASKS:
            yield from _strings(sample_example(task, level, source, "train"))


def _strings(value: object) -> Iterator[str]:
    """Every string of an example, scenes left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _strings(part)
    elif not isinstance(value, Scene) and hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:  # type: ignore[attr-defined]
            if name != "kind":
                yield from _strings(getattr(value, name))
