"""Cases of drawing, editing and understanding: prompts, ids and codes of the published code at temperature 0."""

import functools
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from unimodal.backbone import block_causal_mask
from unimodal.checkpoint import load_backbone
from unimodal.components import read_patch_size, read_vocab
from unimodal.diffusion.guidance import edit_guidance, prompt_guidance
from unimodal.diffusion.sampler import SamplingOptions
from unimodal.picture_input import DRAWN_SCALE
from unimodal.sequence import SequenceBuilder
from unimodal.settings import Settings
from unimodal.writer import Writer, drained
from unimodal_tokenizers.text import TextTokenizer

KINDS = ("t2i", "edit", "understand")
FORWARD, FORWARD_BLOCK_LENGTH = "forward", 32
TOLERANCE = 2e-4


def cases(folder: Path) -> list[str]:
    """The names of a folder's cases."""
    listed = _listed(folder)
    names = [case["name"] for kind in KINDS for case in listed.get(kind, [])]
    with safe_open(folder / "cases_tasks.safetensors", "pt") as file:
        return names + [FORWARD] * any(key.startswith(f"{FORWARD}.") for key in file.keys())  # noqa: SIM118


def run(folder: Path, case: str) -> None:
    """Runs one case; an AssertionError tells where it differs."""
    writer = _writer(folder)
    expected = _tensors(folder, case)
    if case == FORWARD:
        tokens = expected["input_ids"]
        mask = block_causal_mask(tokens.shape[1], FORWARD_BLOCK_LENGTH)
        with torch.no_grad():
            logits = writer.model(tokens, attention_mask=mask).logits
        torch.testing.assert_close(logits, expected["logits"], atol=TOLERANCE, rtol=0)
        return
    kind, options = next(
        (kind, case_) for kind in KINDS for case_ in _listed(folder).get(kind, []) if case_["name"] == case
    )
    if kind == "t2i":
        patch = read_patch_size(folder)
        assert [options[side] // DRAWN_SCALE // patch for side in ("image_h", "image_w")] == [
            options["h"],
            options["w"],
        ]
    for use_cache in (True, False):
        writer = Writer(writer.model, writer.sequences, use_cache=use_cache)
        {"t2i": _draw, "edit": _edit, "understand": _understand}[kind](writer, options, expected)


def _draw(writer: Writer, case: dict[str, Any], expected: dict[str, torch.Tensor]) -> None:
    size = case["h"], case["w"]
    branches = writer.sequences.generation(case["prompt"], *size)
    guidance = prompt_guidance(case["cfg_scale"])
    settings = Settings.published().generate
    [codes] = drained(writer.picture_steps([branches], [size], _options(case, settings.threshold), guidance))
    _check_picture(writer, branches.prompt, codes, expected)


def _edit(writer: Writer, case: dict[str, Any], expected: dict[str, torch.Tensor]) -> None:
    size = case["h"], case["w"]
    source = expected["source_tokens"].reshape(case["source_h"], case["source_w"])
    branches = writer.sequences.editing([source], case["instruction"], *size)
    guidance = edit_guidance(case["cfg_text_scale"], case["cfg_image_scale"])
    settings = Settings.published().edit
    [codes] = drained(writer.picture_steps([branches], [size], _options(case, settings.threshold), guidance))
    _check_picture(writer, branches.prompt, codes, expected)


def _understand(writer: Writer, case: dict[str, Any], expected: dict[str, torch.Tensor]) -> None:
    source = expected["source_tokens"].reshape(case["source_h"], case["source_w"])
    prompt = writer.sequences.understanding([source], case["question"], case["prompt_style"])
    assert prompt == expected["prompt_ids"].flatten().tolist()
    [answer] = drained(writer.text_steps([prompt], _options(case, case["threshold"]), case["gen_length"]))
    assert [*prompt, *answer.tolist()] == expected["sequence"].flatten().tolist()


def _check_picture(writer: Writer, prompt: list[int], codes: torch.Tensor, expected: dict[str, torch.Tensor]) -> None:
    assert prompt == expected["prompt_ids"].flatten().tolist()
    assert codes.flatten().tolist() == expected["token_ids"].flatten().tolist()
    tokens = writer.sequences.vocab.codes_to_tokens(codes).flatten().tolist()
    assert [*prompt, *tokens] == expected["sequence"].flatten().tolist()


def _options(case: dict[str, Any], threshold: float) -> SamplingOptions:
    """A SPRINT case keeps the whole prefix, so only its unmasking rule is left of it; guided editing has none of it."""
    guided_edit = bool(case.get("cfg_text_scale") or case.get("cfg_image_scale"))
    return SamplingOptions(
        num_inference_steps=case["steps"],
        block_length=case["block_length"],
        threshold=threshold,
        policy="adaptive" if case.get("use_sprint", False) and not guided_edit else "quota",
    )


@functools.lru_cache(maxsize=1)
def _writer(folder: Path) -> Writer:
    text_tokenizer = TextTokenizer.from_pretrained(folder)
    model = load_backbone(folder, device="cpu", dtype=torch.float32)
    vocab = read_vocab(folder, model.config, text_tokenizer)
    return Writer(model, SequenceBuilder(text_tokenizer, vocab))


def _listed(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "cases_tasks.json").read_text(encoding="utf-8"))


def _tensors(folder: Path, case: str) -> dict[str, torch.Tensor]:
    with safe_open(folder / "cases_tasks.safetensors", "pt") as file:
        keys = [key for key in file.keys() if key.startswith(f"{case}.")]  # noqa: SIM118
        return {key.removeprefix(f"{case}."): file.get_tensor(key) for key in keys}
