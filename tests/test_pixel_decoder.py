"""A small decoder with odd sizes: against the library's forward, in batches, of any shape, and through its files."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unimodal_decoders import flow
from unimodal_decoders.autoencoder import (
    build_autoencoder,
    decode_latents,
    downsampling,
    encode_latents,
    load_autoencoder,
    save_autoencoder,
)
from unimodal_decoders.conditioner import Conditioner, build_conditioner
from unimodal_decoders.pixel_decoder import PixelDecoder
from unimodal_decoders.rotary import places, rotate, rotation
from unimodal_decoders.transformer import (
    build_transformer,
    initialise_gates,
    load_transformer,
    save_transformer,
    velocity,
)

DECODER = {
    "dim": 40,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "cap_feat_dim": 24,
    "axes_dims": [6, 6, 8],
    "axes_lens": [400, 30, 30],
}
VAE = {
    "block_out_channels": [8, 8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "latent_channels": 16,
    "norm_num_groups": 4,
    "scaling_factor": 0.7,
    "shift_factor": 0.2,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
CODEBOOK = 51


def randomise(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.15 + (weight.ndim == 1) * 0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint's three decoder parts, saved; nothing else is in it."""
    root = tmp_path_factory.mktemp("checkpoint")
    conditioner = build_conditioner({"vocab_size": CODEBOOK, "inner_dim": 24})
    autoencoder = build_autoencoder(VAE)
    randomise(conditioner, 0)
    randomise(autoencoder, 1)
    conditioner.save_pretrained(root / "image_tokenizer")
    save_autoencoder(autoencoder, root / "vae")
    for seed, name in ((2, "decoder"), (3, "decoder-turbo")):
        transformer = build_transformer(DECODER)
        randomise(transformer, seed)
        save_transformer(transformer, root / name)
    return root


@pytest.fixture
def decoder(folder: Path) -> PixelDecoder:
    return PixelDecoder.from_pretrained(folder)


def draw_codes(batch: int, height: int, width: int) -> Tensor:
    return torch.randint(CODEBOOK, (batch, height, width), generator=torch.Generator().manual_seed(7))


def seeds(*values: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(value) for value in values]


@pytest.mark.parametrize(("height", "width", "multiplier"), [(1, 1, 2), (3, 2, 2), (2, 5, 1), (4, 4, 2), (1, 3, 3)])
def test_velocity_is_the_library_s(decoder: PixelDecoder, height: int, width: int, multiplier: int) -> None:
    transformer = decoder.transformer("normal")
    shape = (3, 16, 2 * height * multiplier, 2 * width * multiplier)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([0.0, 0.4, 1.0])
    with torch.no_grad():
        features = decoder.conditioner(draw_codes(3, height, width))
        expected = torch.cat(transformer(list(latents[:, :, None]), times, list(features)).sample, dim=1)
        result = velocity(transformer, latents, times, features)
    torch.testing.assert_close(result, expected.transpose(0, 1), rtol=1e-4, atol=1e-5)


def test_gradients_are_the_library_s(decoder: PixelDecoder) -> None:
    ours, library = (copy.deepcopy(decoder.transformer("normal")) for _ in range(2))
    ours.enable_gradient_checkpointing()
    latents = torch.randn(2, 16, 4, 8, generator=torch.Generator().manual_seed(0))
    times, features = torch.tensor([0.2, 0.7]), decoder.conditioner(draw_codes(2, 1, 2)).detach()
    velocity(ours.train(), latents, times, features).square().sum().backward()
    torch.stack(library(list(latents[:, :, None]), times, list(features)).sample).square().sum().backward()
    for (name, weight), twin in zip(ours.named_parameters(), library.named_parameters(), strict=True):
        assert weight.grad is not None and twin[1].grad is not None, name
        torch.testing.assert_close(weight.grad, twin[1].grad, rtol=1e-3, atol=1e-3)


def test_the_compilable_rotation_is_the_complex_one(monkeypatch: pytest.MonkeyPatch) -> None:
    positions = torch.tensor([[0.0, 0, 0], [3, 1, 2], [99, 7, 5]], dtype=torch.float64)
    turns = rotation(positions, (4, 6, 2), 100.0, torch.device("cpu"))
    assert turns.shape == (1, 3, 6, 2)
    angle = 7 * 100 ** (-2 / 6)  # second frequency of the second axis, at position 7
    assert turns[0, 2, 3].tolist() == pytest.approx([math.cos(angle), math.sin(angle)], abs=1e-6)
    vectors = torch.randn(2, 3, 5, 12)
    expected = rotate(vectors, turns)
    torch.testing.assert_close(rotate(vectors, torch.view_as_complex(turns)), expected)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(rotate(vectors, turns), expected)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2), (2, 5)])
@pytest.mark.parametrize("variant", ["turbo", "normal"])
def test_any_grid_becomes_pixels(decoder: PixelDecoder, variant: str, height: int, width: int) -> None:
    codes = draw_codes(1, height, width)
    pixels = decoder.decode(codes, variant, num_steps=2, generator=seeds(0)[0])  # type: ignore[arg-type]
    assert pixels.shape == (1, 3, 32 * height, 32 * width) and pixels.dtype == torch.float32
    assert -1 <= pixels.min() < pixels.max() <= 1
    small = decoder.decode(codes, variant, 2, seeds(0)[0], resolution_multiplier=1)  # type: ignore[arg-type]
    assert small.shape == (1, 3, 16 * height, 16 * width)


@pytest.mark.parametrize("variant", ["turbo", "normal"])
def test_a_batch_is_its_pictures(decoder: PixelDecoder, variant: str) -> None:
    codes = draw_codes(3, 2, 3)
    together = decoder.decode(codes, variant, 3, seeds(5, 6, 7))  # type: ignore[arg-type]
    for row in range(3):
        alone = decoder.decode(codes[row : row + 1], variant, 3, seeds(5 + row))  # type: ignore[arg-type]
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-4)
    again = decoder.decode(codes, variant, 3, seeds(5, 6, 7))  # type: ignore[arg-type]
    assert torch.equal(again, together)


def test_guidance_is_two_single_passes(decoder: PixelDecoder) -> None:
    codes, latents = draw_codes(2, 2, 2), torch.randn(2, 16, 8, 8, generator=seeds(0)[0])
    times, transformer = torch.tensor([0.1, 0.6]), decoder.transformer("normal")
    with torch.no_grad():
        features = decoder.conditioner(codes)
        conditional = velocity(transformer, latents, times, features)
        unconditional = velocity(transformer, latents, times, torch.zeros_like(features))
        result = decoder.velocity_field(codes, "normal", 0.8)(latents, times)
    torch.testing.assert_close(result, flow.guided(conditional, unconditional, 0.8), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(result, conditional, atol=1e-3)


def test_each_step_is_reported_and_the_last_one_is_the_picture(decoder: PixelDecoder) -> None:
    seen: list[flow.FlowState] = []
    pixels = decoder.decode(draw_codes(1, 2, 2), num_steps=3, generator=seeds(1)[0], callback=seen.append)
    assert [(state.step, state.num_steps) for state in seen] == [(1, 3), (2, 3), (3, 3)]
    assert not seen[0].latents.requires_grad
    assert torch.equal(decoder.pixels(seen[-1].estimate), pixels)


def test_transformers_are_read_when_used_and_forgotten_when_released(decoder: PixelDecoder) -> None:
    first = decoder.transformer("turbo")
    assert decoder.transformer("turbo") is first
    decoder.release("turbo")
    assert decoder.transformer("turbo") is not first


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"codes": torch.zeros(2, 2, dtype=torch.long)}, "codes"),
        ({"codes": torch.zeros(1, 2, 2)}, "codes"),
        ({"codes": torch.full((1, 2, 2), CODEBOOK)}, f"codes: values {CODEBOOK}"),
        ({"codes": torch.full((1, 2, 2), -1)}, "codes"),
        ({"codes": torch.zeros(1, 0, 2, dtype=torch.long)}, "codes"),
        ({"decoder": "fast"}, "decoder"),
        ({"num_steps": 0}, "num_steps"),
        ({"decoder": "normal", "num_steps": 1}, "num_steps"),
        ({"resolution_multiplier": 0}, "resolution_multiplier"),
        ({"generator": seeds(1, 2)}, "generator"),
    ],
)
def test_bad_requests_name_the_argument(decoder: PixelDecoder, options: dict[str, Any], name: str) -> None:
    request: dict[str, Any] = {"codes": draw_codes(1, 2, 2)} | options
    with pytest.raises(ValueError, match=name):
        decoder.decode(**request)


@pytest.mark.parametrize("variant", ["turbo", "normal"])
def test_half_precision_is_close(decoder: PixelDecoder, folder: Path, variant: Any) -> None:
    half = PixelDecoder.from_pretrained(folder, dtype=torch.bfloat16)
    codes = draw_codes(1, 2, 3)
    expected = decoder.decode(codes, variant, 3, seeds(0)[0])
    result = half.decode(codes, variant, 3, seeds(0)[0])
    assert half.transformer(variant).dtype == torch.bfloat16 and result.dtype == torch.float32
    assert (result - expected).norm() < 0.1 * expected.norm()


def test_an_absent_variant_is_named(decoder: PixelDecoder) -> None:
    bare = PixelDecoder(decoder.conditioner, decoder.autoencoder)
    with pytest.raises(ValueError, match="turbo"):
        bare.decode(draw_codes(1, 2, 2))


def test_files_have_the_published_names(folder: Path) -> None:
    weights = load_file(folder / "decoder" / "decoder_model.safetensors")
    assert weights["semantic_embedder.1.weight"].shape == (40, 24)
    assert not any(key.startswith("cap_embedder") for key in weights)
    sigvq = torch.load(folder / "image_tokenizer" / "sigvq_embedding.pt", weights_only=True)
    assert sorted(sigvq) == [
        "prior_projector.net.0.proj.bias",
        "prior_projector.net.0.proj.weight",
        "prior_projector.net.2.bias",
        "prior_projector.net.2.weight",
        "prior_token_embedding.weight",
    ]
    config = json.loads((folder / "decoder" / "config.json").read_text())
    assert config["cap_feat_dim"] == 24 and "condition_on_grid" not in config
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "config.json",
        "decoder_model.safetensors",
        "diffusion_pytorch_model.safetensors",
        "sigvq_embedding.pt",
    }


def test_published_configurations_may_be_wrong_and_files_renamed(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "decoder" / "config.json").read_text())
    wrong = {"cap_feat_dim": 2560, "axes_lens": [2, 2, 2], "_diffusers_version": "0.0"}
    (tmp_path / "config.json").write_text(json.dumps(config | wrong))
    weights = load_file(folder / "decoder" / "decoder_model.safetensors")
    save_file(weights, tmp_path / "renamed.safetensors")
    expected, transformer = load_transformer(folder / "decoder"), load_transformer(tmp_path)
    latents, features = torch.randn(1, 16, 8, 8), torch.randn(1, 64, 24)
    inputs = latents, torch.tensor([0.3]), features
    with torch.no_grad():
        assert torch.equal(velocity(transformer, *inputs), velocity(expected, *inputs))
    save_file(weights, tmp_path / "second.safetensors")
    with pytest.raises(ValueError, match=r"renamed\.safetensors, second\.safetensors"):
        load_transformer(tmp_path)


@pytest.mark.parametrize("change", ["missing", "extra", "misshapen"])
def test_loading_is_strict(folder: Path, tmp_path: Path, change: str) -> None:
    config = (folder / "decoder" / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    weights = load_file(folder / "decoder" / "decoder_model.safetensors")
    if change == "missing":
        del weights["x_pad_token"]
    else:
        weights["x_pad_token" if change == "misshapen" else "x_pad_token.more"] = torch.zeros(3)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="x_pad_token"):
        load_transformer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(json.loads(config) | {"n_layer": 2}))
    with pytest.raises(ValueError, match="n_layer"):
        load_transformer(tmp_path)


def test_latents_go_through_the_stated_scaling(folder: Path) -> None:
    autoencoder = load_autoencoder(folder / "vae")
    pixels = torch.rand(2, 3, 16, 24, generator=seeds(0)[0]) * 2 - 1
    with torch.no_grad():
        latents = encode_latents(autoencoder, pixels)
        assert downsampling(autoencoder) == 8 and latents.shape == (2, 16, 2, 3)
        raw = autoencoder.encode(pixels).latent_dist.mode()  # type: ignore[union-attr]
        torch.testing.assert_close(latents / 0.7 + 0.2, raw)
        torch.testing.assert_close(decode_latents(autoencoder, latents), autoencoder.decode(raw).sample)  # type: ignore
        drawn = encode_latents(autoencoder, pixels, seeds(3)[0])
    assert not torch.equal(drawn, latents)


def test_features_repeat_each_code_on_a_square() -> None:
    conditioner = build_conditioner({"vocab_size": 70000, "inner_dim": 4})
    codes = torch.tensor([[[69999, 3, 257], [256, 65537, 0]]])
    with torch.no_grad():
        grid = conditioner(codes).view(4, 6, 4)
        for row in range(4):
            for column in range(6):
                code = codes[0, row // 2, column // 2]
                expected = conditioner.prior_projector(conditioner.prior_token_embedding(code))
                torch.testing.assert_close(grid[row, column], expected)
    assert conditioner.zero_features(codes).shape == (1, 24, 4)
    with pytest.raises(ValueError, match="codes"):
        conditioner(codes.float())


def test_the_condition_on_the_grid_is_declared_by_the_decoder(folder: Path, tmp_path: Path) -> None:
    transformer = load_transformer(folder / "decoder")
    codes, latents, times = draw_codes(1, 2, 3), torch.randn(1, 16, 8, 12), torch.tensor([0.5])
    conditioner = Conditioner.from_pretrained(folder / "image_tokenizer")
    with torch.no_grad():
        plain = velocity(transformer, latents, times, conditioner(codes))
        setattr(transformer, "condition_on_grid", True)  # noqa: B010
        placed = velocity(transformer, latents, times, conditioner(codes))
    assert not torch.allclose(placed, plain, atol=1e-4)
    save_transformer(transformer, tmp_path / "decoder")
    assert json.loads((tmp_path / "decoder" / "config.json").read_text())["condition_on_grid"] is True
    with torch.no_grad():
        loaded = velocity(load_transformer(tmp_path / "decoder"), latents, times, conditioner(codes))
    torch.testing.assert_close(loaded, placed)


def test_condition_tokens_on_the_grid_stand_at_the_centre_of_what_they_describe() -> None:
    picture, condition = places(rows=2, columns=3, num_features=6, multiple=4, on_grid=True)
    torch.testing.assert_close(condition[:6, 1:], picture[:6, 1:])
    assert set(condition[:6, 0].tolist()) == {1.0} and condition[6:, 1:].abs().sum() == 0
    # Twice as many features per side as patches: each pair lies a quarter to each side of its patch.
    _, finer = places(rows=1, columns=1, num_features=4, multiple=4, on_grid=True)
    assert finer[:, 1:].tolist() == [[-0.25, -0.25], [-0.25, 0.25], [0.25, -0.25], [0.25, 0.25]]


def test_gates_get_a_head_start() -> None:
    transformer = build_transformer(DECODER)
    key = "layers.0.adaLN_modulation.0.bias"
    before = transformer.state_dict()[key].clone().view(4, -1)
    initialise_gates(transformer, 0.7)
    after = transformer.state_dict()[key].view(4, -1)
    assert (after[[1, 3]] == 0.7).all() and torch.equal(after[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("change", [{"axes_dims": [6, 6, 6]}, {"dim": 41}, {"widths": 3}])
def test_impossible_architectures_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match="config"):
        build_transformer(DECODER | change)


def test_misfitting_inputs_are_refused(decoder: PixelDecoder) -> None:
    transformer = decoder.transformer("normal")
    latents, times, features = torch.zeros(2, 16, 4, 4), torch.zeros(2), torch.zeros(2, 4, 24)
    for inputs, name in (
        ((torch.zeros(2, 16, 4, 3), times, features), "latents"),
        ((latents, torch.zeros(3), features), "timestep"),
        ((latents, times, torch.zeros(2, 4, 25)), "features"),
    ):
        with pytest.raises(ValueError, match=name):
            velocity(transformer, *inputs)
