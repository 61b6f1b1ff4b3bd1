"""`editing`: tokens that stand are replaced when the model is sure of another (LLaDA2.1, arXiv 2602.08676)."""

from dataclasses import dataclass

import torch

from unimodal.diffusion.draws import Draw
from unimodal.diffusion.filtering import Proposal
from unimodal.diffusion.policies.policy import Block, Decision, check_count, check_share
from unimodal.diffusion.policies.quota import QuotaPolicy


@dataclass(frozen=True, kw_only=True)
class EditingPolicy(QuotaPolicy):
    """Two thresholds. Masks are filled as by `quota`: what is more probable than `threshold`, at least the step's
    share. In every step, tokens of the block that were generated give way to the most probable token where that is
    another one and strictly more probable than `editing_threshold`. A full block gets more steps until nothing changes.

    Args:
        num_inference_steps: steps per block that fill masks; as many as the block has positions is one at least.
        threshold: for masks.
        minimal_topk: as in `quota`.
        editing_threshold: for tokens.
        max_post_steps: steps of a full block at most.
    """

    threshold: float = 0.7
    editing_threshold: float = 0.5
    max_post_steps: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("max_post_steps", self.max_post_steps, least=0)
        check_share("editing_threshold", self.editing_threshold)

    @property
    def revises(self) -> bool:
        return True

    def decide(self, block: Block, proposal: Proposal, draw: Draw) -> Decision:
        filled = super().decide(block, proposal, draw).chosen
        better, confidence = proposal.most_probable()
        standing = block.open & ~block.masked
        replaced = standing & (better != block.tokens) & (confidence > self.editing_threshold)
        had_masks = block.masked.any(dim=1)
        left = block.full_steps + (~had_masks).long() < self.max_post_steps
        return Decision(
            chosen=filled | replaced,
            tokens=torch.where(replaced, better, proposal.tokens),
            confidence=torch.where(replaced, confidence, proposal.confidence),
            unfinished=(had_masks | replaced.any(dim=1)) & left,
        )
