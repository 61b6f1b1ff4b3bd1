"""Uniform random numbers for the positions of a block, each sample's from its own generator.

A sample takes as many numbers per draw as it has positions of its own, so that it gets the same ones whatever it is
batched with.

Legend: N samples, B positions of a block.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Draw = Callable[[], Tensor]


def uniform(
    generators: Sequence[torch.Generator | None],
    width: int,
    device: torch.device | str,
    own: Sequence[tuple[int, int]] | None = None,
) -> Tensor:
    """Numbers in [0, 1), float32 [N, B].

    Args:
        generators: one per sample; None for a sample whose numbers no one reads, they are 0.
        width: B.
        own: the positions of each sample, first and one past the last; the others get 0. None is all of them.
    """
    device = torch.device(device)
    rows = [torch.zeros(width) for _ in generators]
    for place, source in enumerate(generators):
        if source is not None:
            start, stop = own[place] if own else (0, width)
            rows[place][start:stop] = torch.rand(stop - start, generator=source, device=source.device)
    numbers = torch.stack(rows)
    if device.type == "cuda":
        # Pinned, the copy waits for nothing that the device still has to do.
        return numbers.pin_memory().to(device, non_blocking=True)
    return numbers.to(device)


def unseeded() -> torch.Generator:
    """A generator that repeats nothing."""
    generator = torch.Generator()
    generator.seed()
    return generator
