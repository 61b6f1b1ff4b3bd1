"""`quota`: a fixed share of the block per step, and whatever is sure (LLaDA2.0, arXiv 2512.15745)."""

from dataclasses import dataclass

from unimodal.diffusion.draws import Draw
from unimodal.diffusion.filtering import Proposal
from unimodal.diffusion.policies.policy import Block, Decision, Plain, check_count, check_share, steps_for, take
from unimodal.diffusion.schedule import fixed_share, surest


@dataclass(frozen=True, kw_only=True)
class QuotaPolicy(Plain):
    """The step's share of the block by confidence, or all that are strictly above the threshold where these are more.

    Args:
        num_inference_steps: steps per block; more than the block has positions changes nothing.
        threshold: 1 leaves it to the steps alone.
        minimal_topk: tokens that a step writes at least; it limits the steps of short generations.
    """

    num_inference_steps: int = 32
    threshold: float = 0.95
    minimal_topk: int = 1

    def __post_init__(self) -> None:
        check_count("num_inference_steps", self.num_inference_steps)
        check_count("minimal_topk", self.minimal_topk)
        check_share("threshold", self.threshold)

    def decide(self, block: Block, proposal: Proposal, draw: Draw) -> Decision:
        steps = steps_for(block, self.num_inference_steps, self.minimal_topk)
        counts = fixed_share(block.sizes, steps, block.step)
        sure = block.masked & (proposal.confidence > self.threshold)
        return take(proposal, surest(proposal.confidence, block.masked, counts) | sure)
