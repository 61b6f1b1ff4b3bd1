"""`remasking`: equal shares by score, in the whole sequence or from left to right (LLaDA, Dream)."""

from dataclasses import dataclass

import torch

from unimodal.diffusion.draws import Draw
from unimodal.diffusion.filtering import Proposal
from unimodal.diffusion.policies import scores
from unimodal.diffusion.policies.policy import Block, Decision, Plain, check_count, take
from unimodal.diffusion.schedule import even_share, surest


@dataclass(frozen=True, kw_only=True)
class RemaskingPolicy(Plain):
    """The masks of a block in equal shares, one per step, those of the highest score first (LLaDA, arXiv 2502.09992;
    Dream, arXiv 2508.15487).

    With a whole sequence in one block this is full-sequence diffusion; with `reveal_length` in it, semi-autoregressive
    diffusion: everything sees everything, and pieces of that length, counted from the end of the prompt, are filled
    one after the other.

    Args:
        num_inference_steps: steps per block, or per piece where there are pieces.
        remasking: `low_confidence`, `top_k_margin`, `neg_entropy` or `random`.
        reveal_length: tokens of a piece; None is no pieces.
    """

    num_inference_steps: int = 32
    remasking: str = "low_confidence"
    reveal_length: int | None = None

    def __post_init__(self) -> None:
        check_count("num_inference_steps", self.num_inference_steps)
        scores.check_remasking(self.remasking)
        if self.reveal_length is not None:
            check_count("reveal_length", self.reveal_length)

    @property
    def draws(self) -> bool:
        return self.remasking == "random"

    @property
    def needs_sequence(self) -> bool:
        return self.reveal_length is not None

    def decide(self, block: Block, proposal: Proposal, draw: Draw) -> Decision:
        fillable, steps, step = block.masked, self.num_inference_steps, block.step
        if self.reveal_length is not None:
            steps = min(steps, self.reveal_length)
            piece, step = divmod(step, steps)
            fillable = fillable & (block.places < (piece + 1) * self.reveal_length)
        counts = even_share(fillable.sum(dim=1), torch.full_like(block.lengths, steps), step)
        return take(proposal, surest(scores.score(self.remasking, proposal, draw), fillable, counts))
