"""The batched image tokenizer against the library's own forward, and its files."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unimodal_tokenizers.siglip_vq import ImageTokenizer

CONFIG = {
    "vision_config": {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_heads": 3,
        "depth": 2,
        "patch_size": 6,
        "image_size": 30,
        "in_channels": 3,
        "hidden_act": "gelu",
        "attention_bias": True,
        "layer_norm_eps": 1e-6,
    },
    "vq_config": {"num_embeddings": 37, "embed_dim": 10, "latent_channels": 24},
}


@pytest.fixture
def tokenizer() -> ImageTokenizer:
    torch.manual_seed(0)
    tokenizer = ImageTokenizer.from_config(CONFIG).eval()
    with torch.no_grad():
        for weight in tokenizer.parameters():
            weight.normal_(std=0.2)
    return tokenizer


@pytest.fixture
def pixels() -> torch.Tensor:
    """Neither square nor the size of the position table."""
    return torch.rand(3, 3, 18, 42, generator=torch.Generator().manual_seed(1)) * 2 - 1


def library_inputs(pixels: torch.Tensor, patch: int) -> tuple[torch.Tensor, torch.Tensor]:
    grid = pixels.unflatten(3, (-1, patch)).unflatten(2, (-1, patch)).permute(0, 2, 4, 1, 3, 5)
    thw = torch.tensor([[1, grid.shape[1], grid.shape[2]]] * len(pixels))
    return grid.flatten(3).flatten(0, 2), thw


def test_features_are_those_of_the_library(tokenizer: ImageTokenizer, pixels: torch.Tensor) -> None:
    with torch.no_grad():
        patches, grid = library_inputs(pixels, tokenizer.patch_size)
        expected = tokenizer.vision(patches, grid_thw=grid).last_hidden_state
        features = tokenizer.features(pixels)
    assert features.shape == (3, 3, 7, 24)
    torch.testing.assert_close(features.flatten(0, 2), expected, rtol=1e-5, atol=1e-5)


def test_codes_are_those_of_the_library(tokenizer: ImageTokenizer, pixels: torch.Tensor) -> None:
    with torch.no_grad():
        expected = tokenizer.quantizer.encode(tokenizer.features(pixels).permute(0, 3, 1, 2)).image_tokens
    codes = tokenizer.encode(pixels)
    assert codes.shape == (3, 3, 7) and codes.dtype == torch.int64
    assert expected is not None and torch.equal(codes.flatten(), expected)
    assert len(codes.unique()) > 5


def test_a_batch_is_its_pictures(tokenizer: ImageTokenizer, pixels: torch.Tensor) -> None:
    single = torch.cat([tokenizer.encode(picture[None]) for picture in pixels])
    assert torch.equal(tokenizer.encode(pixels), single)


def test_gradients_reach_every_used_weight_with_and_without_checkpointing(
    tokenizer: ImageTokenizer, pixels: torch.Tensor
) -> None:
    plain, checkpointed = tokenizer.train(), copy.deepcopy(tokenizer)
    checkpointed.gradient_checkpointing = True
    for model in (plain, checkpointed):
        model.project(model.features(pixels)).square().mean().backward()
    unused = ("quantize.embedding", "post_quant_conv")
    for (name, weight), twin in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        if any(part in name for part in unused):
            continue
        assert weight.grad is not None and twin.grad is not None, name
        torch.testing.assert_close(weight.grad, twin.grad)


def test_autocast_trains_in_half_precision(tokenizer: ImageTokenizer, pixels: torch.Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        projected = tokenizer.project(tokenizer.features(pixels))
    assert projected.dtype == torch.bfloat16
    with torch.no_grad():
        exact = tokenizer.project(tokenizer.features(pixels))
    assert (projected.float() - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("shape", [(3, 18, 42), (1, 4, 18, 42), (1, 3, 18, 40), (1, 3, 0, 42)])
def test_other_shapes_are_refused(tokenizer: ImageTokenizer, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="pixels"):
        tokenizer.encode(torch.zeros(shape))


def test_integer_pixels_are_refused(tokenizer: ImageTokenizer) -> None:
    with pytest.raises(ValueError, match="uint8"):
        tokenizer.encode(torch.zeros(1, 3, 6, 6, dtype=torch.uint8))


def test_saved_files_load_with_the_same_codes(tokenizer: ImageTokenizer, pixels: torch.Tensor, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "new" / "image_tokenizer")
    folder = tmp_path / "new" / "image_tokenizer"
    assert {p.name for p in folder.iterdir()} == {"config.json", "preprocessor_config.json", "model.safetensors"}
    weights = load_file(folder / "model.safetensors")
    assert weights["model.visual.blocks.1.attn.qkv.weight"].shape == (72, 24)
    assert weights["model.vqmodel.quantize.embedding.weight"].shape == (37, 10)
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    assert preprocessor["patch_size"] == 6 and preprocessor["merge_size"] == 1
    assert torch.equal(ImageTokenizer.from_pretrained(folder).encode(pixels), tokenizer.encode(pixels))
    assert ImageTokenizer.from_pretrained(folder, dtype=torch.bfloat16).vision.dtype == torch.bfloat16


def test_every_file_is_read_and_foreign_keys_are_ignored(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    parts = [{k: v for k, v in weights.items() if k.startswith(p)} for p in ("model.visual.", "model.vqmodel.")]
    save_file(parts[0] | {"model.language_model.norm.weight": torch.zeros(2)}, tmp_path / "image_tokenizer.safetensors")
    save_file(parts[1], tmp_path / "other.safetensors")
    ImageTokenizer.from_pretrained(tmp_path)
    # With an index, only the shards it names count.
    save_file({"model.visual.stray": torch.zeros(1)}, tmp_path / "stray.safetensors")
    with pytest.raises(ValueError, match="stray"):
        ImageTokenizer.from_pretrained(tmp_path)
    places = dict.fromkeys(parts[0], "image_tokenizer.safetensors") | dict.fromkeys(parts[1], "other.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    ImageTokenizer.from_pretrained(tmp_path)


def test_a_missing_or_misshapen_tensor_is_named(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    path, key = tmp_path / "model.safetensors", "model.vqmodel.quant_conv.bias"
    weights = load_file(path)
    save_file({k: v for k, v in weights.items() if k != key}, path)
    with pytest.raises(ValueError, match=r"quant_conv\.bias"):
        ImageTokenizer.from_pretrained(tmp_path)
    save_file(weights | {key: torch.zeros(11)}, path)
    with pytest.raises(ValueError, match=r"quant_conv\.bias"):
        ImageTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"config\.json"):
        ImageTokenizer.from_pretrained(tmp_path / "absent")


def test_flat_configurations_and_a_merge_size_of_two(tokenizer: ImageTokenizer, pixels: torch.Tensor) -> None:
    flat = CONFIG["vision_config"] | CONFIG["vq_config"] | {"spatial_merge_size": 2, "model_type": "glm_image"}
    other = ImageTokenizer.from_config(flat).eval()
    other.load_state_dict(tokenizer.state_dict())
    assert torch.equal(other.encode(pixels), tokenizer.encode(pixels))
    with pytest.raises(ValueError, match="vision_config"):
        ImageTokenizer.from_config({"vq_config": CONFIG["vq_config"]})
    with pytest.raises(ValueError, match="latent_channels"):
        ImageTokenizer.from_config(CONFIG | {"vq_config": CONFIG["vq_config"] | {"latent_channels": 8}})
