"""A reference checkpoint with settings that take little time, and what its tests give it: pictures, seeds, answers."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import unimodal
from unimodal.checkpoint import read_config
from unimodal.components import read_vocab
from unimodal.pipeline import Pipeline
from unimodal.sequence import SequenceBuilder
from unimodal.settings import Settings
from unimodal.writer import Writer
from unimodal_tokenizers.text import TextTokenizer

GOLDEN = Path(__file__).parent / "golden" / "uni_a"

# Of one call that draws a picture.
QUICK: dict[str, Any] = {"num_inference_steps": 2, "decoder_steps": 2}

# Of each task, over the preset of small checkpoints.
SETTINGS: dict[str, dict[str, Any]] = {
    "understand": {"gen_length": 24, "num_inference_steps": 4},
    "thinking": {"gen_length": 16, "num_inference_steps": 4},
    "generate": {"num_inference_steps": 2},
    "edit": {"num_inference_steps": 2},
    "interleave": {
        "gen_length": 16,
        "num_inference_steps": 4,
        "image_num_inference_steps": 2,
        "max_image_tokens": 80,
    },
    "decoder": {"turbo_steps": 2, "normal_steps": 2},
}


def quiet_pipeline(name_or_path: str | Path = GOLDEN, **changes: dict[str, Any]) -> Pipeline:
    """A checkpoint on the CPU without progress bars, its own settings changed: values by task, then by name."""
    pipe = unimodal.load(name_or_path, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    return with_settings(pipe, pipe.settings, changes)


def quick_pipeline(**changes: dict[str, Any]) -> Pipeline:
    """The reference checkpoint with quick settings of its tasks, changed: values by task, then by name."""
    pipe = with_settings(quiet_pipeline(), Settings.preset("tiny"), SETTINGS)
    return with_settings(pipe, pipe.settings, changes)


def with_settings(pipe: Pipeline, settings: Settings, changes: dict[str, dict[str, Any]]) -> Pipeline:
    """The same pipeline, whose settings are now these with changes; a task that is none is a KeyError."""
    values = settings.model_dump()
    for task, changed in changes.items():
        values[task] |= changed
    pipe.settings = Settings.model_validate(values)
    return pipe


def quick_sequences() -> SequenceBuilder:
    """The sequences of the reference checkpoint, without its weights."""
    tokenizer = TextTokenizer.from_pretrained(GOLDEN)
    return SequenceBuilder(tokenizer, read_vocab(GOLDEN, read_config(GOLDEN), tokenizer))


class ScriptedWriter(Writer):
    """Keeps what it is asked, says what it is told, and draws by itself; without answers it also writes by itself."""

    def __init__(self, pipe: Pipeline, answers: list[list[int]] | None = None):
        super().__init__(pipe.backbone, pipe.sequences)
        self.answers = answers
        self.prompts: list[list[int]] = []
        self.lengths: list[int] = []
        self.branches: list[Any] = []

    def text_steps(self, prompts, options, length, **settings):
        self.prompts += [list(prompt) for prompt in prompts]
        self.lengths.append(length)
        if self.answers is None:
            return (yield from super().text_steps(prompts, options, length, **settings))
        return [torch.tensor(self.answers.pop(0), dtype=torch.long)]

    def picture_steps(self, branches, *arguments, **settings):
        self.branches += branches
        return (yield from super().picture_steps(branches, *arguments, **settings))


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def gradient() -> Image.Image:
    """256 x 256, from black to white."""
    return Image.linear_gradient("L").convert("RGB")


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
