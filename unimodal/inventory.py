"""What a model consists of, counted without allocating it: parameters, tensors and memory of each component."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import unimodal_configs
from unimodal.backbone import BackboneConfig, MaskedDiffusionTransformer, hub_keys
from unimodal_decoders.autoencoder import build_autoencoder
from unimodal_decoders.conditioner import build_conditioner
from unimodal_decoders.transformer import build_transformer
from unimodal_tokenizers.siglip_vq import ImageTokenizer

COMPONENTS = ("backbone", "image_tokenizer", "conditioner", "decoder", "vae")


@dataclass(frozen=True, kw_only=True)
class ComponentInventory:
    """One component, counted as its published weight files hold it.

    Attributes:
        parameters: trained numbers.
        buffers: numbers that are stored but not trained by gradients (the routers' selection bias).
        tensors: entries of the weight files, each expert's matrices counted apart.
        active_parameters: those that one token passes: all but the experts it is not sent to.
    """

    name: str
    parameters: int
    buffers: int
    tensors: int
    active_parameters: int

    def memory(self, dtype: torch.dtype) -> int:
        """Bytes of the weights alone in one dtype."""
        return (self.parameters + self.buffers) * dtype.itemsize


def inventory(model: str | Mapping[str, Mapping[str, Any]]) -> list[ComponentInventory]:
    """Counts every component of a model.

    Args:
        model: the name of a `models/*.yaml`, or a mapping with the same five sections.

    Raises:
        ValueError: no such name, or a section is missing.
    """
    sections = unimodal_configs.read("models", model) if isinstance(model, str) else model
    if missing := [name for name in COMPONENTS if name not in sections]:
        raise ValueError(f"model: lacks {', '.join(missing)}, it needs {', '.join(COMPONENTS)}")
    with torch.device("meta"):
        return [
            count_backbone(MaskedDiffusionTransformer(BackboneConfig(**sections["backbone"]))),
            count("image_tokenizer", ImageTokenizer.from_config(sections["image_tokenizer"])),
            count("conditioner", build_conditioner(sections["conditioner"])),
            count("decoder", build_transformer(sections["decoder"])),
            count("vae", build_autoencoder(sections["vae"])),
        ]


def count_backbone(model: MaskedDiffusionTransformer) -> ComponentInventory:
    """Counts a backbone as it is published: experts apart."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    stored = dict(hub_keys.to_published(model.state_dict()))
    routed = sum(tensor.numel() for name, tensor in stored.items() if ".mlp.experts." in name)
    idle = routed - routed * model.config.num_experts_per_tok // model.config.num_experts
    return ComponentInventory(
        name="backbone",
        parameters=parameters,
        buffers=sum(tensor.numel() for tensor in stored.values()) - parameters,
        tensors=len(stored),
        active_parameters=parameters - idle,
    )


def count(name: str, module: nn.Module) -> ComponentInventory:
    """Counts any other component."""
    parameters = sum(parameter.numel() for parameter in module.parameters())
    stored = module.state_dict()
    return ComponentInventory(
        name=name,
        parameters=parameters,
        buffers=sum(tensor.numel() for tensor in stored.values()) - parameters,
        tensors=len(stored),
        active_parameters=parameters,
    )
