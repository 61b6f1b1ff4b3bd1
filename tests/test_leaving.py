"""Samples that nobody wants any more leave a batch before the next step, and those who stay do not notice."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from bag_model import MASK, Bag, fill, options, tasks
from small_backbone import is_picture, small_backbone

from unimodal.backbone import MaskedDiffusionTransformer
from unimodal.diffusion.denoiser import CachedDenoiser, PlainDenoiser
from unimodal.diffusion.guidance import Guidance, NoGuidance, edit_guidance
from unimodal.diffusion.restriction import AllowedTokens
from unimodal.diffusion.sampler import SamplingOptions, SamplingTask, StepState, drain, stream
from unimodal.diffusion.sprint import SprintDenoiser, SprintOptions
from unimodal.diffusion.static_steps import StaticDenoiser

CHOICES = [
    options("quota"),
    options("adaptive", threshold=0.4),
    options("remasking", remasking="random"),
    options("threshold", threshold=0.5),
    options("cosine", choice_temperature=3.0, temperature=1.0),
    options("ancestral", temperature=1.0),
    options("editing", threshold=0.2, editing_threshold=0.2),
]
SPRINT = SprintOptions(text_keep_ratio=0.5, cache_warmup_steps=2)
DENOISERS = {
    "cached": CachedDenoiser,
    "plain": PlainDenoiser,
    "static": StaticDenoiser,
    "sprint": partial(SprintDenoiser, options=SPRINT, is_picture=is_picture),
}


class Rows:
    """A model, and how many rows it saw in each forward."""

    def __init__(self, model: Any):
        self.model = model
        self.seen: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, tokens: torch.Tensor, *others: Any, **named: Any) -> Any:
        self.seen.append(len(tokens))
        return self.model(tokens, *others, **named)

    def hidden(self, tokens: torch.Tensor, **named: Any) -> Any:
        self.seen.append(len(tokens))
        return self.model.hidden(tokens, **named)


@pytest.fixture(scope="module")
def model() -> MaskedDiffusionTransformer:
    return small_backbone()


def run(
    model: Any, samples: list[SamplingTask], choices: SamplingOptions, leave: dict[int, int], **settings: Any
) -> tuple[list[list[int]], list[StepState]]:
    """The tokens of samples of which some leave, each after so many steps."""
    states: list[StepState] = []

    def wanted(index: int) -> bool:
        return len(states) < leave.get(index, 10**6)

    for state in stream(model, samples, choices, mask_id=MASK, wanted=wanted, **settings):
        states.append(state)
    return [tokens.tolist() for tokens in drain(states).tokens], states


@pytest.mark.parametrize("span", ["block", "answer", "sequence"])
@pytest.mark.parametrize("choices", CHOICES, ids=lambda choices: choices.policy)
def test_those_who_stay_do_not_notice(choices: SamplingOptions, span: str) -> None:
    choices = SamplingOptions(**{**choices.stated(), "span": span})
    lengths = (3, 20), (19, 9), (8, 13)
    alone = [fill([task], choices).tokens[0].tolist() for task in tasks(*lengths)]
    for leave in ({0: 1}, {1: 2}, {2: 1, 0: 3}, {0: 0}):
        together, states = run(Bag(), tasks(*lengths), choices, leave, use_cache=False)
        for place, tokens in enumerate(together):
            # Whoever was done before it was unwanted keeps its result.
            done = [number for number, state in enumerate(states) if place in state.results]
            assert tokens == (alone[place] if done else [])
            assert bool(done) or place in leave
        for place, steps in leave.items():
            assert all(place not in [part.index for part in state.samples] for state in states[steps:])


@pytest.mark.parametrize("guidance", [NoGuidance(), edit_guidance(3.0, 1.5)], ids=["one branch", "three branches"])
@pytest.mark.parametrize("kind", DENOISERS)
def test_forwards_get_smaller_in_the_middle_of_a_block(
    model: MaskedDiffusionTransformer, kind: str, guidance: Guidance
) -> None:
    source = torch.Generator().manual_seed(1)

    def prompt(length: int) -> list[int]:
        return torch.randint(0, 28, (length,), generator=source).tolist()

    samples = [
        SamplingTask(prompt=prompt(length), length=24, others=[prompt(9), prompt(4)][: guidance.num_branches - 1])
        for length in (19, 3, 26)
    ]
    choices = SamplingOptions(block_length=8, num_inference_steps=8, threshold=1.0, eos_early_stop=False)
    settings: dict[str, Any] = {"denoiser": DENOISERS[kind], "guidance": guidance}
    alone = [run(model, [task], choices, {}, **settings)[0][0] for task in samples]
    # The first block has at least three steps; SPRINT reads a part of the prefix from the third on.
    for place, steps in ((0, 1), (1, 3), (2, 3)):
        watched = Rows(model)
        together, states = run(watched, samples, choices, {place: steps}, **settings)
        assert len([state for state in states if state.block == 0]) > steps
        assert together == [[] if index == place else tokens for index, tokens in enumerate(alone)]
        rows = [guidance.num_branches * count for count in (3, 2)]
        last = watched.seen[-(len(states) - steps) :]
        assert last == [rows[1]] * len(last) and rows[0] in watched.seen


def test_when_all_have_left_nothing_more_is_computed(model: MaskedDiffusionTransformer) -> None:
    samples = [SamplingTask(prompt=[1, 2, 3], length=20), SamplingTask(prompt=[4], length=20)]
    choices = SamplingOptions(block_length=8, num_inference_steps=8, threshold=1.0)
    watched = Rows(model)
    tokens, states = run(watched, samples, choices, {0: 2, 1: 3})
    assert tokens == [[], []] and len(states) == 3 and watched.seen == [2, 2, 1]
    assert run(watched, samples, choices, {0: 0, 1: 0}) == ([], []) and len(watched.seen) == 3


def test_what_is_allowed_goes_with_those_who_stay() -> None:
    kinds = torch.zeros(3, 32, dtype=torch.bool)
    kinds[0, :10] = kinds[1, 10:20] = kinds[2, 20:28] = True
    samples = [SamplingTask(prompt=[1, 2], length=6, given=[MASK] * 6) for _ in range(3)]
    choices = options("quota", threshold=1.0)

    def allowed(rows: Sequence[int]) -> AllowedTokens:
        return AllowedTokens(kinds=kinds, kind_of=torch.tensor([[row] * 8 for row in rows]))

    settings: dict[str, Any] = {"use_cache": False, "joined": True}
    together, _ = run(Bag(), samples, choices, {0: 1}, guidance=allowed([0, 1, 2]), **settings)
    assert together[0] == []
    for place in (1, 2):
        [alone], _ = run(Bag(), [samples[place]], choices, {}, guidance=allowed([place]), **settings)
        assert together[place] == alone and all(kinds[place, token] for token in alone)


def test_a_question_is_asked_once_per_sample_and_step() -> None:
    asked: list[int] = []
    wanted: Callable[[int], bool] = lambda index: not asked.append(index)  # noqa: E731
    states = list(stream(Bag(), tasks((3, 8), (4, 8)), options("quota"), mask_id=MASK, use_cache=False, wanted=wanted))
    assert len(asked) <= 2 * len(states)
