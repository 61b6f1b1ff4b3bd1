"""Reference cases of the pixel decoder: features, velocities, both samplers and pixels of a checkpoint folder."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from unimodal_decoders import flow
from unimodal_decoders.pixel_decoder import PixelDecoder

NAME = "cases_decoder"
TOLERANCE = 2e-4


def cases(folder: Path) -> list[str]:
    """The names `run` takes, one per case of the folder; none without such a file."""
    if not (folder / f"{NAME}.json").is_file():
        return []
    return [case["name"] for case in _description(folder)["cases"]]


def run(folder: Path, case: str) -> None:
    """Fails unless every recorded tensor of the case is met within 2e-4."""
    description = next(entry for entry in _description(folder)["cases"] if entry["name"] == case)
    prefix = f"{case}."
    tensors = {
        key.removeprefix(prefix): value
        for key, value in load_file(folder / f"{NAME}.safetensors").items()
        if key.startswith(prefix)
    }
    decoder = PixelDecoder.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        _check(decoder, description, tensors)


def _description(folder: Path) -> dict[str, Any]:
    return json.loads((folder / f"{NAME}.json").read_text(encoding="utf-8"))


def _check(decoder: PixelDecoder, case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    height, width = case["h"], case["w"]
    codes = tensors["token_ids"].view(1, height, width)
    upsampled = codes[0].repeat_interleave(2, 0).repeat_interleave(2, 1).flatten()
    assert torch.equal(upsampled, tensors["upsampled_ids"])
    _close(decoder.conditioner(codes)[0], tensors["semantic_features"])

    noise = _drop_frame(tensors["noise"])
    plain = decoder.velocity_field(codes, "normal", 0.0)
    with_guidance = decoder.velocity_field(codes, "normal", 1.0)
    for key, expected in tensors.items():
        kind, separator, time = key.partition("_t")
        if separator and kind in ("velocity", "velocity_cfg1"):
            field = plain if kind == "velocity" else with_guidance
            _close(field(noise, torch.tensor([float(time)])), _drop_frame(expected))

    *_, normal = flow.euler(with_guidance, noise, case["num_steps_normal"])
    step_noise = iter([_drop_frame(draw) for draw in tensors["turbo_step_noise"]])
    field = decoder.velocity_field(codes, "turbo", 0.0)
    *_, turbo = flow.turbo(field, noise, case["num_steps_turbo"], step_noise)
    for name, state in (("normal", normal), ("turbo", turbo)):
        _close(state.latents.float(), tensors[f"latents_{name}"])
        pixels = decoder.pixels(state.latents)
        assert pixels.shape[2:] == (case["height"], case["width"])
        _close((pixels + 1) / 2, tensors[f"pixels_{name}"])


def _drop_frame(latents: Tensor) -> Tensor:
    """[B, C, 1, Y, X] to [B, C, Y, X]."""
    return latents.squeeze(2)


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE)
