"""Pixels that do not depend on whom a picture was drawn with.

Sums over a batch are added in another order than those of a single picture, which moves a few pixels by one of 255.
Codes are the same either way. So the codes of several requests are found together, and the pixels of each request
by themselves; that costs nothing where a picture fills the device, and less memory.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from unimodal import Pipeline


class RequestDecoder:
    """A `PixelDecoder` that decodes the pictures of each request by themselves."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._request: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def tell_apart(self, sources: Sequence[Sequence[torch.Generator]]) -> None:
        """Says which generators, and so which pictures, belong to each request of the next call."""
        self._request = {id(source): place for place, group in enumerate(sources) for source in group}

    def decode(self, codes: Tensor, *, generator: Sequence[torch.Generator], **options: Any) -> Tensor:
        """As `PixelDecoder.decode`, codes [B, H, W] to pixels [B, 3, Y, X]."""
        places = range(len(generator))
        groups = [list(group) for _, group in groupby(places, lambda place: self._request.get(id(generator[place])))]
        return torch.cat(
            [
                self._decoder.decode(codes[group], generator=[generator[place] for place in group], **options)
                for group in groups
            ]
        )


def independent(pipe: Pipeline) -> tuple[Pipeline, RequestDecoder]:
    """A pipeline with the same parts, all loaded, and the decoder that it draws with."""
    _ = pipe.image_tokenizer
    pipe.decoder.transformer(pipe.settings.decoder.decoder)
    served, decoder = copy.copy(pipe), RequestDecoder(pipe.decoder)
    served.decoder = decoder  # type: ignore[assignment]
    return served, decoder
