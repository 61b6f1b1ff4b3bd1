"""Which models can be counted, by name: packaged configurations, and checkpoints in a folder."""

from pathlib import Path
from typing import Any

import torch

import unimodal_configs
from unimodal import checkpoint
from unimodal.backbone import MaskedDiffusionTransformer
from unimodal.inventory import ComponentInventory, count, count_backbone, inventory
from unimodal_decoders.autoencoder import build_autoencoder
from unimodal_decoders.conditioner import Conditioner
from unimodal_decoders.pixel_decoder import FOLDERS
from unimodal_decoders.transformer import build_transformer
from unimodal_decoders.weight_files import read_config
from unimodal_tokenizers.siglip_vq import ImageTokenizer

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def known() -> list[str]:
    """The names that `describe` takes without a path: embedded checkpoints and packaged configurations."""
    return sorted({*checkpoint.embedded_names(), *unimodal_configs.names("models")})


def describe(name_or_path: str | Path) -> dict[str, Any]:
    """The counts of a model as plain data: each component, their total, and the memory of the weights per dtype.

    Args:
        name_or_path: an embedded checkpoint, a folder, or the name of a `models/*.yaml`, in this order.

    Raises:
        ValueError: none of these, or a folder that is no checkpoint.
    """
    name = str(name_or_path)
    embedded = name in checkpoint.embedded_names()
    if not embedded and not (name and Path(name).expanduser().is_dir()):
        if name not in unimodal_configs.names("models"):
            raise ValueError(f"model: {name!r} is no folder and none of {', '.join(known())}")
        return _as_data(name, "configuration", inventory(name))
    folder = checkpoint.resolve(name)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    source = "embedded checkpoint" if embedded else "checkpoint"
    return {**_as_data(name, source, folder_inventory(folder)), "bytes_on_disk": size}


def folder_inventory(folder: str | Path) -> list[ComponentInventory]:
    """Counts the components of a checkpoint folder from its configurations; those it lacks are left out.

    Raises:
        ValueError: there is no backbone, or a configuration describes no model.
    """
    folder = Path(folder)
    config = checkpoint.read_config(folder)
    with torch.device("meta"):
        found = [count_backbone(MaskedDiffusionTransformer(config))]
        if (folder / "image_tokenizer" / "config.json").is_file():
            tokenizer = ImageTokenizer.from_config(read_config(folder / "image_tokenizer"))
            found.append(count("image_tokenizer", tokenizer))
        if (folder / "vae").is_dir():
            # The conditioner's sizes are those of its weights, and the decoders' condition is as wide as its output.
            conditioner = Conditioner.from_pretrained(folder / "image_tokenizer")
            found.append(count("conditioner", conditioner))
            for place in (name for name in sorted(FOLDERS.values()) if (folder / name).is_dir()):
                sizes = read_config(folder / place) | {"cap_feat_dim": conditioner.feature_dim}
                found.append(count(place, build_transformer(sizes)))
            found.append(count("vae", build_autoencoder(read_config(folder / "vae"))))
    return found


def _as_data(name: str, source: str, components: list[ComponentInventory]) -> dict[str, Any]:
    parts = [_component(part) for part in components]
    total = {key: sum(part[key] for part in parts) for key in ("parameters", "active_parameters", "buffers", "tensors")}
    memory = {dtype: sum(part["memory"][dtype] for part in parts) for dtype in parts[0]["memory"]}
    return {
        "name": name,
        "source": source,
        "components": parts,
        "total": {"name": "total", **total, "memory": memory},
    }


def _component(part: ComponentInventory) -> dict[str, Any]:
    return {
        "name": part.name,
        "parameters": part.parameters,
        "active_parameters": part.active_parameters,
        "buffers": part.buffers,
        "tensors": part.tensors,
        "memory": {str(dtype).removeprefix("torch."): part.memory(dtype) for dtype in DTYPES},
    }
