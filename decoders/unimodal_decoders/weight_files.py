"""One component's folder: a `config.json` and one safetensors file, read strictly and written whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unimodal_configs.atomic import replacing
from unimodal_configs.json_files import read_json


def read_config(folder: str | Path) -> dict[str, Any]:
    """The folder's `config.json`.

    Raises:
        ValueError: there is none, or it is not JSON.
    """
    return read_json(Path(folder) / "config.json")


def write_config(folder: str | Path, config: Mapping[str, Any]) -> None:
    with replacing(Path(folder) / "config.json") as path:
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_weights(folder: str | Path, names: Sequence[str]) -> dict[str, Tensor]:
    """The first of `names` that exists in the folder, else its only safetensors file.

    Raises:
        ValueError: there is none, several of other names, or it is truncated.
    """
    folder = Path(folder)
    found = [folder / name for name in names if (folder / name).is_file()] or sorted(folder.glob("*.safetensors"))
    if not found or (len(found) > 1 and found[0].name not in names):
        present = ", ".join(path.name for path in found) or "none"
        raise ValueError(f"folder: {folder} needs {' or '.join(names)} or a single *.safetensors, it has {present}")
    try:
        return load_file(found[0])
    except SafetensorError as error:
        raise ValueError(f"folder: {found[0]} is truncated or no safetensors file: {error}") from error


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    with replacing(path) as temporary:
        tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
        save_file(tensors, temporary, metadata={"format": "pt"})


def fill(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    source: str | Path,
    device: torch.device | str,
    dtype: torch.dtype | None,
) -> None:
    """Puts `weights` into `module`, which may be on the meta device, and sets it to evaluation.

    `dtype` None takes the narrowest type that holds all of them.

    Raises:
        ValueError: a tensor is missing, extra or misshapen; the message names it.
    """
    if dtype is None:
        dtype = reduce(torch.promote_types, (weight.dtype for weight in weights.values()))
    # Cast before they enter: diffusers' modules complain about being cast themselves.
    weights = {key: value.to(device=device, dtype=dtype) for key, value in weights.items()}
    try:
        module.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ValueError(f"folder: {source} does not hold this {type(module).__name__}: {error}") from error
    module.eval()
