"""`adaptive`: an even share of what is left, and whatever is sure (SPRINT, arXiv 2604.20796)."""

from dataclasses import dataclass

from unimodal.diffusion.draws import Draw
from unimodal.diffusion.filtering import Proposal
from unimodal.diffusion.policies import scores
from unimodal.diffusion.policies.policy import Block, Decision, Plain, check_count, check_share, steps_for, take
from unimodal.diffusion.schedule import even_share, surest


@dataclass(frozen=True, kw_only=True)
class AdaptivePolicy(Plain):
    """An even share of what is left over the steps that are left, by score, and all whose token is strictly more
    probable than the threshold.

    Args:
        num_inference_steps: steps per block at most.
        threshold: 1 leaves it to the steps alone.
        minimal_topk: tokens that a step writes at least; it also limits the steps of short generations.
        remasking: `low_confidence`, `top_k_margin` or `neg_entropy`.
    """

    num_inference_steps: int = 32
    threshold: float = 0.95
    minimal_topk: int = 1
    remasking: str = "low_confidence"

    def __post_init__(self) -> None:
        check_count("num_inference_steps", self.num_inference_steps)
        check_count("minimal_topk", self.minimal_topk)
        check_share("threshold", self.threshold)
        scores.check_remasking(self.remasking, scores.SURE)

    def decide(self, block: Block, proposal: Proposal, draw: Draw) -> Decision:
        steps = steps_for(block, self.num_inference_steps, self.minimal_topk)
        counts = even_share(block.masked.sum(dim=1), steps, block.step).clamp(min=self.minimal_topk)
        sure = block.masked & (proposal.confidence > self.threshold)
        return take(proposal, surest(scores.score(self.remasking, proposal, draw), block.masked, counts) | sure)
