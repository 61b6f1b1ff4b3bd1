"""The masked-diffusion transformer: configuration, model, prefix cache, block mask, names of published weights."""

from unimodal.backbone.attention import block_causal_mask
from unimodal.backbone.cache import CacheWindow, PrefixCache
from unimodal.backbone.config import BackboneConfig
from unimodal.backbone.model import BackboneOutput, MaskedDiffusionTransformer

__all__ = [
    "BackboneConfig",
    "BackboneOutput",
    "CacheWindow",
    "MaskedDiffusionTransformer",
    "PrefixCache",
    "block_causal_mask",
]
