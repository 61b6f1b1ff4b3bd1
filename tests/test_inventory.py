"""Counts of the published model, known from its weight files, and that every model size has the same keys."""

import pytest
import torch

import unimodal_configs
from unimodal.inventory import ComponentInventory, inventory


def by_name(model: str) -> dict[str, ComponentInventory]:
    return {component.name: component for component in inventory(model)}


def test_counts_of_the_published_model() -> None:
    found = by_name("uni_16b")
    assert {name: component.parameters for name, component in found.items() if name != "vae"} == {
        "backbone": 16_322_747_392,
        "image_tokenizer": 1_199_457_280,
        "conditioner": 100_671_488,
        "decoder": 6_160_808_512,
    }
    tensors = {name: found[name].tensors for name in ("backbone", "image_tokenizer", "decoder")}
    assert tensors == {"backbone": 14_813, "image_tokenizer": 488, "decoder": 521}
    assert found["backbone"].buffers == 4_864  # one selection bias for each expert of 19 layers
    # The published decoder file holds this many bytes of bfloat16.
    assert found["decoder"].memory(torch.bfloat16) == 12_321_617_024
    # 8 of 256 experts are used: 1/32 of 15,300,820,992 routed parameters, and everything else.
    assert found["backbone"].active_parameters == 16_322_747_392 - 15_300_820_992 * 31 // 32


def test_all_sizes_have_the_same_keys() -> None:
    def keys(value: object) -> object:
        return {key: keys(inner) for key, inner in value.items()} if isinstance(value, dict) else None

    sizes = [keys(unimodal_configs.read("models", name)) for name in unimodal_configs.names("models")]
    assert len(sizes) >= 2
    assert all(size == sizes[0] for size in sizes)


def test_tiny_is_counted_without_its_weights() -> None:
    found = by_name("tiny")
    assert 0 < found["backbone"].active_parameters < found["backbone"].parameters


def test_a_missing_section_is_named() -> None:
    sections = unimodal_configs.read("models", "tiny")
    del sections["vae"]
    with pytest.raises(ValueError, match="vae"):
        inventory(sections)
