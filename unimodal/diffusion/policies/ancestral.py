"""`ancestral`: the masking process in reverse, by chance (RADD, arXiv 2406.03736; MDLM, 2406.07524)."""

from dataclasses import dataclass

from unimodal.diffusion.draws import Draw
from unimodal.diffusion.filtering import Proposal
from unimodal.diffusion.policies.policy import Block, Decision, Plain, check_count, take


@dataclass(frozen=True, kw_only=True)
class AncestralPolicy(Plain):
    """From time t to s, each masked position stays masked with probability s/t, else its proposed token stays. Times
    go from 1 to 0 in equal steps, so the step that leaves k steps including itself reveals a position with probability
    1/k. A temperature of 1 draws from the model as the process does.

    Args:
        num_inference_steps: steps per block. A step that reveals nothing costs no forward pass.
    """

    num_inference_steps: int = 32

    def __post_init__(self) -> None:
        check_count("num_inference_steps", self.num_inference_steps)

    @property
    def draws(self) -> bool:
        return True

    def decide(self, block: Block, proposal: Proposal, draw: Draw) -> Decision:
        steps_left = max(1, self.num_inference_steps - block.step)
        return take(proposal, block.masked & (draw() < 1 / steps_left))
