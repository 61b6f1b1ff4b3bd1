"""Codes to the features the flow transformer reads: an embedding, two linear maps, and nearest upsampling by two.

The "SigVQ" embedding of LLaDA2.0-Uni (arXiv 2604.20796, section 2). Features carry no position: the transformer sees
them as a sequence, or, where its configuration says so, on the picture's grid (`rotary.places`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.models.attention import FeedForward
from torch import Tensor, nn

from unimodal_configs.atomic import replacing
from unimodal_decoders.weight_files import fill

FILE_NAME = "sigvq_embedding.pt"
UPSAMPLING = 2
"""Features per code along each side, whatever the resolution multiplier."""


class Conditioner(nn.Module):
    """Codes int [B, H, W] to features [B, 4·H·W, feature_dim], row-major over the grid of 2H × 2W.

    Module names are those of the published `sigvq_embedding.pt`.
    """

    def __init__(
        self,
        *,
        codebook_size: int,
        embedding_dim: int,
        hidden_dim: int,
        feature_dim: int,
    ) -> None:
        super().__init__()
        self.prior_token_embedding = nn.Embedding(codebook_size, embedding_dim)
        self.prior_projector = FeedForward(
            embedding_dim, dim_out=feature_dim, inner_dim=hidden_dim, activation_fn="linear-silu"
        )
        self.feature_dim = feature_dim

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Reads `sigvq_embedding.pt` (the file, or its folder); sizes come from its shapes, `dtype` None keeps its own.

        Raises:
            ValueError: no such file, or its tensors are not those of a conditioner.
        """
        path = Path(path)
        path = path / FILE_NAME if path.is_dir() else path
        if not path.is_file():
            raise ValueError(f"path: {path} does not exist")
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # pickles fail in many ways; the library's advice to trust them is not passed on
            raise ValueError(f"path: {path} is truncated, or holds more than tensors") from error
        try:
            codebook_size, embedding_dim = weights["prior_token_embedding.weight"].shape
            feature_dim, hidden_dim = weights["prior_projector.net.2.weight"].shape
        except (KeyError, ValueError, AttributeError) as error:
            raise ValueError(f"path: {path} holds no conditioner: {error}") from error
        sizes = {"codebook_size": codebook_size, "embedding_dim": embedding_dim, "feature_dim": feature_dim}
        with torch.device("meta"):
            conditioner = cls(**sizes, hidden_dim=hidden_dim)
        fill(conditioner, weights, path, device, dtype)
        return conditioner

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `sigvq_embedding.pt` in float32, as published."""
        weights = {key: value.detach().float().cpu().contiguous() for key, value in self.state_dict().items()}
        with replacing(Path(folder) / FILE_NAME) as path:
            torch.save(weights, path)

    @property
    def codebook_size(self) -> int:
        return self.prior_token_embedding.num_embeddings

    def forward(self, codes: Tensor) -> Tensor:
        """Codes int [B, H, W] to features [B, 4·H·W, feature_dim].

        Raises:
            ValueError: `codes` is not an integer tensor of three axes.
        """
        if codes.ndim != 3 or codes.is_floating_point() or codes.is_complex():
            raise ValueError(f"codes: {codes.dtype} {list(codes.shape)}, expected integers [B, H, W]")
        # The projector acts on each code alone, so the grid is repeated after it; integers never pass through floats.
        features = self.prior_projector(self.prior_token_embedding(codes))
        return features.repeat_interleave(UPSAMPLING, 1).repeat_interleave(UPSAMPLING, 2).flatten(1, 2)

    def zero_features(self, codes: Tensor) -> Tensor:
        """The negative condition: zeros in the shape of `forward(codes)`."""
        batch, height, width = codes.shape
        return self.prior_token_embedding.weight.new_zeros(batch, height * width * UPSAMPLING**2, self.feature_dim)


def build_conditioner(config: Mapping[str, Any]) -> Conditioner:
    """Fresh weights from `vocab_size` (codes) and `inner_dim` (every width), the names of the published code.

    Raises:
        ValueError: a key is missing or unknown.
    """
    if set(config) != {"vocab_size", "inner_dim"}:
        raise ValueError(f"config: keys {sorted(config)}, expected ['inner_dim', 'vocab_size']")
    width = config["inner_dim"]
    sizes = {"embedding_dim": width, "hidden_dim": width, "feature_dim": width}
    return Conditioner(codebook_size=config["vocab_size"], **sizes)
