"""Grids of codes as pictures: a colour per code, alike for codes that are alike, and hatching where nothing is decided.

Legend: K codes, H, W height and width of a grid.
"""

import numpy as np
import torch
from PIL import Image

from unimodal_apps.studio.frames import UNDECIDED

GRID_SIDE = 384
"""Pixels of the longer side of a drawn grid, about."""
_ROUNDS = 24
_HATCH, _FRESH = (128, 122, 112, 110), (255, 255, 255, 255)


def code_colors(embedding: torch.Tensor) -> np.ndarray:
    """A colour for each code, uint8 [K, 3]: its place along the three main directions of the codes' embeddings [K, D].

    Ranks are taken along each direction, so that colours are spread evenly.
    """
    points = embedding.detach().float().cpu()
    points = points - points.mean(dim=0)
    # Subspace iteration: the leading directions without decomposing a large matrix.
    source = torch.Generator().manual_seed(0)
    directions = torch.randn(points.shape[1], 3, generator=source)
    for _ in range(_ROUNDS):
        directions = torch.linalg.qr(points.T @ (points @ directions)).Q
    places = (points @ directions).argsort(dim=0).argsort(dim=0) / max(1, len(points) - 1)
    first, second, third = (places[:, column].numpy() for column in range(places.shape[1]))
    light, warm, green = 0.34 + 0.5 * first, second - 0.5, third - 0.5
    mixed = np.stack([light + 0.42 * warm, light + 0.30 * green - 0.12 * warm, light - 0.42 * warm - 0.1 * green])
    return (mixed.T * 255).round().clip(24, 244).astype(np.uint8)


def draw_codes(codes: np.ndarray, fresh: np.ndarray, colors: np.ndarray) -> Image.Image:
    """A picture of a grid, RGBA; undecided places are hatched on nothing, so it fits any background.

    Args:
        codes: int [H, W], -1 where nothing is decided.
        fresh: bool [H, W], decided just now; these get a frame.
        colors: as `code_colors` returns them.
    """
    cell = max(3, GRID_SIDE // max(codes.shape))
    known = codes != UNDECIDED
    filled = np.zeros((*codes.shape, 4), dtype=np.uint8)
    filled[known] = np.concatenate([colors, np.full((len(colors), 1), 255, np.uint8)], axis=1)[codes[known]]
    picture = filled.repeat(cell, axis=0).repeat(cell, axis=1)
    rows, columns = np.indices(picture.shape[:2])
    # 1. hatching: a diagonal line every eighth of a cell and a half
    period = max(4, cell // 4)
    stripes = (rows + columns) % period < max(1, period // 4)
    picture[stripes & ~known.repeat(cell, axis=0).repeat(cell, axis=1)] = _HATCH
    if cell >= 8:
        # 2. a thin gap between cells, and a frame inside the fresh ones
        inside_row, inside_column = rows % cell, columns % cell
        edge = np.minimum.reduce([inside_row, inside_column, cell - 1 - inside_row, cell - 1 - inside_column])
        width = max(1, cell // 16)
        new = fresh.repeat(cell, axis=0).repeat(cell, axis=1)
        picture[new & (edge >= 1) & (edge < 1 + width)] = _FRESH
        picture[edge < 1] = 0
    return Image.fromarray(picture)
