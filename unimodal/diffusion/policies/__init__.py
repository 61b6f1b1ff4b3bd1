"""Unmasking policies: which masked positions of a block become tokens in a step, one file each.

| name | a step writes | source |
|---|---|---|
| `quota` | a fixed share of the block, or all above a threshold | LLaDA2.0, arXiv 2512.15745 |
| `adaptive` | an even share of what is left, and all above a threshold | SPRINT, arXiv 2604.20796 |
| `remasking` | equal shares by a score, in one piece or several | LLaDA, arXiv 2502.09992; Dream, 2508.15487 |
| `threshold` | all above a threshold, at least one | Fast-dLLM, arXiv 2505.22618 |
| `cosine` | few at first, many at the end | MaskGIT, arXiv 2202.04200 |
| `ancestral` | each by chance, as the masking process in reverse | RADD, arXiv 2406.03736; MDLM, 2406.07524 |
| `editing` | as `quota`, and replaces tokens above a second threshold | LLaDA2.1, arXiv 2602.08676 |
"""

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from unimodal.diffusion.policies.adaptive import AdaptivePolicy
from unimodal.diffusion.policies.ancestral import AncestralPolicy
from unimodal.diffusion.policies.cosine import CosinePolicy
from unimodal.diffusion.policies.editing import EditingPolicy
from unimodal.diffusion.policies.policy import Block, Decision, Policy
from unimodal.diffusion.policies.quota import QuotaPolicy
from unimodal.diffusion.policies.remasking import RemaskingPolicy
from unimodal.diffusion.policies.threshold import ThresholdPolicy

__all__ = ["POLICIES", "Block", "Decision", "Policy", "make_policy", "options_of"]

POLICIES: Mapping[str, type[Any]] = MappingProxyType(
    {
        "quota": QuotaPolicy,
        "adaptive": AdaptivePolicy,
        "remasking": RemaskingPolicy,
        "threshold": ThresholdPolicy,
        "cosine": CosinePolicy,
        "ancestral": AncestralPolicy,
        "editing": EditingPolicy,
    }
)


def options_of(name: str) -> tuple[str, ...]:
    """The options that a policy takes.

    Raises:
        ValueError: no such policy.
    """
    if name not in POLICIES:
        raise ValueError(f"policy: got {name!r}, it must be one of {', '.join(POLICIES)}")
    return tuple(field.name for field in fields(POLICIES[name]))


def make_policy(name: str, **options: Any) -> Policy:
    """A policy by name.

    Args:
        options: its own; None is its default.

    Raises:
        ValueError: no such policy, an option that it does not have, or a value out of range.
    """
    taken = options_of(name)
    given = {option: value for option, value in options.items() if value is not None}
    for option, value in given.items():
        if option not in taken:
            raise ValueError(
                f"{option}: got {value!r}, policy {name!r} has no such option, it takes {', '.join(taken)}"
            )
    return POLICIES[name](**given)
