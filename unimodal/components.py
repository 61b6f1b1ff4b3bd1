"""The folder of a whole checkpoint: what each part needs to know of the others, and writing all of it."""

import json
from pathlib import Path
from typing import Any

from unimodal.backbone import BackboneConfig
from unimodal.vocab import UnifiedVocab
from unimodal_tokenizers.text import TextTokenizer

IMAGE_TOKENIZER = "image_tokenizer"


def read_vocab(folder: str | Path, config: BackboneConfig, text_tokenizer: TextTokenizer) -> UnifiedVocab:
    """The vocabulary of a checkpoint; there are as many codes as its image tokenizer has."""
    return UnifiedVocab.from_tokenizer(
        text_tokenizer,
        vocab_size=config.vocab_size,
        image_token_offset=config.image_token_offset,
        codebook_size=_image_tokenizer_value(folder, "vq_config", "num_embeddings"),
    )


def read_patch_size(folder: str | Path) -> int:
    """Pixels per code along each side, without loading the image tokenizer.

    Raises:
        ValueError: the checkpoint has no image tokenizer.
    """
    size = _image_tokenizer_value(folder, "vision_config", "patch_size")
    if size is None:
        raise ValueError(f"the checkpoint {folder} has no {IMAGE_TOKENIZER}/config.json that states a patch_size")
    return size


def _image_tokenizer_value(folder: str | Path, section: str, name: str) -> int | None:
    path = Path(folder) / IMAGE_TOKENIZER / "config.json"
    if not path.is_file():
        return None
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return config.get(section, config).get(name)
