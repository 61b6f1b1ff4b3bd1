"""What an unmasking policy is: it sees a block and a proposal for every position, and decides which ones to take.

A policy is a frozen dataclass whose fields are its own options. To add one, write it in a file of this folder and name
it in `POLICIES`.

Legend: N samples, B positions of a block, V vocabulary or the part of it that may be chosen.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from unimodal.diffusion.draws import Draw
from unimodal.diffusion.filtering import Proposal


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of every sample, before a step. Samples that wait for others have nothing masked and nothing open.

    Args:
        tokens: ids, int64 [N, B].
        masked: positions that are still to fill, bool [N, B].
        open: positions that were to fill when the block began, masked or filled since, bool [N, B].
        places: positions counted from the end of each prompt, negative in the prompt, int64 [N, B].
        sizes: positions of the block that hold something of the sample's own, its prompt included, int64 [N].
        masks: positions that were masked when the block began, int64 [N].
        lengths: tokens that the sample generates at most, in all blocks, int64 [N].
        full_steps: steps that the sample has had in this block since nothing was masked any more, int64 [N].
        step: steps that the block has had.
    """

    tokens: Tensor
    masked: Tensor
    open: Tensor
    places: Tensor
    sizes: Tensor
    masks: Tensor
    lengths: Tensor
    full_steps: Tensor
    step: int


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a step writes.

    Args:
        chosen: where, bool [N, B].
        tokens: ids, int64 [N, B].
        confidence: their probabilities, float32 [N, B].
        unfinished: samples that want another step although nothing is masked, bool [N]; None is none.
    """

    chosen: Tensor
    tokens: Tensor
    confidence: Tensor
    unfinished: Tensor | None = None


class Policy(Protocol):
    """Decides what a step of a block writes."""

    @property
    def draws(self) -> bool:
        """Whether `decide` needs random numbers."""
        ...

    @property
    def ends_text(self) -> bool:
        """Whether the policy suits text that ends at a stop token."""
        ...

    @property
    def needs_sequence(self) -> bool:
        """Whether the policy is for whole sequences in one block only."""
        ...

    @property
    def revises(self) -> bool:
        """Whether positions that are filled may change; proposals at these mean nothing otherwise."""
        ...

    def decide(self, block: Block, proposal: Proposal, draw: Draw) -> Decision:
        """What to write where; `draw` gives uniform numbers [N, B]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Answers that most policies share: nothing is drawn, text and blocks of any kind are fine, what stands stays."""

    @property
    def draws(self) -> bool:
        return False

    @property
    def ends_text(self) -> bool:
        return True

    @property
    def needs_sequence(self) -> bool:
        return False

    @property
    def revises(self) -> bool:
        return False


def take(proposal: Proposal, chosen: Tensor) -> Decision:
    """Takes the proposed tokens at the chosen positions."""
    return Decision(chosen=chosen, tokens=proposal.tokens, confidence=proposal.confidence)


def steps_for(block: Block, num_inference_steps: int, minimal_topk: int = 1) -> Tensor:
    """Steps per block of each sample, int64 [N]: fewer where little is generated, at least one."""
    return (block.lengths // minimal_topk).clamp(1, num_inference_steps)


def check_count(name: str, value: int, least: int = 1) -> None:
    """Raises: ValueError: no whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: got {value!r}, it must be a whole number of at least {least}")


def check_share(name: str, value: float) -> None:
    """Raises: ValueError: no number between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name}: got {value!r}, it must be between 0 and 1")
