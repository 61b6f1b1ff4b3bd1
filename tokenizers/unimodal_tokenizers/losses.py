"""What trains a semantic tokenizer: straight-through cosine quantisation, a moving codebook and dense prediction.

Codes must say *what* is where, so the supervision is semantic (a sigmoid contrastive loss with captions, arXiv
2303.15343, and per-patch labels), with a light pixel term that keeps outlines. The codebook is not trained by
gradients: it follows the unit vectors assigned to each code (exponential moving k-means, arXiv 1711.00937, A.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Quantized:
    """What `quantize` gives.

    Args:
        straight: [B, H, W, D], the nearest code, whose gradients go to `unit`.
        codes: int [B, H, W].
        unit: the normalised vectors [B, H, W, D].
        commitment: mean squared distance of `unit` to the nearest code, per picture [B].
    """

    straight: Tensor
    codes: Tensor
    unit: Tensor
    commitment: Tensor


def quantize(vectors: Tensor, codebook: Tensor) -> Quantized:
    """Nearest code by cosine, with straight-through gradients.

    Args:
        vectors: [B, H, W, D], any length.
        codebook: [K, D], any length.
    """
    unit = F.normalize(vectors.float(), dim=-1)
    codes_unit = F.normalize(codebook.float(), dim=-1)
    codes = (unit.detach() @ codes_unit.T).argmax(dim=-1)
    nearest = codes_unit[codes]
    return Quantized(
        straight=unit + (nearest - unit).detach(),
        codes=codes,
        unit=unit,
        commitment=(unit - nearest.detach()).square().mean(dim=(1, 2, 3)),
    )


class MovingCodebook(nn.Module):
    """Cluster sizes and vector sums of a codebook that follows its assignments.

    Args:
        codebook: the parameter [K, D] that is updated in place.
        decay: share of the old statistics kept per update.
        revive_below: codes whose moving size falls below this share of the mean size are dead and get new places.
    """

    sizes: Tensor
    sums: Tensor

    def __init__(self, codebook: nn.Parameter, decay: float, revive_below: float):
        super().__init__()
        self.decay, self.revive_below = decay, revive_below
        self.register_buffer("sizes", torch.ones(len(codebook)))
        self.register_buffer("sums", F.normalize(codebook.detach().float(), dim=-1).clone())

    @torch.no_grad()
    def update(self, codebook: Tensor, counts: Tensor, sums: Tensor) -> None:
        """Moves the statistics by counts [K] and vector sums [K, D] of one batch, then the codebook to their means."""
        self.sizes.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        codebook.copy_(F.normalize(self.sums, dim=-1))

    @torch.no_grad()
    def revive(self, codebook: Tensor, vectors: Tensor, errors: Tensor, generator: torch.Generator) -> int:
        """Puts dead codes on vectors [N, D] drawn with probability proportional to `errors` [N]; returns how many."""
        dead = torch.nonzero(self.sizes < self.revive_below * self.sizes.mean()).flatten()[: len(vectors) // 4]
        if not len(dead):
            return 0
        chosen = torch.multinomial(errors.cpu().float() + 1e-6, len(dead), replacement=False, generator=generator)
        places = vectors[chosen.to(vectors.device)].float()
        size = self.sizes.mean()
        codebook[dead] = places
        self.sums[dead] = places * size
        self.sizes[dead] = size
        return len(dead)

    @torch.no_grad()
    def start(self, codebook: Tensor, vectors: Tensor, iterations: int, generator: torch.Generator) -> None:
        """Spherical k-means over unit vectors [N, D], N ≥ K, as the first codebook."""
        chosen = torch.randperm(len(vectors), generator=generator)[: len(codebook)].to(vectors.device)
        centers = vectors[chosen].float()
        for _ in range(iterations):
            codes = (vectors @ centers.T).argmax(dim=-1)
            counts, sums = assignment_sums(codes, vectors, len(centers))
            similarity = (vectors * centers[codes]).sum(dim=-1)
            empty = torch.nonzero(counts == 0).flatten()
            centers = F.normalize(torch.where(counts[:, None] > 0, sums, centers), dim=-1)
            centers[empty] = vectors[similarity.argsort()[: len(empty)]]
        codebook.copy_(centers)
        counts, sums = assignment_sums((vectors @ centers.T).argmax(dim=-1), vectors, len(centers))
        self.sizes.copy_(counts.clamp(min=self.revive_below) * len(centers) / max(len(vectors), 1))
        self.sums.copy_(centers * self.sizes[:, None])


def assignment_sums(codes: Tensor, vectors: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Counts [K] and vector sums [K, D] of flat codes [N] and vectors [N, D]."""
    codes, vectors = codes.flatten(), vectors.detach().flatten(0, -2).float()
    counts = torch.bincount(codes, minlength=codebook_size).float()
    return counts, torch.zeros(codebook_size, vectors.shape[-1], device=vectors.device).index_add_(0, codes, vectors)


@torch.no_grad()
def merge_twins(codebook: Tensor, background_counts: Tensor, thing_counts: Tensor, similarity: float) -> int:
    """Merges codes that say the same about the background; returns how many are retired.

    A large codebook splits a plain background into many codes that differ in nothing one could name. Which of them a
    patch gets is noise to whoever predicts codes. Each code's twins, those of the same background within a cosine of
    `similarity`, join the commonest of them, which moves to their mean; theirs become zero, nearest to nothing. Codes
    that things use stay as they are.

    Args:
        codebook: [K, D], changed in place.
        background_counts: [N, K], how often each of N backgrounds uses each code where nothing stands.
        thing_counts: [K], how often things use each code.
        similarity: cosine in (0, 1] from which two codes are twins.
    """
    unit = F.normalize(codebook.float(), dim=-1)
    used, label = background_counts.sum(dim=0), background_counts.argmax(dim=0)
    mergeable = (used > 0) & (thing_counts <= 0.1 * (used + thing_counts))
    members: dict[int, list[int]] = {}
    for code in used.argsort(descending=True).tolist():
        if not mergeable[code]:
            continue
        close = [kept for kept in members if label[kept] == label[code] and unit[kept] @ unit[code] > similarity]
        nearest = max(close, key=lambda kept: float(unit[kept] @ unit[code]), default=code)
        members.setdefault(nearest, []).append(code)
    for kept, twins in members.items():
        codebook[twins] = 0
        codebook[kept] = F.normalize((unit[twins] * used[twins, None]).sum(dim=0), dim=-1).to(codebook.dtype)
    return sum(len(twins) - 1 for twins in members.values())


def codebook_perplexity(counts: Tensor) -> Tensor:
    """exp(entropy) of the code shares: the number of codes in effective use."""
    shares = counts / counts.sum().clamp(min=1)
    return torch.exp(-(shares * shares.clamp(min=1e-12).log()).sum())


class SemanticHeads(nn.Module):
    """Reads per-patch labels and pixels back from quantised features, and pools them for the contrastive loss.

    Args:
        width: channels of the features [B, H, W, width].
        classes: number of classes of each label.
        patch_pixels: pixel values of a patch, 3·patch².
        embedding_width: width of the pooled embedding.
    """

    def __init__(self, width: int, classes: dict[str, int], patch_pixels: int, embedding_width: int):
        super().__init__()
        self.labels = nn.ModuleDict({name: nn.Linear(width, count) for name, count in classes.items()})
        self.offset = nn.Linear(width, 2)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.pixels = nn.Linear(width, patch_pixels)
        self.pool = nn.Linear(width, embedding_width)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        mixed = features + F.gelu(self.mix(features.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        outputs = {name: head(features) for name, head in self.labels.items()}
        return outputs | {
            "offset": self.offset(features),
            "pixels": self.pixels(mixed),
            "pooled": self.pool(mixed.mean(dim=(1, 2))),
        }
