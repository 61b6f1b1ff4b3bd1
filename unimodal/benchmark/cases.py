"""What is measured, as data: the cases, and the ratios between them that have a target.

A `WritingCase` goes from tokens to tokens with the backbone alone, whatever its weights. A `JobCase` is one call of a
checkpoint's pipeline, from a prompt to text or pixels. A `DecodingCase` goes from codes to pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unimodal.diffusion.options import SamplingOptions
from unimodal.diffusion.policies import POLICIES
from unimodal.settings import preset_names

GuidanceKind = Literal["none", "prompt", "edit"]
Engine = Literal["unimodal", "diffusers"]


STEPS, BLOCK, THRESHOLD = 32, 32, 0.95


def filled(policy: str = "quota", **options: Any) -> SamplingOptions:
    """How a case fills its blocks: 32 tokens together, and no end before the length."""
    return SamplingOptions(policy=policy, block_length=BLOCK, eos_early_stop=False, **options)


AS_PUBLISHED = filled(num_inference_steps=STEPS, threshold=THRESHOLD)


@dataclass(frozen=True, kw_only=True)
class WritingCase:
    """Tokens that follow a prompt of random tokens, without an end before `length`.

    Args:
        name: what the results call it.
        task: the group it is chosen with.
        prompt, prompt_codes: tokens of the prompt, and how many picture codes are among them, before the text.
        length: tokens that are written.
        options: policy, block length, steps and the rest.
        guidance: none, two branches (`prompt`) or three (`edit`).
        writes_codes: only picture codes are proposed.
        sprint: a name of `PAPER_SETTINGS`: how the prefix is pruned; None is not at all.
        engine: this package, or diffusers' `LLaDA2Pipeline`.
        use_cache: False computes the whole prefix in every step.
        experts: the path of the experts, as `MaskedDiffusionTransformer.set_expert_path` takes it.
    """

    name: str
    task: str
    prompt: int
    length: int
    prompt_codes: int = 0
    options: SamplingOptions = AS_PUBLISHED
    guidance: GuidanceKind = "none"
    writes_codes: bool = False
    sprint: str | None = None
    engine: Engine = "unimodal"
    use_cache: bool = True
    experts: str = "grouped"


@dataclass(frozen=True, kw_only=True)
class JobCase:
    """One call of a pipeline on a held-out example of the picture-book world.

    Args:
        task: `understand`, `generate`, `thinking`, `edit` or `interleave`.
        preset: `fast`, `balanced` or `best`; None is how the checkpoint says.
        policy: which positions a step fills; None leaves it to preset and checkpoint.
    """

    name: str
    task: str
    preset: str | None = None
    policy: str | None = None


@dataclass(frozen=True, kw_only=True)
class DecodingCase:
    """Pixels from random codes with the decoder `turbo`.

    Args:
        height, width: of the grid, in codes; a side has 32 pixels for each.
        steps: evaluations of the flow transformer.
    """

    name: str
    task: str
    height: int
    width: int
    steps: int


Case = WritingCase | JobCase | DecodingCase


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The seconds of one case over those of another.

    Args:
        name: what the results call it.
        slow, fast: names of cases; the value is slow / fast.
        denoising_only: the first pass, which reads the prompt, does not count.
        target: what the value should reach, or with `at_most` should not exceed; None is no target.
        tokens: whether both cases are to write the `same` tokens, or theirs are `compared`; None is neither.
    """

    name: str
    slow: str
    fast: str
    target: float | None = None
    at_most: bool = False
    denoising_only: bool = False
    tokens: Literal["same", "compared"] | None = None


AGAINST_DIFFUSERS = "against.diffusers"

# The settings that the paper of SPRINT reports for questions and for pictures (arXiv 2604.20796), with shorter texts.
_ANSWER: dict[str, Any] = {
    "task": "sprint",
    "prompt": 1088,
    "prompt_codes": 1024,
    "length": 64,
    "options": filled("adaptive", num_inference_steps=32, threshold=0.93),
}
_PICTURE: dict[str, Any] = {
    "prompt": 64,
    "length": 1024,
    "options": filled(num_inference_steps=8, threshold=THRESHOLD),
    "guidance": "prompt",
    "writes_codes": True,
}
_CODES: dict[str, Any] = {"task": "guidance", "prompt": 512, "length": 64, "writes_codes": True}
_POLICIES: tuple[tuple[str, SamplingOptions], ...] = (
    ("quota", filled(num_inference_steps=16, threshold=THRESHOLD)),
    ("adaptive", filled("adaptive", num_inference_steps=16, threshold=THRESHOLD)),
    ("remasking", filled("remasking", num_inference_steps=16)),
    ("threshold", filled("threshold", threshold=0.9)),
    ("cosine", filled("cosine", num_inference_steps=16)),
    ("ancestral", filled("ancestral", num_inference_steps=16)),
    ("editing", filled("editing", num_inference_steps=16)),
)

JOBS = ("understand", "generate", "thinking", "edit", "interleave")

CASES: tuple[Case, ...] = (
    *(JobCase(name=job, task=job) for job in JOBS),
    *(
        JobCase(name=f"{job}, {preset}", task=job, preset=preset)
        for job in ("understand", "generate", "edit")
        for preset in preset_names()
    ),
    WritingCase(name="text, 256 + 512", task="text", prompt=256, length=512),
    *(
        WritingCase(name=f"policy {name}", task="policies", prompt=256, length=64, writes_codes=True, options=options)
        for name, options in _POLICIES
    ),
    WritingCase(name="text at 256", task="context", prompt=256, length=64),
    WritingCase(name="text at 4096", task="context", prompt=4096, length=64),
    WritingCase(name="experts grouped", task="experts", prompt=512, length=64),
    WritingCase(name="experts in a loop", task="experts", prompt=512, length=64, experts="loop"),
    WritingCase(name="codes, unguided", **_CODES),
    WritingCase(name="codes, three-way guidance", guidance="edit", **_CODES),
    WritingCase(name="answer, whole prefix", **_ANSWER),
    WritingCase(name="answer, SPRINT selective", sprint="selective", **_ANSWER),
    WritingCase(name="answer, SPRINT half", sprint="half", **_ANSWER),
    WritingCase(name="picture of 1024 codes", task="picture", **_PICTURE),
    WritingCase(name="picture of 1024 codes, plain", task="plain", use_cache=False, experts="loop", **_PICTURE),
    DecodingCase(name="pixels of 32 x 32 codes", task="decode", height=32, width=32, steps=8),
    WritingCase(name="text, 256 + 512, diffusers", task="diffusers", prompt=256, length=512, engine="diffusers"),
)

COMPARISONS: tuple[Comparison, ...] = (
    Comparison(
        name=AGAINST_DIFFUSERS,
        slow="text, 256 + 512, diffusers",
        fast="text, 256 + 512",
        target=10.0,
        tokens="same",
    ),
    Comparison(
        name="token at 4096 / at 256",
        slow="text at 4096",
        fast="text at 256",
        target=2.0,
        at_most=True,
        denoising_only=True,
    ),
    Comparison(
        name="experts in a loop / grouped",
        slow="experts in a loop",
        fast="experts grouped",
        target=1.0,
        tokens="same",
    ),
    Comparison(
        name="three-way guidance / unguided",
        slow="codes, three-way guidance",
        fast="codes, unguided",
        target=3.1,
        at_most=True,
    ),
    Comparison(
        name="whole prefix / SPRINT selective",
        slow="answer, whole prefix",
        fast="answer, SPRINT selective",
        tokens="compared",
    ),
    Comparison(
        name="whole prefix / SPRINT half",
        slow="answer, whole prefix",
        fast="answer, SPRINT half",
        tokens="compared",
    ),
    Comparison(
        name="plain loop / cached",
        slow="picture of 1024 codes, plain",
        fast="picture of 1024 codes",
        target=1.0,
        tokens="same",
    ),
)

ONLY_ON_REQUEST = ("picture", "plain", "decode", "diffusers")
"""Tasks that take long without a GPU: they run when they are named."""


def tasks() -> tuple[str, ...]:
    """The tasks of all cases, in order."""
    return tuple(dict.fromkeys(case.task for case in CASES))


def choose(names: Sequence[str], against_diffusers: bool = False, policies: Sequence[str] = ()) -> list[Case]:
    """The cases of some tasks.

    Args:
        names: of tasks; without any all that are quick.
        against_diffusers: adds the cases of that comparison; without `names` there are no others.
        policies: names of presets and policies; the jobs run with each of them, and other cases that have another
            policy are left out.

    Raises:
        ValueError: a task that no case has, or no such preset or policy.
    """
    if unknown := set(names) - set(tasks()):
        raise ValueError(f"task: got {', '.join(sorted(unknown))}, allowed are {', '.join(tasks())}")
    chosen = set(names) if names else set(() if against_diffusers else tasks()) - set(ONLY_ON_REQUEST)
    if against_diffusers:
        chosen |= {"text", "diffusers"}
    cases = [case for case in CASES if case.task in chosen]
    return list(_with_policies(cases, policies)) if policies else cases


def _with_policies(cases: Sequence[Case], policies: Sequence[str]) -> Iterator[Case]:
    presets = preset_names()
    if unknown := set(policies) - {*presets, *POLICIES}:
        allowed = ", ".join((*presets, *POLICIES))
        raise ValueError(f"policy: got {', '.join(sorted(unknown))}, allowed are {allowed}")
    for job in dict.fromkeys(case.task for case in cases if isinstance(case, JobCase)):
        for name in policies:
            kind = "preset" if name in presets else "policy"
            yield JobCase(name=f"{job}, {name}", task=job, **{kind: name})
    for case in cases:
        if isinstance(case, WritingCase) and case.options.policy in policies:
            yield case
