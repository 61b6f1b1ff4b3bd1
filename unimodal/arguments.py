"""Reads what users pass: texts, pictures, generators. Whatever cannot be used is a ValueError that names the
argument.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from unimodal.picture_input import Picture, read_pictures

Generators = torch.Generator | Sequence[torch.Generator] | None
Pictures = Picture | Sequence[Picture]


def read_texts(name: str, value: str | Sequence[str]) -> list[str]:
    texts = [value] if isinstance(value, str) else list(value)
    if not texts or any(not isinstance(text, str) or not text.strip() for text in texts):
        raise ValueError(f"{name}: got {value!r}, it must be a text that is not empty, or a list of such texts")
    return texts


def read_groups(images: Any, text: str | Sequence[str], texts: Sequence[str]) -> list[list[Image.Image]]:
    """The pictures of each text."""
    groups = [read_pictures(images)] if isinstance(text, str) else [read_pictures(entry) for entry in _entries(images)]
    if len(groups) != len(texts) or any(not group for group in groups):
        counts = [len(group) for group in groups]
        raise ValueError(
            f"images: got {counts} pictures for {len(texts)} texts, each text needs at least one of its own"
        )
    return groups


def _entries(images: Any) -> list[Any]:
    return list(images) if isinstance(images, Sequence) and not isinstance(images, str) else [images]


def read_negatives(
    negative: str | Sequence[str] | None, count: int, *, standard: str, guided: bool, how: str
) -> list[str]:
    """The text for each of `count` prompts that stands where the prompt is left out; `standard` if none is given.

    Args:
        guided: whether that branch of guidance has any effect.
        how: what would give it one, for the message.
    """
    if negative is None:
        return [standard] * count
    texts = read_texts("negative_prompt", negative)
    if not guided:
        raise ValueError(f"negative_prompt: got {negative!r}, it needs guidance: {how}")
    if isinstance(negative, str):
        return texts * count
    if len(texts) != count:
        raise ValueError(f"negative_prompt: got {len(texts)}, {count} prompts need as many, or a single text")
    return texts


def repeated(values: Sequence[Any], times: int) -> list[Any]:
    if isinstance(times, bool) or not isinstance(times, int) or times < 1:
        raise ValueError(f"num_images_per_prompt: got {times!r}, it must be a whole number of at least 1")
    return [value for value in values for _ in range(times)]


def read_generators(generator: Generators, count: int) -> list[torch.Generator]:
    """One generator per sample; a single one seeds as many as are needed, in order."""
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    if isinstance(generator, torch.Generator):
        if count == 1:
            return [generator]
        seeds = torch.randint(2**62, (count,), generator=generator, device=generator.device).tolist()
        return [torch.Generator(generator.device).manual_seed(seed) for seed in seeds]
    sources = list(generator)
    if len(sources) != count:
        raise ValueError(f"generator: got {len(sources)}, {count} samples need as many, or a single one")
    return sources
