"""Text cases: logits and hidden states under the block mask and with full attention, and generated ids."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from unimodal.backbone import MaskedDiffusionTransformer, block_causal_mask
from unimodal.checkpoint import load_backbone
from unimodal.diffusion.sampler import SamplingOptions, SamplingTask, sample

TOLERANCE = 2e-4


def cases(folder: Path) -> list[str]:
    listed = [f"generate.{index}" for index in range(len(_options(folder).get("generate", [])))]
    forwards = sorted({name.split(".")[0] for name in _names(folder)} & {"block_causal", "bidirectional"})
    return [*forwards, *listed]


def run(folder: Path, case: str) -> None:
    model = load_backbone(folder, device="cpu", dtype=torch.float32)
    kind, _, index = case.partition(".")
    with torch.no_grad():
        if kind == "generate":
            _generate(folder, model, case, _options(folder)["generate"][int(index)])
        else:
            _forward(folder, model, case)


def _forward(folder: Path, model: MaskedDiffusionTransformer, case: str) -> None:
    tokens = _tensor(folder, f"{case}.input_ids")
    mask = None
    if f"{case}.block_length" in _names(folder):
        mask = block_causal_mask(tokens.shape[1], int(_tensor(folder, f"{case}.block_length")))
    output = model(tokens, attention_mask=mask, return_hidden=True)
    _assert_close(output.logits, _tensor(folder, f"{case}.logits"))
    assert output.hidden_states is not None
    for index, state in enumerate(output.hidden_states):
        if f"{case}.hidden_states.{index}" in _names(folder):
            _assert_close(state, _tensor(folder, f"{case}.hidden_states.{index}"))


def _generate(folder: Path, model: MaskedDiffusionTransformer, case: str, options: dict[str, Any]) -> None:
    prompt = _tensor(folder, f"{case}.prompt")
    result = sample(
        model,
        [SamplingTask(prompt=row.tolist(), length=options["gen_length"]) for row in prompt],
        SamplingOptions(
            num_inference_steps=options["steps"],
            block_length=options["block_length"],
            threshold=options["threshold"],
            temperature=options["temperature"],
            eos_early_stop=options["eos_early_stop"],
        ),
        mask_id=options["mask_id"],
        stop_ids=[options["eos_id"]],
    )
    for ours, reference in zip(result.tokens, _tensor(folder, f"{case}.output"), strict=True):
        assert ours.tolist() == reference.tolist()


def _assert_close(ours: torch.Tensor, reference: torch.Tensor) -> None:
    torch.testing.assert_close(ours, reference, rtol=0.0, atol=TOLERANCE)


def _options(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "cases_text.json").read_text(encoding="utf-8"))


def _names(folder: Path) -> list[str]:
    with safe_open(folder / "cases_text.safetensors", framework="pt") as file:
        return list(file.keys())


def _tensor(folder: Path, name: str) -> torch.Tensor:
    with safe_open(folder / "cases_text.safetensors", framework="pt") as file:
        return file.get_tensor(name)
