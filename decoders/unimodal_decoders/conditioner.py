"""Codes to the features the flow transformer reads: an embedding, two linear maps, and nearest upsampling by two.

The "SigVQ" embedding of LLaDA2.0-Uni (arXiv 2604.20796, section 2). Published features carry no position: the
transformer sees them as a sequence. `PositionCue` is our declared addition, absent from published checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class PositionCue:
    """A fixed 2-D sinusoid added to the features, in the frequencies of the transformer's two spatial rotary axes.

    Rotation by a picture token's row then meets the cosine and sine of a feature's row, so "the feature here" is one
    dot product away. Rows are written to the first half of the channels and columns to the second; cosines, then
    sines, then zeros in each. `row_dim` and `column_dim` are the rotary dimensions of the axes.
    """

    theta: float
    row_dim: int
    column_dim: int
    scale: float = 1.0

    @classmethod
    def from_config(cls, decoder_config: Mapping[str, Any]) -> Self | None:
        """The cue that a decoder's `config.json` declares with `"position_cue": true`, else None."""
        if not decoder_config.get("position_cue", False):
            return None
        _, row_dim, column_dim = decoder_config["axes_dims"]
        scale = float(decoder_config.get("position_cue_scale", 1.0))
        return cls(theta=decoder_config["rope_theta"], row_dim=row_dim, column_dim=column_dim, scale=scale)

    def to_config(self) -> dict[str, Any]:
        """The keys that `from_config` reads besides those of the transformer."""
        return {"position_cue": True, "position_cue_scale": self.scale}

    def features(self, height: int, width: int, channels: int, resolution_multiplier: int) -> Tensor:
        """float32 [UPSAMPLING·height · UPSAMPLING·width, channels] for a grid of height × width codes.

        Positions are in the transformer's picture patches, of which a code spans `resolution_multiplier` per side.
        """
        half = channels // 2
        rows = self._waves(height, self.row_dim, half, resolution_multiplier)
        columns = self._waves(width, self.column_dim, channels - half, resolution_multiplier)
        grid = len(rows), len(columns)
        cue = torch.cat((rows[:, None].expand(*grid, -1), columns[None].expand(*grid, -1)), dim=-1)
        return self.scale * cue.flatten(0, 1)

    def _waves(self, length: int, axis_dim: int, channels: int, resolution_multiplier: int) -> Tensor:
        count = min(axis_dim // 2, channels // 2)
        frequencies = self.theta ** (-torch.arange(0, 2 * count, 2, dtype=torch.float64) / axis_dim)
        places = torch.arange(length * UPSAMPLING, dtype=torch.float64)
        # Centre to centre: with fewer patches than features, several features share one patch.
        places = (places + 0.5) * resolution_multiplier / UPSAMPLING - 0.5
        angles = places[:, None] * frequencies
        waves = torch.zeros(len(places), channels)
        waves[:, :count], waves[:, count : 2 * count] = angles.cos(), angles.sin()
        return waves


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
        position_cue: PositionCue | None = None,
    ) -> None:
        super().__init__()
        self.prior_token_embedding = nn.Embedding(codebook_size, embedding_dim)
        self.prior_projector = FeedForward(
            embedding_dim, dim_out=feature_dim, inner_dim=hidden_dim, activation_fn="linear-silu"
        )
        self.feature_dim = feature_dim
        self.position_cue = position_cue

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        position_cue: PositionCue | None = None,
    ) -> Self:
        """Reads `sigvq_embedding.pt` (the file, or its folder); sizes come from its shapes, `dtype` None keeps its own.

        Raises:
            ValueError: no such file, or its tensors are not those of a conditioner.
        """
        path = Path(path)
        path = path / FILE_NAME if path.is_dir() else path
        if not path.is_file():
            raise ValueError(f"path: {path} does not exist")
        weights = torch.load(path, map_location="cpu", weights_only=True)
        try:
            codebook_size, embedding_dim = weights["prior_token_embedding.weight"].shape
            feature_dim, hidden_dim = weights["prior_projector.net.2.weight"].shape
        except (KeyError, ValueError, AttributeError) as error:
            raise ValueError(f"path: {path} holds no conditioner: {error}") from error
        sizes = {"codebook_size": codebook_size, "embedding_dim": embedding_dim, "feature_dim": feature_dim}
        with torch.device("meta"):
            conditioner = cls(**sizes, hidden_dim=hidden_dim, position_cue=position_cue)
        fill(conditioner, weights, path, device, dtype)
        return conditioner

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `sigvq_embedding.pt` in float32, as published. The cue is declared by the decoder's configuration."""
        weights = {key: value.detach().float().cpu().contiguous() for key, value in self.state_dict().items()}
        with replacing(Path(folder) / FILE_NAME) as path:
            torch.save(weights, path)

    @property
    def codebook_size(self) -> int:
        return self.prior_token_embedding.num_embeddings

    def forward(self, codes: Tensor, resolution_multiplier: int = UPSAMPLING) -> Tensor:
        """Codes int [B, H, W] to features [B, 4·H·W, feature_dim]; the multiplier only places the position cue."""
        return self.with_cue(self.semantic_features(codes), codes, self.position_cue, resolution_multiplier)

    def semantic_features(self, codes: Tensor) -> Tensor:
        """The published features, without any cue: [B, 4·H·W, feature_dim].

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

    @staticmethod
    def with_cue(features: Tensor, codes: Tensor, cue: PositionCue | None, resolution_multiplier: int) -> Tensor:
        """`features` of `codes` with `cue` added, when there is one."""
        if cue is None:
            return features
        height, width = codes.shape[1:]
        return features + cue.features(height, width, features.shape[-1], resolution_multiplier).to(features)


def build_conditioner(config: Mapping[str, Any], position_cue: PositionCue | None = None) -> Conditioner:
    """Fresh weights from `vocab_size` (codes) and `inner_dim` (every width), the names of the published code.

    Raises:
        ValueError: a key is missing or unknown.
    """
    if set(config) != {"vocab_size", "inner_dim"}:
        raise ValueError(f"config: keys {sorted(config)}, expected ['inner_dim', 'vocab_size']")
    width = config["inner_dim"]
    sizes = {"embedding_dim": width, "hidden_dim": width, "feature_dim": width}
    return Conditioner(codebook_size=config["vocab_size"], **sizes, position_cue=position_cue)
