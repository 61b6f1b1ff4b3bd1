"""Scores of pipelines whose answers are known: one that is always right, ones that never are, one of random weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from quick_pipeline import quick_pipeline

from unimodal.evaluation import prompts
from unimodal.evaluation.run import evaluate, peak_signal_to_noise
from unimodal.settings import Settings
from unimodal.world.captions import TASKS
from unimodal.world.edits import edit_kinds
from unimodal.world.questions import question_kinds
from unimodal.world.render import render
from unimodal.world.scene import load_level

LEVEL = load_level("standard")
SAMPLES = 36


class Fake:
    """What `evaluate` needs of a pipeline; the three jobs are answered by tables of this evaluation's samples."""

    def __init__(self, samples: int, seed: int) -> None:
        self.settings = Settings.preset("tiny")
        self.folder, self.device, self.dtype = Path("fake"), torch.device("cpu"), torch.float32
        self.answers = [one.answer for one in prompts.sample_questions(LEVEL, samples, seed)]
        self.drawn = [one.scene for one in prompts.sample_prompts(LEVEL, samples, seed)]
        self.edited = [one.target for one in prompts.sample_edits(LEVEL, samples, seed)]
        self.batches: list[int] = []
        # Codes that name the picture they were made from, which the decoder then gives back.
        self.sizes = SimpleNamespace(for_understanding=lambda pictures: pictures)
        self.image_tokenizer = SimpleNamespace(codebook=torch.zeros(1), encode=self._encode)
        self.decoder = SimpleNamespace(decode=lambda codes, **_: self.encoded[codes])

    def set_progress_bar_config(self, **options: Any) -> None:
        assert options == {"disable": True}

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        self.encoded = pixels
        return torch.arange(len(pixels))

    def understand(self, images: Any, question: list[str], generator: list[torch.Generator]) -> Any:
        assert len(images) == len(question) == len(generator)
        self.batches.append(len(question))
        return SimpleNamespace(texts=[self.answers.pop(0).upper() + "\n" for _ in question])

    def generate(self, prompt: list[str], generator: list[torch.Generator]) -> Any:
        return SimpleNamespace(images=[render(self.drawn.pop(0), LEVEL) for _ in generator])

    def edit(self, images: Any, instruction: list[str], generator: list[torch.Generator]) -> Any:
        return SimpleNamespace(images=[render(self.edited.pop(0), LEVEL) for _ in generator])


class Silent(Fake):
    """Says nothing, draws nothing, and gives pictures back as they were."""

    def understand(self, images: Any, question: list[str], generator: list[torch.Generator]) -> Any:
        return SimpleNamespace(texts=[""] * len(question))

    def generate(self, prompt: list[str], generator: list[torch.Generator]) -> Any:
        return SimpleNamespace(images=[Image.new("RGB", (256, 256), "white") for _ in prompt])

    def edit(self, images: Any, instruction: list[str], generator: list[torch.Generator]) -> Any:
        return SimpleNamespace(images=[pictures[-1] for pictures in images])


class Blank(Silent):
    """Answers every edit with a white picture, where something to be removed is gone, too."""

    def edit(self, images: Any, instruction: list[str], generator: list[torch.Generator]) -> Any:
        return SimpleNamespace(images=[Image.new("RGB", (256, 256), "white") for _ in images])


def leaves(tree: dict[str, Any]) -> list[float]:
    return [leaf for value in tree.values() for leaf in (leaves(value) if isinstance(value, dict) else [value])]


def score(pipe: Any, **options: Any) -> dict[str, Any]:
    return evaluate(pipe, SAMPLES, 3, progress=False, **options)


def test_perfect_answers_score_one() -> None:
    pipe = Fake(SAMPLES, 3)
    result = score(pipe, batch_size=10)
    assert pipe.batches == [10, 10, 10, 6]
    understand, decode = result["understand"], result["decode"]
    baselines = understand.pop("baselines")
    assert 0 < understand.pop("baseline") < 0.7
    assert set(baselines) == set(question_kinds(LEVEL)) == set(understand) - {"accuracy"}
    assert set(leaves(understand)) == set(leaves(result["generate"])) == set(leaves(result["edit"])) == {1.0}
    assert set(result["generate"]) == {*TASKS, "overall", "strict"}
    assert set(result["generate"]["strict"]) == {*TASKS, "overall"}
    assert set(result["edit"]) == {"success", "preserved", "both", *edit_kinds(LEVEL)}
    assert min(decode.pop("psnr").values()) > 55  # not more: the way to floats and back loses the last bit
    assert decode == {"scene": {"normal": 1.0, "turbo": 1.0}, "pictures": {"normal": 16, "turbo": SAMPLES}}
    settings = result["settings"]
    expected = {"samples": SAMPLES, "seed": 3, "level": "standard", "model": "fake", "dtype": "float32"}
    assert expected.items() <= settings.items()
    assert settings["sampling"] == Settings.preset("tiny").model_dump()
    assert set(settings["seconds"]) == {"understand", "generate", "edit", "decode"}
    assert settings["versions"]["torch"] and settings["threads"] > 0
    json.dumps(result, allow_nan=False)


def test_no_answers_score_nothing() -> None:
    result = score(Silent(SAMPLES, 3), tasks=("understand", "generate", "edit"))
    understand = result["understand"]
    assert {understand[kind] for kind in ("accuracy", *question_kinds(LEVEL))} == {0.0}
    assert set(leaves(result["generate"])) == {0.0}
    kinds = edit_kinds(LEVEL)
    assert result["edit"] == {
        "success": 0.0,
        "preserved": 1.0,
        "both": 0.0,
        **{kind: {"success": 0.0, "preserved": 1.0, "both": 0.0} for kind in kinds},
    }
    blank = score(Blank(SAMPLES, 3), tasks=("edit",))["edit"]
    assert blank["both"] == blank["preserved"] == 0.0
    assert blank["remove"]["success"] == 1.0  # the reason why success alone is no score


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ("draw",)}, "tasks: got draw, allowed are understand, generate"),
        ({"tasks": ()}, "tasks: got none"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"level": "huge"}, "no world configuration 'huge'"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(Fake(1, 3), **options)
    with pytest.raises(ValueError, match="samples: got 0"):
        evaluate(Fake(1, 3), 0, 3)  # type: ignore[arg-type]


def test_peak_signal_to_noise_by_hand() -> None:
    grey, lighter = (Image.new("RGB", (4, 4), (value, value, value)) for value in (100, 110))
    assert peak_signal_to_noise(lighter, grey) == pytest.approx(28.1308, abs=1e-3)  # 20 log10(255 / 10)
    assert peak_signal_to_noise(grey.resize((8, 8)), grey) == 100


def test_random_weights_are_scored_the_same_every_time() -> None:
    pipe = quick_pipeline(
        understand={"gen_length": 16},
        generate={"temperature": 1.0},
        edit={"temperature": 1.0},
        decoder={"normal_steps": 3},
    )
    codes = []
    draw = pipe.generate

    def watched(*arguments: Any, **options: Any) -> Any:
        output = draw(*arguments, **options)
        codes.append(output.codes)
        return output

    pipe.generate = watched  # type: ignore[method-assign]
    whole = evaluate(pipe, 3, 0, batch_size=3, progress=False)
    parts = evaluate(pipe, 3, 0, batch_size=2, progress=False)
    assert [grid.tolist() for batch in codes[:1] for grid in batch] == [
        grid.tolist() for batch in codes[1:] for grid in batch
    ]
    assert 0 < whole["decode"]["psnr"]["turbo"] < 60 and whole["settings"]["model"] == "uni_a"
    for task in ("understand", "generate", "edit"):
        assert whole[task] == parts[task]
    assert whole["decode"]["psnr"] == pytest.approx(parts["decode"]["psnr"], abs=0.01)
