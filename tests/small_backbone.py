"""A backbone of small, odd sizes with random weights, and what to give it: words, pictures, rows and columns."""

from typing import Any

import torch
from torch import Tensor

from unimodal.backbone import BackboneConfig, MaskedDiffusionTransformer

MASK, EOS, SIZE = 30, 29, 48
WORDS, PICTURES = (0, 28), (32, 46)

# Hardly two sizes are alike, so that one taken for another is noticed.
SIZES: dict[str, Any] = {
    "vocab_size": SIZE,
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "use_bias": False,
    "use_qk_norm": True,
    "rms_norm_eps": 1e-6,
    "attention_dropout": 0.0,
    "rope_theta": 1000.0,
    "partial_rotary_factor": 0.5,
    "num_experts": 12,
    "num_shared_experts": 1,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "moe_intermediate_size": 20,
    "first_k_dense_replace": 1,
    "image_token_offset": PICTURES[0],
    "initializer_range": 0.3,
}


def small_backbone(seed: int = 0, **changes: Any) -> MaskedDiffusionTransformer:
    """A backbone in evaluation mode, float32 on the CPU; the global random state stays as it was.

    Args:
        seed: of the weights, and of the routers' selection biases, which else are zero.
        changes: fields of the configuration that differ from `SIZES`.

    Raises:
        ValueError: sizes that no backbone can have.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MaskedDiffusionTransformer(BackboneConfig(**{**SIZES, **changes}))
        for router in model.routers():
            router.expert_bias.normal_(std=0.2)
    return model.eval()


def words(seed: int, length: int) -> list[int]:
    """So many random tokens that are neither codes nor special."""
    return torch.randint(*WORDS, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def is_picture(tokens: Tensor) -> Tensor:
    """Which tokens are codes, of the same shape."""
    return (tokens >= PICTURES[0]) & (tokens < PICTURES[1])


def locate(tokens: Tensor) -> Tensor:
    """Rows and columns [..., 2] that depend on all tokens [...] before, as those of pictures do."""
    seen = (tokens == 3).cumsum(dim=-1)
    return torch.stack([seen, torch.where(seen > 0, tokens % 5, 0)], dim=-1)
