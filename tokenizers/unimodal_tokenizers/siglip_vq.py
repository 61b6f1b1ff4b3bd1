"""SigLIP-VQ: pictures to a grid of semantic codes, on the GLM-Image classes of `transformers`.

A vision transformer without final norm, a 1x1 projection, and the nearest codebook row by cosine (LLaDA2.0-Uni,
arXiv 2604.20796, section 2). The library packs pictures along the token axis and attends to them one by one; here a
batch of equal sizes goes through one attention call with the library's own weights, which is what training needs.

Letters: B pictures, Y X pixels, H W patches, C vision width, D code width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.models.glm_image.configuration_glm_image import GlmImageVisionConfig, GlmImageVQVAEConfig
from transformers.models.glm_image.modeling_glm_image import GlmImageVisionModel, GlmImageVQVAE

from unimodal_configs.atomic import replacing
from unimodal_configs.json_files import read_json

VISION_PREFIX = "model.visual."
QUANTIZER_PREFIX = "model.vqmodel."
VECTORS_AT_ONCE = 8192
"""Vectors compared with the whole codebook at a time; bounds memory, not results."""


class ImageTokenizer(nn.Module):
    """Pixels [B, 3, Y, X] in [-1, 1] to codes [B, Y/patch, X/patch] in [0, codebook_size).

    `vision` and `quantizer` are the library's modules, `config` the mapping that describes them (`vision_config`,
    `vq_config`). Set `gradient_checkpointing` to trade time for memory in training.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        vision_config = _section(config, "vision_config", GlmImageVisionConfig)
        # Codes are one per patch in row-major order; a merge size of 2, found in some files, would permute them.
        vision_config["spatial_merge_size"] = 1
        self.config = dict(config)
        self.vision = GlmImageVisionModel(GlmImageVisionConfig(**vision_config))
        self.quantizer = GlmImageVQVAE(GlmImageVQVAEConfig(**_section(config, "vq_config", GlmImageVQVAEConfig)))
        self.gradient_checkpointing = False
        if self.quantizer.config.latent_channels != self.vision.config.hidden_size:
            raise ValueError(
                f"vq_config.latent_channels: {self.quantizer.config.latent_channels} differs from "
                f"vision_config.hidden_size {self.vision.config.hidden_size}"
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Fresh weights for `config`, with the two sections `vision_config` and `vq_config` or flat."""
        return cls(config)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> Self:
        """Loads an `image_tokenizer` folder of the published layout; `dtype` None keeps that of the files.

        Raises:
            ValueError: the folder lacks a file, or a tensor under the two prefixes is missing, extra or misshapen.
        """
        folder = Path(folder)
        with torch.device("meta"):
            tokenizer = cls(read_json(folder / "config.json"))
        weights = _published_weights(folder)
        try:
            tokenizer.vision.load_state_dict(_strip(weights, VISION_PREFIX), assign=True)
            tokenizer.quantizer.load_state_dict(_strip(weights, QUANTIZER_PREFIX), assign=True)
        except RuntimeError as error:
            raise ValueError(f"folder: {folder} does not hold this image tokenizer: {error}") from error
        if dtype is None:
            dtype = torch.promote_types(tokenizer.vision.dtype, tokenizer.quantizer.dtype)
        return tokenizer.to(device=device, dtype=dtype).eval()

    def save_pretrained(self, folder: str | Path, file_name: str = "model.safetensors") -> None:
        """Writes `config.json`, `preprocessor_config.json` and the weights under their published names."""
        folder = Path(folder)
        weights = {VISION_PREFIX + key: value for key, value in self.vision.state_dict().items()}
        weights |= {QUANTIZER_PREFIX + key: value for key, value in self.quantizer.state_dict().items()}
        with replacing(folder / file_name) as path:
            save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, path, metadata={"format": "pt"})
        identity = {"model_type": "glm_image", "architectures": ["GlmImageForConditionalGeneration"]}
        _write_json(folder / "config.json", identity | self.config)
        _write_json(folder / "preprocessor_config.json", _preprocessor(self.patch_size))

    @property
    def patch_size(self) -> int:
        """Pixels per code along each side."""
        return self.vision.patch_embed.proj.kernel_size[0]

    @property
    def codebook_size(self) -> int:
        return self.quantizer.quantize.num_embeddings

    @property
    def codebook(self) -> nn.Parameter:
        """[codebook_size, D], not normalised; codes are compared by direction only."""
        return cast(nn.Parameter, self.quantizer.quantize.embedding.weight)

    def features(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, Y, X] in [-1, 1] to the features before the quantiser [B, H, W, C].

        Equals `vision(pixel_values, grid_thw).last_hidden_state`, for all pictures in one attention call per layer.

        Raises:
            ValueError: not four axes, or the sides are no multiples of the patch size.
        """
        height, width = self._grid(pixels)
        embed = self.vision.patch_embed
        patches = pixels.to(embed.proj.weight.dtype).unflatten(3, (width, -1)).unflatten(2, (height, -1))
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # [B, H·W, 3·patch²]
        hidden = F.linear(patches, embed.proj.weight.flatten(1), embed.proj.bias)
        hidden = hidden + self._positions(height, width)
        for block in self.vision.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(_vision_block, block, hidden, use_reentrant=False)
            else:
                hidden = _vision_block(block, hidden)
        return hidden.unflatten(1, (height, width))

    def project(self, features: Tensor) -> Tensor:
        """Features [B, H, W, C] to code space [B, H, W, D], not normalised (the 1x1 `quant_conv`)."""
        convolution = self.quantizer.quant_conv
        return F.linear(features, convolution.weight.flatten(1), convolution.bias)

    def nearest(self, projected: Tensor) -> Tensor:
        """The code of largest cosine for each vector [..., D], int64 [...].

        Compared in float32 whatever the weights' precision: bfloat16 cosines tie among thousands of codes.
        """
        codebook = F.normalize(self.codebook.detach().float(), dim=-1)
        directions = F.normalize(projected.detach().float(), dim=-1).flatten(0, -2)
        parts = [(part @ codebook.T).argmax(dim=-1) for part in directions.split(VECTORS_AT_ONCE)]
        return torch.cat(parts).view(projected.shape[:-1])

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, Y, X] in [-1, 1] to codes int64 [B, H, W].

        Raises:
            ValueError: not four axes, or the sides are no multiples of the patch size.
        """
        return self.nearest(self.project(self.features(pixels)))

    def _grid(self, pixels: Tensor) -> tuple[int, int]:
        channels, patch = self.vision.config.in_channels, self.patch_size
        allowed = f"[B, {channels}, Y, X] with Y and X positive multiples of {patch}"
        if pixels.ndim != 4 or pixels.shape[1] != channels or not pixels.is_floating_point():
            raise ValueError(f"pixels: {pixels.dtype} {list(pixels.shape)}, expected floating point {allowed}")
        rows, columns = pixels.shape[2:]
        if rows % patch or columns % patch or not rows or not columns:
            raise ValueError(f"pixels: {list(pixels.shape)}, expected {allowed}")
        return rows // patch, columns // patch

    def _positions(self, height: int, width: int) -> Tensor:
        """The position table sampled at this grid [H·W, C]: the library's own interpolation, on an empty picture."""
        table = self.vision.embeddings.position_embedding.weight
        rows = torch.arange(height, device=table.device).repeat_interleave(width)
        columns = torch.arange(width, device=table.device).repeat(height)
        shape = torch.tensor([[1, height, width]], device=table.device)
        empty = table.new_zeros(height * width, table.shape[1])
        return self.vision.embeddings(empty, [height * width], shape, rows, columns)


def _vision_block(block: Any, hidden: Tensor) -> Tensor:
    """One pre-norm block of the library on [B, N, C], all pictures attended to in one call."""
    attention = block.attn
    packed = attention.qkv(block.norm1(hidden)).unflatten(-1, (3, attention.num_heads, attention.head_dim))
    query, key, value = packed.permute(2, 0, 3, 1, 4)  # [B, heads, N, C/heads] each
    dropout = attention.attention_dropout if block.training else 0.0
    if query.requires_grad and query.device.type == "cpu" and not dropout:
        # The library kernel's backward pass on CPU takes several times as long as these two products.
        attended = (query @ key.mT * attention.scaling).softmax(dim=-1).to(value.dtype) @ value
    else:
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=attention.scaling)
    hidden = hidden + attention.proj(attended.transpose(1, 2).flatten(2))
    return hidden + block.mlp(block.norm2(hidden))


def _section(config: Mapping[str, Any], name: str, kind: type) -> dict[str, Any]:
    """The named section of the configuration, or the fields of `kind` picked from a flat one."""
    if name in config:
        return dict(config[name])
    known = {field.name for field in fields(kind)} | {"beta"}
    picked = {key: value for key, value in config.items() if key in known}
    required = "hidden_size" if kind is GlmImageVisionConfig else "num_embeddings"
    if required not in picked:
        raise ValueError(f"config: neither a section {name!r} nor a key {required!r} among {sorted(config)}")
    return picked


def _published_weights(folder: Path) -> dict[str, Tensor]:
    """The shards the index names for our prefixes, or every safetensors file of the folder."""
    prefixes = (VISION_PREFIX, QUANTIZER_PREFIX)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        places = read_json(index).get("weight_map", {})
        names = sorted({name for key, name in places.items() if key.startswith(prefixes)})
        paths = [folder / name for name in names]
    else:
        paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise ValueError(f"folder: {folder} has no *.safetensors")
    for path in paths:
        if not path.is_file():
            raise ValueError(f"folder: {index} names {path.name}, which is missing")
    return {key: value for path in paths for key, value in _load(path).items() if key.startswith(prefixes)}


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"folder: {path} is truncated or no safetensors file: {error}") from error


def _strip(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def _preprocessor(patch_size: int) -> dict[str, Any]:
    """What the published folder tells image processors: nothing is resized, pixels go to [-1, 1]."""
    return {
        "image_processor_type": "GlmImageImageProcessor",
        "do_resize": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "patch_size": patch_size,
        "temporal_patch_size": 1,
        "merge_size": 1,
        "resample": 3,
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
