"""Which denoiser a writer takes, and that the choice changes nothing."""

from pathlib import Path

import pytest
import torch

import unimodal
from unimodal.diffusion.denoiser import CachedDenoiser
from unimodal.diffusion.guidance import prompt_guidance
from unimodal.diffusion.prefixes import PrefixStore
from unimodal.diffusion.sampler import SamplingOptions
from unimodal.diffusion.sprint import SprintOptions
from unimodal.diffusion.static_steps import StaticDenoiser, denoiser_for
from unimodal.pipeline import Pipeline
from unimodal.writer import Writer, drained

GOLDEN = Path(__file__).parent / "golden" / "uni_a"
OPTIONS = SamplingOptions(block_length=8, num_inference_steps=3, threshold=0.7)


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return unimodal.load(GOLDEN, device="cpu")


def test_steps_are_replayed_on_a_gpu_in_bfloat16_only():
    assert denoiser_for(torch.device("cuda", 1), torch.bfloat16) is StaticDenoiser
    assert denoiser_for(torch.device("cuda"), torch.float32) is CachedDenoiser
    assert denoiser_for(torch.device("cpu"), torch.bfloat16) is CachedDenoiser


def test_a_writer_asks_for_its_model_and_writes_the_same(pipe, monkeypatch):
    """Twice each, so that the second time begins with what the first one left."""
    sequences = pipe.sequences
    prompts = [sequences.thinking("a cat"), sequences.thinking("two red cars on the moon")]
    branches = [sequences.generation(text, 8, 8) for text in ("a cat", "two red cars on the moon")]

    def written(**settings) -> list[list[int]]:
        writer = Writer(pipe.backbone, sequences, **settings)
        texts = [drained(writer.text_steps(prompts, OPTIONS, 20)) for _ in range(2)]
        pictures = drained(writer.picture_steps(branches, [(8, 8)] * 2, OPTIONS, prompt_guidance(2.0)))
        return [tokens.flatten().tolist() for tokens in (*texts[0], *texts[1], *pictures)]

    cached = written(prefixes=PrefixStore())
    asked, steps = [], []

    class Watched(StaticDenoiser):
        def _run(self, *arguments, **settings):
            steps.append(self._prefixes)
            return super()._run(*arguments, **settings)

    def choose(device, dtype):
        asked.append((device, dtype))
        return Watched

    monkeypatch.setattr("unimodal.writer.denoiser_for", choose)
    store = PrefixStore()
    assert written(prefixes=store) == cached
    assert asked == [(pipe.backbone.device, pipe.backbone.dtype)]
    assert steps and all(used is store for used in steps)

    written(use_cache=False)
    written(sprint=SprintOptions())
    assert len(asked) == 1
