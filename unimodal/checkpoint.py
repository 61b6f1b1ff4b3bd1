"""Finds a checkpoint's folder, and reads and writes the backbone in it.

A checkpoint is a folder in the layout of the published LLaDA2.0-Uni, or of the text-only LLaDA2.0 and LLaDA2.1. The
backbone is its root: `config.json` and `model.safetensors`, or shards with `model.safetensors.index.json`. Reading is
strict and never holds two copies of the model: it is built without memory, allocated once in the run dtype, and filled
tensor by tensor.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unimodal.backbone import BackboneConfig, MaskedDiffusionTransformer, hub_keys
from unimodal_configs.atomic import replacing
from unimodal_configs.json_files import read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MODEL_TYPES = ("llada2_moe", "llada2_moe_veomni")

PARTS = {
    "backbone": ("config.json", "generation_config.json", "model*.safetensors", INDEX),
    "text_tokenizer": ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template*"),
    "image_tokenizer": (
        "image_tokenizer/*.json",
        "image_tokenizer/*.safetensors",
        "image_tokenizer/sigvq_embedding.pt",
    ),
    "decoder": ("decoder/*.json", "decoder/*.safetensors"),
    "decoder-turbo": ("decoder-turbo/*.json", "decoder-turbo/*.safetensors"),
    "vae": ("vae/*.json", "vae/*.safetensors"),
}
"""What is fetched from the Hub for each part of a checkpoint. Code is never among it."""


def embedded_names() -> list[str]:
    """The checkpoints that come with the package."""
    root = files("unimodal") / "assets"
    if not root.is_dir():
        return []
    return sorted(entry.name for entry in root.iterdir() if (entry / "config.json").is_file())


def resolve(
    name_or_path: str | Path,
    revision: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
    parts: Sequence[str] = tuple(PARTS),
) -> Path:
    """The folder of a checkpoint that comes with the package, lies on disk, or is fetched from the Hugging Face Hub.

    Args:
        name_or_path: an embedded name, a folder, or a Hub id `owner/name`.
        revision, token, local_files_only: as in `huggingface_hub.snapshot_download`.
        parts: keys of `PARTS` to fetch from the Hub.

    Raises:
        ValueError: there is no such checkpoint, or an unknown part.
    """
    if unknown := set(parts) - set(PARTS):
        raise ValueError(f"parts: got {', '.join(sorted(unknown))}, allowed are {', '.join(PARTS)}")
    name = str(name_or_path)
    if name in embedded_names():
        return Path(str(files("unimodal") / "assets" / name))
    folder = Path(name_or_path).expanduser()
    if name and folder.is_dir():
        return folder
    if isinstance(name_or_path, Path) or not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise ValueError(
            f"name_or_path: {name!r} is no folder, no Hub id (owner/name) and none of the embedded checkpoints "
            f"({', '.join(embedded_names()) or 'there are none'})"
        )
    return _fetch(name, revision, token, local_files_only, [pattern for part in parts for pattern in PARTS[part]])


def _fetch(name: str, revision: str | None, token: str | None, local_files_only: bool, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name, revision=revision, token=token, local_files_only=local_files_only, allow_patterns=patterns
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        where = "in the local cache" if local_files_only else "on the Hugging Face Hub or in the local cache"
        raise ValueError(f"name_or_path: {name!r} is no folder and was not found {where}: {error}") from error


def read_config(folder: str | Path) -> BackboneConfig:
    """The backbone's configuration.

    Raises:
        ValueError: no `config.json`, one of another kind of model, or one that describes no model.
    """
    path = Path(folder) / "config.json"
    content = read_json(path)
    if content.get("model_type") not in MODEL_TYPES:
        raise ValueError(f"model_type: {path} states {content.get('model_type')!r}, allowed is {MODEL_TYPES[0]!r}")
    config = BackboneConfig(**{key: value for key, value in content.items() if key != "model_type"})
    config.check()
    return config


def load_backbone(
    folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> MaskedDiffusionTransformer:
    """Reads the backbone, in evaluation mode.

    Args:
        dtype: the run dtype, whatever is on disk; None takes that of `config.json`, else float32.
            The routers' selection bias stays in float32.

    Raises:
        ValueError: a file or tensor is missing, extra, misshapen or truncated; the message names it.
    """
    folder = Path(folder)
    config = read_config(folder)
    dtype = dtype or (config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32)
    with torch.device("meta"):
        model = MaskedDiffusionTransformer(config)
    shards = _shards(folder)
    _check_complete(model, shards)
    nn.Module.to(model, dtype)
    for router in model.routers():
        router.expert_bias = router.expert_bias.float()
    model = model.to_empty(device=device)
    targets = model.state_dict()
    with torch.no_grad():
        for path, names in shards.items():
            with _open(path) as file:
                for name in names:
                    place = hub_keys.place_of(name)
                    assert place is not None
                    place.of(targets[place.name]).copy_(file.get_tensor(name))
    model.config.dtype = dtype
    return model.eval()


def save_backbone(
    model: MaskedDiffusionTransformer, folder: str | Path, max_shard_size: int | str = "5GB"
) -> list[Path]:
    """Writes `config.json` and the weights under their published names, experts apart, in the dtypes they have.

    All files appear together at the end; weights of an earlier save that are no longer needed are removed.

    Args:
        max_shard_size: bytes, or a number with KB, MB or GB (powers of 1000); a larger model is split.

    Returns:
        the files written.
    """
    folder = Path(folder)
    groups = _split(hub_keys.to_published(model.state_dict()), _bytes(max_shard_size))
    names = (
        [WEIGHTS]
        if len(groups) == 1
        else [f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors" for i in range(len(groups))]
    )
    written = []
    with ExitStack() as stack:
        for name, group in zip(names, groups, strict=True):
            path = stack.enter_context(replacing(folder / name))
            save_file(
                {key: tensor.detach().cpu().contiguous() for key, tensor in group.items()}, path, {"format": "pt"}
            )
            written.append(folder / name)
        if len(groups) > 1:
            size = sum(tensor.nbytes for group in groups for tensor in group.values())
            index = {key: name for name, group in zip(names, groups, strict=True) for key in group}
            content = {"metadata": {"total_size": size}, "weight_map": dict(sorted(index.items()))}
            _write_json(stack.enter_context(replacing(folder / INDEX)), content)
            written.append(folder / INDEX)
        config = {
            **model.config.to_published(),
            "torch_dtype": str(model.embedding.weight.dtype).removeprefix("torch."),
        }
        _write_json(stack.enter_context(replacing(folder / "config.json")), config)
        written.append(folder / "config.json")
    for stale in [*folder.glob("model*.safetensors"), folder / INDEX]:
        if stale not in written:
            stale.unlink(missing_ok=True)
    return written


def _shards(folder: Path) -> dict[Path, list[str]]:
    """The weight files and the names of the tensors in each; an index and its files must agree."""
    if (folder / INDEX).is_file():
        index: dict[str, str] = read_json(folder / INDEX).get("weight_map", {})
        shards = {folder / name: _names_in(folder / name) for name in sorted(set(index.values()))}
        held = {name: path.name for path, names in shards.items() for name in names}
        for name, file in index.items():
            if name not in shards[folder / file]:
                where = f"it is in {held[name]}" if name in held else "no file holds it"
                raise ValueError(f"folder: {folder / INDEX} places {name} in {file}, but {where}")
        for path, names in shards.items():
            for name in names:
                if index.get(name) != path.name:
                    raise ValueError(f"folder: {path} holds {name}, which {INDEX} does not place there")
        return shards
    single = folder / WEIGHTS
    if not single.is_file():
        raise ValueError(f"folder: {folder} has neither {WEIGHTS} nor {INDEX}")
    return {single: _names_in(single)}


def _check_complete(model: MaskedDiffusionTransformer, shards: Mapping[Path, Sequence[str]]) -> None:
    """Before anything is allocated: every tensor of the model is there, in its shape, and nothing else is."""
    expected = {name: tensor.shape for name, tensor in hub_keys.to_published(model.state_dict())}
    found = {name for names in shards.values() for name in names}
    files_read = ", ".join(path.name for path in shards) if len(shards) < 3 else f"{len(shards)} files"
    if missing := [name for name in expected if name not in found]:
        folder = next(iter(shards)).parent
        raise ValueError(f"folder: {folder} ({files_read}) lacks {_some(missing)}")
    for path, names in shards.items():
        if extra := [name for name in names if name not in expected]:
            raise ValueError(f"folder: {path} holds {_some(extra)}, which the model of its config.json does not have")
        with _open(path) as file:
            for name in names:
                stored, shape = file.get_slice(name), list(expected[name])
                if list(stored.get_shape()) != shape:
                    raise ValueError(
                        f"folder: {path} holds {name} as {stored.get_shape()}, its config.json says {shape}"
                    )
                if stored.get_dtype() not in ("F64", "F32", "F16", "BF16"):
                    raise ValueError(
                        f"folder: {path} holds {name} as {stored.get_dtype()}, allowed are 64, 32 and 16 bit floats"
                    )


def _names_in(path: Path) -> list[str]:
    with _open(path) as file:
        return list(file.keys())


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise ValueError(f"folder: the file {path} is missing")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"folder: {path} is truncated or no safetensors file: {error}") from error


def _split(tensors: Iterator[tuple[str, Tensor]], limit: int) -> list[dict[str, Tensor]]:
    """Runs of tensors of at most `limit` bytes each; a larger tensor stands alone."""
    groups: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors:
        if groups[-1] and size + tensor.nbytes > limit:
            groups.append({})
            size = 0
        groups[-1][name] = tensor
        size += tensor.nbytes
    return groups


def _bytes(size: int | str) -> int:
    match = re.fullmatch(r"(\d+)\s*(|KB|MB|GB)", str(size).strip().upper())
    if match is None or int(match.group(1)) == 0:
        raise ValueError(f"max_shard_size: got {size!r}, allowed is a number of bytes, or one with KB, MB or GB")
    return int(match.group(1)) * {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}[match.group(2)]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
