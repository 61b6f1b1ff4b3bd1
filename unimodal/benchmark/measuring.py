"""One run of a case: what it wrote or drew, and what each part of the way took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unimodal.benchmark.cases import Case, DecodingCase, JobCase, WritingCase
from unimodal.benchmark.diffusers_pipeline import write_with_diffusers
from unimodal.benchmark.machine import synchronise
from unimodal.benchmark.subject import Subject
from unimodal.diffusion.denoiser import MakeDenoiser, PlainDenoiser
from unimodal.diffusion.guidance import Guidance, edit_guidance, prompt_guidance
from unimodal.diffusion.policies import make_policy
from unimodal.diffusion.sampler import SamplingTask, StepState, drain, stream
from unimodal.diffusion.sprint import PAPER_SETTINGS, SprintDenoiser
from unimodal.diffusion.static_steps import denoiser_for
from unimodal.world.render import render
from unimodal.world.scene import load_level
from unimodal.world.tasks import sample_example

if TYPE_CHECKING:
    from unimodal.pipeline import Pipeline

_WRITES_TEXT = ("understand", "thinking", "interleave")

STAGES = ("encode", "prefill", "denoise", "decode")

# Scales of guidance: any but 0 and 1 cost the same.
_PROMPT_SCALE, _TEXT_SCALE, _IMAGE_SCALE = 4.0, 4.0, 1.5


@dataclass(kw_only=True)
class Measurement:
    """What one run gave.

    Args:
        seconds: per stage of `STAGES`; `prefill` is the first step of each text or picture, which reads the prompt.
        forwards: passes through the backbone.
        written: tokens, of text and pictures.
        tokens: which they were, where a case writes one sequence.
        pictures: pictures drawn.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    forwards: int = 0
    written: int = 0
    tokens: list[int] = field(default_factory=list)
    pictures: int = 0

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def why_not(case: Case, subject: Subject) -> str | None:
    """Why a case cannot run on a model; None if it can."""
    if isinstance(case, JobCase):
        if subject.pipeline is None:
            return "needs a checkpoint"
        is_for_pictures = case.policy is not None and not make_policy(case.policy).ends_text
        return f"writes text, {case.policy} is for pictures" if is_for_pictures and case.task in _WRITES_TEXT else None
    if isinstance(case, DecodingCase):
        return None if subject.decoder is not None else "needs a pixel decoder"
    most, needed = subject.backbone.config.max_position_embeddings, case.prompt + case.length
    return None if needed <= most else f"needs {needed} positions, the model has {most}"


def measure(case: Case, subject: Subject, seed: int) -> Measurement:
    """Runs a case once. The same seed gives the same prompt, example and noise."""
    if isinstance(case, JobCase):
        return _measure_job(case, subject, seed)
    if isinstance(case, DecodingCase):
        return _measure_decoding(case, subject, seed)
    subject.backbone.set_expert_path(case.experts)
    try:
        return _measure_writing(case, subject, seed)
    finally:
        subject.backbone.set_expert_path("grouped")


def _measure_writing(case: WritingCase, subject: Subject, seed: int) -> Measurement:
    guidance = _guidance(case)
    prompt, *others = _random_prompts(case, guidance.num_branches, subject, seed)
    synchronise(subject.device)
    if case.engine == "diffusers":
        started = time.perf_counter()
        tokens, forwards = write_with_diffusers(case, subject, prompt)
        # All its passes compute the whole prefix: there is no first one that differs.
        seconds = {"denoise": time.perf_counter() - started}
        return Measurement(seconds=seconds, forwards=forwards, written=len(tokens), tokens=tokens)
    generator = torch.Generator().manual_seed(seed)
    states = stream(
        subject.backbone,
        [SamplingTask(prompt=prompt, others=others, length=case.length, generator=generator)],
        case.options,
        mask_id=subject.mask_id,
        vocab_range=subject.code_ids if case.writes_codes else None,
        guidance=guidance,
        denoiser=_denoiser(case, subject),
        device=subject.device,
        locate=subject.locate,
    )
    first = _FirstSteps(subject.device)
    result = drain(first.watching(states))
    tokens = result.tokens[0].tolist()
    return Measurement(
        seconds={"prefill": first.seconds, "denoise": result.seconds - first.seconds},
        forwards=result.forwards,
        written=len(tokens),
        tokens=tokens,
    )


def _guidance(case: WritingCase) -> Guidance:
    if case.guidance == "edit":
        return edit_guidance(_TEXT_SCALE, _IMAGE_SCALE)
    return prompt_guidance(_PROMPT_SCALE if case.guidance == "prompt" else 1.0)


def _denoiser(case: WritingCase, subject: Subject) -> MakeDenoiser:
    """What reads the prefix."""
    if case.sprint is None:
        return denoiser_for(subject.device, subject.backbone.dtype) if case.use_cache else PlainDenoiser
    first, last = subject.code_ids

    def is_picture(tokens: Tensor) -> Tensor:
        return (tokens >= first) & (tokens < last)

    return partial(SprintDenoiser, options=PAPER_SETTINGS[case.sprint], is_picture=is_picture)


def _random_prompts(case: WritingCase, count: int, subject: Subject, seed: int) -> list[list[int]]:
    """Prompts of picture codes, then text ids without the mask."""
    random = Random(seed)
    text = [token for token in range(*subject.text_ids) if token != subject.mask_id]
    return [
        [
            *random.choices(range(*subject.code_ids), k=case.prompt_codes),
            *random.choices(text, k=case.prompt - case.prompt_codes),
        ]
        for _ in range(count)
    ]


def _measure_job(case: JobCase, subject: Subject, seed: int) -> Measurement:
    pipe = subject.pipeline
    assert pipe is not None
    # Each run does all the work: what the last one left behind is forgotten.
    pipe.prefixes.clear()
    pipe.encoded_pictures.clear()
    first = _FirstSteps(subject.device)
    synchronise(subject.device)
    output = _call(case.task, pipe, seed, preset=case.preset, policy=case.policy, callback_on_step_end=first.called)
    spent = output.stats.seconds
    writing = sum(spent.get(stage, 0.0) for stage in ("text", "thinking", "picture"))
    return Measurement(
        seconds={
            "encode": spent.get("encode", 0.0),
            "prefill": first.seconds,
            "denoise": max(0.0, writing - first.seconds),  # the first step is timed from further outside
            "decode": spent.get("decode", 0.0),
        },
        forwards=output.stats.forwards,
        written=output.stats.tokens,
        pictures=len(getattr(output, "images", ())),
    )


def _call(task: str, pipe: Pipeline, seed: int, **settings: Any) -> Any:
    """The task's job on a held-out example."""
    level = load_level("standard")
    example: Any = sample_example(task, level, Random(seed), "test")
    settings["generator"] = torch.Generator().manual_seed(seed)
    if task == "understand":
        return pipe.understand([render(scene, level) for scene in example.scenes], example.question, **settings)
    if task == "edit":
        return pipe.edit([render(scene, level) for scene in example.sources], example.instruction, **settings)
    if task == "interleave":
        return pipe.interleave(example.prompt, **settings)
    return pipe.generate(example.prompt, thinking=task == "thinking", **settings)


def _measure_decoding(case: DecodingCase, subject: Subject, seed: int) -> Measurement:
    assert subject.decoder is not None
    generator = torch.Generator().manual_seed(seed)
    size = subject.decoder.conditioner.codebook_size
    codes = torch.randint(size, (1, case.height, case.width), generator=generator)
    synchronise(subject.device)
    started = time.perf_counter()
    subject.decoder.decode(codes, "turbo", case.steps, generator)
    synchronise(subject.device)
    return Measurement(seconds={"decode": time.perf_counter() - started}, pictures=1)


class _FirstSteps:
    """Adds up the time of the first step of each text and picture."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._device = device

    def watching(self, states: Iterator[StepState]) -> Iterator[StepState]:
        for state in states:
            self._after(state)
            yield state

    def called(self, pipe: Any, step: int, timestep: int, values: dict[str, Any]) -> None:
        """Called back by a pipeline."""
        if values["stage"] != "decode":
            self._after(values["state"])

    def _after(self, state: StepState) -> None:
        if state.block == 0 and state.step == 0:
            waiting = time.perf_counter()
            synchronise(self._device)
            self.seconds += state.seconds + time.perf_counter() - waiting
