"""What is measured: a checkpoint's pipeline, or a configuration's geometry with random weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import unimodal
import unimodal_configs
from unimodal.backbone import BackboneConfig, MaskedDiffusionTransformer
from unimodal.components import free_memory, pack_if_there_is_room, pick_device, pick_dtype
from unimodal.diffusion.canvas import Locate
from unimodal.inventory import inventory
from unimodal_decoders.autoencoder import build_autoencoder
from unimodal_decoders.conditioner import build_conditioner
from unimodal_decoders.pixel_decoder import PixelDecoder
from unimodal_decoders.transformer import build_transformer

if TYPE_CHECKING:
    from unimodal.pipeline import Pipeline

PIXEL_PARTS = ("conditioner", "decoder", "vae")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and the ids that cases need.

    Args:
        weights: `random`, or `checkpoint`.
        mask_id: marks what is to fill.
        text_ids, code_ids: the ids of text and of picture codes, first and one past the last.
        locate: rows and columns of picture codes, for a model that wants them.
        pipeline: the checkpoint's, None with random weights.
        decoder: codes to pixels, None where it was not asked for.
    """

    name: str
    weights: str
    backbone: MaskedDiffusionTransformer
    mask_id: int
    text_ids: tuple[int, int]
    code_ids: tuple[int, int]
    locate: Locate | None = None
    pipeline: Pipeline | None = None
    decoder: PixelDecoder | None = None

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    @property
    def dtype(self) -> str:
        return str(self.backbone.embedding.weight.dtype).removeprefix("torch.")


def open_checkpoint(name_or_path: str, device: str | None, dtype: str | None) -> Subject:
    """Loads a checkpoint.

    Raises:
        ValueError: as `unimodal.load`.
    """
    pipe = unimodal.load(name_or_path, device=device, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return Subject(
        name=Path(name_or_path).name,
        weights="checkpoint",
        backbone=pipe.backbone,
        mask_id=pipe.vocab.mask_id,
        text_ids=pipe.vocab.text_range,
        code_ids=pipe.vocab.image_range,
        locate=pipe.sequences.locate_for(pipe.backbone.config.grid_rotary_dim),
        pipeline=pipe,
        decoder=pipe.decoder,
    )


def build_random(name: str, device: str | None, dtype: str | None, seed: int, *, with_pixels: bool) -> Subject:
    """Builds a packaged configuration with random weights, directly on the device and in the dtype.

    The last text id serves as mask. Its row of the head is 0: like a trained model, this one never proposes it.

    Args:
        name: of a packaged configuration, or a YAML file with the same keys.
        with_pixels: also conditioner, flow transformer and autoencoder.

    Raises:
        ValueError: no such configuration, or the weights do not fit into the memory that is free; the message says how
            much they need.
    """
    sections = unimodal_configs.read_model(name)
    place = pick_device(device)
    precision = pick_dtype(dtype, place)
    parts = ("backbone", *(PIXEL_PARTS if with_pixels else ()))
    check_memory(name, sections, parts, place, precision)
    config = BackboneConfig(**sections["backbone"])
    text_ids = range(config.image_token_offset)
    mask_id = text_ids[-1]  # without a tokenizer, any text id will do
    with _building(place, precision, seed), torch.no_grad():
        backbone = MaskedDiffusionTransformer(config).eval()
        backbone.head.weight[mask_id] = 0
        decoder = _random_decoder(sections) if with_pixels else None
    for router in backbone.routers():
        router.expert_bias = router.expert_bias.float()
    pack_if_there_is_room(backbone)
    return Subject(
        name=Path(name).stem,
        weights="random",
        backbone=backbone,
        mask_id=mask_id,
        text_ids=(text_ids.start, text_ids.stop),
        code_ids=(config.image_token_offset, config.vocab_size),
        locate=_no_pictures if config.grid_rotary_dim else None,
        decoder=decoder,
    )


def check_memory(
    name: str, sections: Mapping[str, Any], parts: tuple[str, ...], device: torch.device, dtype: torch.dtype
) -> int:
    """The bytes of the weights of some parts of a model.

    Raises:
        ValueError: there are not as many free on the device.
    """
    needed = sum(part.memory(dtype) for part in inventory(sections) if part.name in parts)
    free = free_memory(device)
    if needed > free:
        kind, there = str(dtype).removeprefix("torch."), f"{free / 1e9:.1f} GB are free on {device}"
        raise ValueError(
            f"model: the weights of {name} take {needed / 1e9:.1f} GB in {kind}, {there}; "
            "choose a smaller model, a narrower dtype or another device"
        )
    return needed


def _random_decoder(sections: Mapping[str, Any]) -> PixelDecoder:
    return PixelDecoder(
        build_conditioner(sections["conditioner"]).eval(),
        build_autoencoder(sections["vae"]).eval(),
        {"turbo": build_transformer(sections["decoder"]).eval()},
    )


@contextmanager
def _building(device: torch.device, dtype: torch.dtype, seed: int) -> Iterator[None]:
    """New modules are made on this device, in this dtype, from this seed; afterwards all is as before."""
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def _no_pictures(tokens: torch.Tensor) -> torch.Tensor:
    """Random tokens announce no picture: rows and columns are 0."""
    return tokens.new_zeros(*tokens.shape, 2)
