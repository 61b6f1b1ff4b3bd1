"""Every stage on the smallest model: from nothing to a folder that draws, stopped and continued, on two processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import unimodal
from unimodal.training.run import STAGES, run_stage

HERE = Path(__file__).parent
MODEL = f"model={HERE / 'models' / 'smallest.yaml'}"
SHORT = [MODEL, "precision=no", "log_every=1", "evaluate_every=2", "save_every=2", "optimizer.warmup_steps=0"]
OVERRIDES: dict[str, list[str]] = {
    "text-tokenizer": [MODEL, "examples=20"],
    "tokenizer": [
        *(*SHORT, "steps=6", "batch_size=3", "embedding_width=16", "evaluation_pictures=2", "revive_every=1"),
        *("codebook_starts=[0.34, 0.67]", "kmeans_batches=2", "kmeans_iterations=2", "kmeans_background=1.0"),
    ],
    "autoencoder": [
        *(*SHORT, "steps=4", "batch_size=2", "micro_batch_size=1", "whole_batch=1"),
        *("pca_pictures=8", "evaluation_pictures=2"),
    ],
    "decoder": [*SHORT, "steps=2", "batch_size=2", "micro_batch_size=1", "pool=3", "evaluation_pictures=2"],
    "distill": [*SHORT, "steps=2", "batch_size=2", "micro_batch_size=1", "pool=3", "evaluation_pictures=2"],
    "backbone": [*SHORT, "steps=4", "batch_size=4", "evaluation_samples=2"],
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every stage has trained into."""
    folder = tmp_path_factory.mktemp("training") / "smallest"
    for stage in STAGES:
        metrics = run_stage(stage, folder, overrides=OVERRIDES[stage], cpu=True)
        assert bool(metrics) == (stage != "text-tokenizer")
    return folder


def log(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def test_stages_make_a_checkpoint_that_draws_and_answers(checkpoint: Path) -> None:
    pipe = unimodal.load(checkpoint, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    for decoder in ("turbo", "normal"):
        drawn = pipe.generate("a red car", num_inference_steps=2, decoder=decoder, decoder_steps=2)
        assert drawn.images[0].size == (256, 256) and drawn.codes[0].shape == (8, 8)
    answer = pipe.understand(drawn.images[0], "what is this?", gen_length=8, num_inference_steps=2)
    assert isinstance(answer.text, str)
    assert len(pipe.text_tokenizer) == 960 and pipe.vocab.image_range == (896, 960)


def test_stages_log_evaluate_and_draw_samples(checkpoint: Path) -> None:
    for stage in STAGES[1:]:
        output = checkpoint / "training" / stage
        lines = log(output)
        steps = int(next(value for value in OVERRIDES[stage] if value.startswith("steps="))[6:])
        assert [line["step"] for line in lines if "loss" in line] == list(range(1, steps + 1))
        assert [line["step"] for line in lines if "evaluation" in line] == list(range(2, steps + 1, 2))
        assert all(torch.tensor(line["loss"]).isfinite() for line in lines if "loss" in line)
        assert f"{steps:06d}.png" in {path.name for path in (output / "samples").iterdir()}
        assert not list(output.glob("state.p*"))  # neither a partial nor a previous state is left
    assert {"gap.true", "gap.shuffled", "psnr"} <= log(checkpoint / "training" / "decoder")[-1]["evaluation"].keys()
    assert "psnr_pca" in log(checkpoint / "training" / "autoencoder")[-1]["evaluation"]
    assert "understand.whole" in log(checkpoint / "training" / "backbone")[-1]["evaluation"]


def copied(checkpoint: Path, folder: Path) -> Path:
    return shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("training"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Everything a run leaves: the state and the exported component."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            found |= {f"{name}/{key}": value for key, value in load_file(path).items()}
        elif path.name.startswith("custom_checkpoint"):
            state = torch.load(path, weights_only=True)
            found |= {f"{name}/{key}": value for key, value in state.items()}
    return found


@pytest.mark.parametrize(("stage", "stop"), [("tokenizer", 2), ("tokenizer", 5), ("backbone", 3)])
def test_a_run_that_was_stopped_continues_exactly(checkpoint: Path, tmp_path: Path, stage: str, stop: int) -> None:
    folder = copied(checkpoint, tmp_path / "model")
    output = folder / "training" / stage
    assert run_stage(stage, folder, overrides=OVERRIDES[stage], cpu=True, stop_after=stop) == {}
    assert json.loads((output / "state" / "progress.json").read_text())["step"] == stop
    metrics = run_stage(stage, folder, overrides=OVERRIDES[stage], cpu=True)
    whole, parts = weights(checkpoint), weights(folder)
    compared = [name for name in whole if not name.startswith("training/") or name.startswith(f"training/{stage}/")]
    assert len(compared) > 50
    assert [name for name in compared if not torch.equal(whole[name], parts[name])] == []
    assert metrics == log(checkpoint / "training" / stage)[-1]["evaluation"]


def test_a_run_that_stopped_before_its_end_was_written_is_finished(checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(checkpoint, tmp_path / "model")
    output = folder / "training" / "tokenizer"
    shutil.copytree(checkpoint / "training" / "tokenizer", output)
    (folder / "image_tokenizer" / "model.safetensors").unlink()
    (output / "state").rename(output / "state.previous")  # what a stop between two renames leaves
    metrics = run_stage("tokenizer", folder, overrides=OVERRIDES["tokenizer"], cpu=True)
    assert metrics == log(checkpoint / "training" / "tokenizer")[-1]["evaluation"]
    exported = Path("image_tokenizer") / "model.safetensors"
    assert (folder / exported).read_bytes() == (checkpoint / exported).read_bytes()


def test_another_recipe_is_refused_in_the_same_folder(checkpoint: Path, tmp_path: Path) -> None:
    output = checkpoint / "training" / "tokenizer"
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"output: .* holds a run of another recipe"):
        run_stage("tokenizer", checkpoint, overrides=[*OVERRIDES["tokenizer"], "seed=1"], cpu=True)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("stage", "overrides", "message"),
    [
        ("pictures", [], "stage: 'pictures' is not one of text-tokenizer, tokenizer"),
        ("tokenizer", ["batch=3"], "recipe tiny_tokenizer: batch: Extra inputs"),
        ("tokenizer", ["model=huge"], r"no models configuration 'huge'; there are .*tiny"),
        ("backbone", ["tasks={draw: 1.0}"], "tasks: got draw, allowed are understand"),
        ("backbone", ["model=nowhere.yaml"], "there is no file 'nowhere.yaml'"),
    ],
)
def test_what_cannot_be_run_is_named(checkpoint: Path, stage: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_stage(stage, checkpoint, overrides=overrides, cpu=True)


@pytest.mark.parametrize("stage", ["tokenizer", "decoder", "distill", "backbone"])
def test_a_part_that_a_stage_builds_on_must_be_there(tmp_path: Path, stage: str) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        run_stage(stage, tmp_path, overrides=OVERRIDES[stage], cpu=True)


SCRIPT = """
import sys
from unimodal.training.run import run_stage

run_stage("backbone", sys.argv[1], output=sys.argv[2], overrides=sys.argv[3:], cpu=True)
"""


def test_two_processes_train_what_one_trains(checkpoint: Path, tmp_path: Path) -> None:
    # Balancing counts padding, too, which depends on how the rows of a process are packed; Muon rounds to bfloat16.
    exact = ["balance_rate=0.0", "optimizer.matrix_learning_rate=null", "optimizer.ema_decay=0.0", "steps=3"]
    overrides = [*OVERRIDES["backbone"], *exact, "evaluate_every=3"]
    alone, together = copied(checkpoint, tmp_path / "alone"), copied(checkpoint, tmp_path / "together")
    run_stage("backbone", alone, output=tmp_path / "one", overrides=overrides, cpu=True)
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    roots = [str(HERE.parent / room) for room in (".", "tokenizers", "decoders", "apps", "configs")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*roots, os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    arguments = [str(together), str(tmp_path / "two"), *overrides]
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    losses = [[line["loss"] for line in log(tmp_path / name) if "loss" in line] for name in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    before, one, two = (load_file(folder / "model.safetensors") for folder in (checkpoint, alone, together))
    assert one.keys() == two.keys()
    for name, value in one.items():
        # Where a gradient is nearly zero, rounding decides which way Adam goes: single entries may be further apart.
        assert (value - two[name]).norm() <= 1e-3 * (value - before[name]).norm(), name


def test_recomputed_activations_change_nothing(checkpoint: Path, tmp_path: Path) -> None:
    found = []
    for name, recompute in (("plain", "false"), ("recomputed", "true")):
        overrides = [*OVERRIDES["backbone"], "steps=2", f"gradient_checkpointing={recompute}"]
        folder = copied(checkpoint, tmp_path / name)
        run_stage("backbone", folder, overrides=overrides, cpu=True)
        found.append(load_file(folder / "model.safetensors"))
    assert all(torch.allclose(value, found[1][name], atol=1e-6) for name, value in found[0].items())
