"""A start for whatever embeds codes: the codebook's geometry, so that what one code teaches holds for its like."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def code_directions(codebook: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """Unit vectors [K, width] that stand to each other as the codes do: codes of alike patches point alike ways.

    The codebook's directions, centred and with their principal axes brought nearer to equal length, placed in a random
    subspace of the model's width. Codes that are in no use (zero) stay zero.
    """
    used = codebook.norm(dim=-1) > 0
    unit = F.normalize(codebook.float(), dim=-1)
    centred = (unit - unit[used].mean(dim=0)) * used[:, None]
    _, deviations, axes = torch.linalg.svd(centred[used], full_matrices=False)
    spread = centred @ axes.T / (deviations + 0.2 * deviations.max())
    basis, _ = torch.linalg.qr(torch.randn(width, spread.shape[1], generator=generator))
    return F.normalize(spread, dim=-1) @ basis.T.to(spread)
