"""Pixels that do not depend on whom a picture was drawn with.

Sums over a batch are added in another order than those of a single picture, which moves a few pixels by one of 255.
Codes are the same either way. So the codes of several requests are found together, and the pixels of each request
by themselves; that costs nothing where a picture fills the device, and less memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from unimodal import Pipeline


class Unwanted(Exception):
    """Nobody waits for what a call makes."""


class RequestDecoder:
    """A `PixelDecoder` that decodes the pictures of each request by themselves."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._request: dict[int, int] = {}
        self._wanted: Callable[[int], bool] = lambda place: True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def tell_apart(self, sources: Sequence[Sequence[torch.Generator]], wanted: Callable[[int], bool]) -> None:
        """Says which generators, and so which pictures, belong to each request of the next call, and whether a
        request is still wanted.
        """
        self._request = {id(source): place for place, group in enumerate(sources) for source in group}
        self._wanted = wanted

    def decode(self, codes: Tensor, *, generator: Sequence[torch.Generator], **options: Any) -> Tensor:
        """As `PixelDecoder.decode`, codes [B, H, W] to pixels [B, 3, Y, X]; of no use where nobody wants them."""
        pixels: list[Tensor | int] = []
        for request, group in groupby(range(len(generator)), lambda place: self._request[id(generator[place])]):
            places = list(group)
            if self._wanted(request):
                sources = [generator[place] for place in places]
                pixels.append(self._decoder.decode(codes[places], generator=sources, **options))
            else:
                pixels.append(len(places))
        drawn = [part for part in pixels if isinstance(part, Tensor)]
        if not drawn:
            raise Unwanted
        return torch.cat(
            [part if isinstance(part, Tensor) else drawn[0].new_zeros(part, *drawn[0].shape[1:]) for part in pixels]
        )


def independent(pipe: Pipeline) -> tuple[Pipeline, RequestDecoder]:
    """A pipeline with the same parts, all loaded, and the decoder that it draws with."""
    _ = pipe.image_tokenizer
    pipe.decoder.transformer(pipe.settings.decoder.decoder)
    served, decoder = copy.copy(pipe), RequestDecoder(pipe.decoder)
    served.decoder = decoder  # type: ignore[assignment]
    return served, decoder
