"""Backbone folders: what is written is what is read, and anything missing, extra or damaged is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_backbone import SIZES, small_backbone
from torch import Tensor

from unimodal import checkpoint
from unimodal.backbone import MaskedDiffusionTransformer
from unimodal.checkpoint import INDEX, WEIGHTS, load_backbone, resolve, save_backbone

CHANGES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "moe_intermediate_size": 8,
    "mask_token_id": 5,
}
EXPERT = "model.layers.1.mlp.experts.2.up_proj.weight"


@pytest.fixture
def model() -> MaskedDiffusionTransformer:
    model, draws = small_backbone(**CHANGES), torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(generator=draws)
    return model


@pytest.fixture
def folder(model: MaskedDiffusionTransformer, tmp_path: Path) -> Path:
    save_backbone(model, tmp_path)
    return tmp_path


def assert_same(ours: MaskedDiffusionTransformer, expected: MaskedDiffusionTransformer) -> None:
    ours_state, expected_state = ours.state_dict(), expected.state_dict()
    assert ours_state.keys() == expected_state.keys()
    for name, tensor in expected_state.items():
        assert torch.equal(ours_state[name], tensor), name


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


# Round trips


def test_round_trip_keeps_every_bit(model: MaskedDiffusionTransformer, folder: Path) -> None:
    loaded = load_backbone(folder)
    assert_same(loaded, model)
    assert not loaded.training
    assert loaded.config.to_published() == model.config.to_published()


def test_weights_have_published_names_and_shapes(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    assert weights[EXPERT].shape == (8, 16)
    assert weights["model.layers.0.attention.query_key_value.weight"].shape == (32, 16)
    assert weights["model.layers.1.mlp.gate.expert_bias"].shape == (4,)
    assert "lm_head.weight" in weights and "model.word_embeddings.weight" in weights


def test_config_states_every_field(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    assert content["model_type"] == "llada2_moe" and content["architectures"] == ["LLaDA2MoeModelLM"]
    stated = {**SIZES, **CHANGES}
    assert {name: content[name] for name in stated} == stated
    assert content["rope_parameters"]["rope_theta"] == content["rope_theta"] == 1000.0
    assert content["torch_dtype"] == "float32"


def test_shards_round_trip_and_replace_each_other(model: MaskedDiffusionTransformer, folder: Path) -> None:
    written = save_backbone(model, folder, max_shard_size="4KB")
    assert len(written) > 4 and {path.name for path in folder.iterdir()} == {path.name for path in written}
    index = json.loads((folder / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in model.state_dict().values())
    assert_same(load_backbone(folder), model)
    save_backbone(model, folder)
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, "config.json"}
    assert_same(load_backbone(folder), model)


def test_a_failed_save_leaves_the_old_files(
    model: MaskedDiffusionTransformer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "_write_json", fail)
    with pytest.raises(OSError, match="disk full"):
        save_backbone(model, folder, max_shard_size=2000)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_dtypes_on_disk_may_be_mixed(model: MaskedDiffusionTransformer, folder: Path) -> None:
    # As published: routed experts in float32, everything else in bfloat16.
    def as_published(tensors: dict[str, Tensor]) -> None:
        tensors |= {name: value.bfloat16() for name, value in tensors.items() if ".experts." not in name}

    rewrite(folder / WEIGHTS, as_published)
    loaded = load_backbone(folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert torch.equal(loaded.head.weight, model.head.weight.bfloat16())
    experts, original = loaded.state_dict(), model.state_dict()
    name = "layers.1.feed_forward.experts.gate_up_proj"
    assert torch.equal(experts[name], original[name].bfloat16())


def test_the_selection_bias_keeps_its_precision(model: MaskedDiffusionTransformer, folder: Path) -> None:
    loaded = load_backbone(folder, dtype=torch.bfloat16)
    assert torch.equal(loaded.routers()[0].expert_bias, model.routers()[0].expert_bias)


def test_reference_checkpoints_survive_a_round_trip(golden: Path, tmp_path: Path) -> None:
    for source in sorted(path for path in golden.iterdir() if (path / WEIGHTS).is_file()):
        save_backbone(load_backbone(source), tmp_path)
        ours, reference = load_file(tmp_path / WEIGHTS), load_file(source / WEIGHTS)
        assert ours.keys() == reference.keys()
        assert all(torch.equal(ours[name], reference[name]) for name in reference)
        stated = json.loads((source / "config.json").read_text())
        written = json.loads((tmp_path / "config.json").read_text())
        assert {key: written.get(key) for key in stated} == stated


# Refusals


def test_a_missing_tensor_is_named(folder: Path) -> None:
    rewrite(folder / WEIGHTS, lambda tensors: tensors.pop(EXPERT))
    with pytest.raises(ValueError, match=rf"{WEIGHTS}.* lacks {EXPERT}"):
        load_backbone(folder)


@pytest.mark.parametrize("name", ["model.layers.1.mlp.experts.4.up_proj.weight", "model.layers.0.mlp.gate.weight", "x"])
def test_an_extra_tensor_is_named(folder: Path, name: str) -> None:
    rewrite(folder / WEIGHTS, lambda tensors: tensors.update({name: torch.zeros(8, 16)}))
    with pytest.raises(ValueError, match=rf"{WEIGHTS} holds {name}"):
        load_backbone(folder)


def test_a_misshapen_tensor_is_named(folder: Path) -> None:
    rewrite(folder / WEIGHTS, lambda tensors: tensors.update({EXPERT: torch.zeros(16, 8)}))
    with pytest.raises(ValueError, match=rf"{WEIGHTS} holds {EXPERT} as \[16, 8\].*\[8, 16\]"):
        load_backbone(folder)


def test_a_tensor_of_integers_is_named(folder: Path) -> None:
    rewrite(folder / WEIGHTS, lambda tensors: tensors.update({EXPERT: torch.zeros(8, 16, dtype=torch.int8)}))
    with pytest.raises(ValueError, match=f"{EXPERT} as I8"):
        load_backbone(folder)


@pytest.mark.parametrize("kept", [0, 5, 0.5, -1])
def test_a_truncated_file_is_named(folder: Path, kept: float) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=f"{WEIGHTS} is truncated"):
        load_backbone(folder)


def test_mislabelled_shards_are_refused(model: MaskedDiffusionTransformer, folder: Path) -> None:
    save_backbone(model, folder, max_shard_size=4000)
    original = json.loads((folder / INDEX).read_text())
    shards = sorted(set(original["weight_map"].values()))
    home = original["weight_map"][EXPERT]
    elsewhere = next(shard for shard in shards if shard != home)

    def with_map(change: dict[str, str | None]) -> None:
        changed = {**original["weight_map"], **change}
        kept = {name: file for name, file in changed.items() if file is not None}
        (folder / INDEX).write_text(json.dumps({**original, "weight_map": kept}))

    with_map({EXPERT: elsewhere})
    with pytest.raises(ValueError, match=f"{EXPERT} in {elsewhere}, but it is in {home}"):
        load_backbone(folder)
    with_map({EXPERT: None})
    with pytest.raises(ValueError, match=f"{home} holds {EXPERT}"):
        load_backbone(folder)
    with_map({"model.ghost": home})
    with pytest.raises(ValueError, match=r"model\.ghost in .* no file holds it"):
        load_backbone(folder)
    with_map({})
    (folder / elsewhere).unlink()
    with pytest.raises(ValueError, match=f"{elsewhere} is missing"):
        load_backbone(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "model_type"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"num_hidden_layers": 3}, r"lacks model\.layers\.2\."),
        ({"vocab_size": 61}, r"lm_head\.weight as \[60, 16\].*\[61, 16\]"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder: Path, change: dict[str, object], message: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        load_backbone(folder)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ValueError, match=name):
        load_backbone(folder)


@pytest.mark.parametrize("size", ["5 parsecs", 0, "-1GB"])
def test_a_shard_size_that_is_none_is_refused(model: MaskedDiffusionTransformer, tmp_path: Path, size: str) -> None:
    with pytest.raises(ValueError, match="max_shard_size"):
        save_backbone(model, tmp_path, max_shard_size=size)
    assert not list(tmp_path.iterdir())


# Finding


def test_a_folder_is_itself(folder: Path) -> None:
    assert resolve(folder) == resolve(str(folder)) == folder


@pytest.mark.parametrize("name", ["no-such-checkpoint", "./no/such/folder", "a/b/c", ""])
def test_a_name_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name_or_path"):
        resolve(name)


def test_a_hub_id_that_is_not_cached_is_refused_offline() -> None:
    with pytest.raises(ValueError, match="owner/no-such-name"):
        resolve("owner/no-such-name", local_files_only=True)


def test_only_wanted_parts_are_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, object] = {}

    def snapshot_download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert resolve("owner/name", revision="main", parts=("backbone", "vae")) == tmp_path
    patterns = asked["allow_patterns"]
    assert isinstance(patterns, list)
    assert "vae/*.safetensors" in patterns and not any("decoder" in pattern for pattern in patterns)
    assert not any(pattern.endswith((".py", "*")) for pattern in patterns)
    assert asked["revision"] == "main"
    with pytest.raises(ValueError, match="parts"):
        resolve("owner/name", parts=("weights",))
