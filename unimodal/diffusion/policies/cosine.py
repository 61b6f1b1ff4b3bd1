"""`cosine`: few positions at first, many at the end (MaskGIT, arXiv 2202.04200)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unimodal.diffusion.draws import Draw
from unimodal.diffusion.filtering import Proposal
from unimodal.diffusion.policies import scores
from unimodal.diffusion.policies.policy import Block, Decision, Plain, check_count, take
from unimodal.diffusion.schedule import cosine_share, surest


@dataclass(frozen=True, kw_only=True)
class CosinePolicy(Plain):
    """After step t of T, ⌊cos(π/2 · t/T) · masks⌋ positions of the block stay masked. For pictures, best in one block.

    Args:
        num_inference_steps: steps per block.
        remasking: the score; `low_confidence`, `top_k_margin`, `neg_entropy` or `random`.
        choice_temperature: how much Gumbel noise the logarithm of the confidence gets at first; it fades linearly to
            none in the last step. Only with `low_confidence`.
    """

    num_inference_steps: int = 32
    remasking: str = "low_confidence"
    choice_temperature: float = 0.0

    def __post_init__(self) -> None:
        check_count("num_inference_steps", self.num_inference_steps)
        scores.check_remasking(self.remasking)
        if not 0 <= self.choice_temperature < float("inf"):
            raise ValueError(
                f"choice_temperature: got {self.choice_temperature}, it must be a finite number of 0 or more"
            )
        if self.choice_temperature and self.remasking != "low_confidence":
            raise ValueError(
                f"choice_temperature: got {self.choice_temperature}, noise is for low_confidence, "
                f"remasking is {self.remasking!r}"
            )

    @property
    def draws(self) -> bool:
        return self.remasking == "random" or self.choice_temperature > 0

    @property
    def ends_text(self) -> bool:
        return False

    def decide(self, block: Block, proposal: Proposal, draw: Draw) -> Decision:
        steps = torch.full_like(block.lengths, self.num_inference_steps)
        counts = cosine_share(block.masked.sum(dim=1), block.masks, steps, block.step)
        return take(proposal, surest(self._score(block, proposal, draw), block.masked, counts))

    def _score(self, block: Block, proposal: Proposal, draw: Draw) -> Tensor:
        if not self.choice_temperature:
            return scores.score(self.remasking, proposal, draw)
        smallest = torch.finfo(torch.float32).tiny
        noise = -torch.log(-torch.log(draw().clamp(min=smallest)))
        fade = 1 - (block.step + 1) / self.num_inference_steps
        return proposal.confidence.clamp(min=smallest).log() + self.choice_temperature * fade * noise
