"""What the sampler is asked for: how blocks are filled, and what to fill."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from unimodal.diffusion.policies import Policy, make_policy

Span = Literal["block", "answer", "sequence"]
SPANS = ("block", "answer", "sequence")


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How a block is filled.

    The options of policies are those of `unimodal.diffusion.policies`; None is the policy's own default, and one that
    the policy does not have must be None.

    Args:
        policy: which positions a step writes, by name.
        num_inference_steps, threshold, minimal_topk, remasking, reveal_length, choice_temperature, editing_threshold,
            max_post_steps: options of policies.
        block_length: positions that are filled together.
        span: what one block is. `block` is `block_length` positions; `answer` everything from the block on in which the
            longest prompt ends; `sequence` the prompt, too, so that everything sees everything.
        temperature: 0 takes the most probable token, above it tokens are drawn.
        top_k, top_p: limits of what is drawn from.
        eos_early_stop: ends a sample within a block, once its first stop token has no mask before it.

    Raises:
        ValueError: a value out of its range, or options that do not go together.
    """

    policy: str = "quota"
    num_inference_steps: int | None = None
    threshold: float | None = None
    minimal_topk: int | None = None
    remasking: str | None = None
    reveal_length: int | None = None
    choice_temperature: float | None = None
    editing_threshold: float | None = None
    max_post_steps: int | None = None
    block_length: int = 32
    span: Span = "block"
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    eos_early_stop: bool = True

    def __post_init__(self) -> None:
        for name in ("block_length", "top_k"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}: got {value!r}, it must be a whole number of at least 1")
        if self.span not in SPANS:
            raise ValueError(f"span: got {self.span!r}, it must be {', '.join(SPANS[:-1])} or {SPANS[-1]}")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature: got {self.temperature}, it must be a finite number of 0 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: got {self.top_p}, it must be above 0 and at most 1")
        if self.make_policy().needs_sequence and self.span != "sequence":
            raise ValueError(
                f"reveal_length: got {self.reveal_length}, pieces are for span 'sequence', span is {self.span!r}"
            )

    def make_policy(self) -> Policy:
        return make_policy(self.policy, **{name: getattr(self, name) for name in POLICY_OPTIONS})

    def stated(self) -> dict[str, Any]:
        """The options that are not None, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


POLICY_OPTIONS = (
    "num_inference_steps",
    "threshold",
    "minimal_topk",
    "remasking",
    "reveal_length",
    "choice_temperature",
    "editing_threshold",
    "max_post_steps",
)


@dataclass(frozen=True, kw_only=True)
class SamplingTask:
    """What to fill, for one sample.

    Args:
        prompt: tokens that it goes on from.
        length: tokens to generate at most.
        others: the prompts of the other guidance branches.
        given: tokens that stand already, int [length], the mask id where one is to be found. They are never changed.
        generator: draws this sample's random numbers; without one a newly seeded one does.
    """

    prompt: Sequence[int]
    length: int
    others: Sequence[Sequence[int]] = ()
    given: Sequence[int] | None = None
    generator: torch.Generator | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a stream of states was asked for, as far as its states can be understood by it.

    Args:
        prompts: the conditional prompt of each sample.
        lengths: tokens to generate at most, per sample.
        given: tokens that stood already, per sample; None where all were masks.
        mask_id: stands where nothing is known.
        settings: the options, and those of the guidance under `guidance`.
    """

    prompts: Sequence[Sequence[int]]
    lengths: Sequence[int]
    given: Sequence[Sequence[int] | None]
    mask_id: int
    settings: Mapping[str, Any]
