"""`threshold`: whatever is sure, at least one per step (Fast-dLLM, arXiv 2505.22618)."""

from dataclasses import dataclass

import torch

from unimodal.diffusion.draws import Draw
from unimodal.diffusion.filtering import Proposal
from unimodal.diffusion.policies.policy import Block, Decision, Plain, check_share, take
from unimodal.diffusion.schedule import surest


@dataclass(frozen=True, kw_only=True)
class ThresholdPolicy(Plain):
    """All positions whose token is at least as probable as the threshold, and always the surest one; a block takes as
    many steps as it needs.

    Args:
        threshold: 0 fills a block in one step.
    """

    threshold: float = 0.9

    def __post_init__(self) -> None:
        check_share("threshold", self.threshold)

    def decide(self, block: Block, proposal: Proposal, draw: Draw) -> Decision:
        sure = block.masked & (proposal.confidence >= self.threshold)
        return take(proposal, surest(proposal.confidence, block.masked, torch.ones_like(block.masks)) | sure)
