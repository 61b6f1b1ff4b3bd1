"""The same text written by diffusers' `LLaDA2Pipeline` with its `BlockRefinementScheduler`.

The pipeline computes the whole prefix in every step and gives the model a mask of two dimensions, which says what is
padding and nothing of blocks. `BlockMasked` makes the model that it expects of ours: it applies the block mask, as the
published model does by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from unimodal.backbone import MaskedDiffusionTransformer
from unimodal.backbone.attention import block_causal_mask
from unimodal.backbone.model import BackboneOutput
from unimodal.benchmark.cases import WritingCase

if TYPE_CHECKING:
    from unimodal.benchmark.subject import Subject


class BlockMasked(nn.Module):
    """A backbone that sees in blocks, called as diffusers calls a language model; `forwards` counts the calls."""

    def __init__(self, backbone: MaskedDiffusionTransformer, block_length: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.block_length = block_length
        self.forwards = 0

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    def forward(self, tokens: Tensor, attention_mask: Tensor, position_ids: Tensor) -> BackboneOutput:
        """Logits of every position.

        Args:
            tokens, position_ids: int [B, L].
            attention_mask: int [B, L], 0 where nobody may see.
        """
        self.forwards += 1
        mask = block_causal_mask(tokens.shape[1], self.block_length, tokens.device, attention_mask)
        return self.backbone(tokens, position_ids=position_ids, attention_mask=mask)


def write_with_diffusers(case: WritingCase, subject: Subject, prompt: list[int]) -> tuple[list[int], int]:
    """The tokens that diffusers writes, and how many passes through the model it took."""
    from diffusers.pipelines.llada2.pipeline_llada2 import LLaDA2Pipeline
    from diffusers.schedulers.scheduling_block_refinement import BlockRefinementScheduler

    options = case.options
    assert options.num_inference_steps is not None and options.threshold is not None
    model = BlockMasked(subject.backbone, options.block_length)
    pipe = LLaDA2Pipeline(model=model, scheduler=BlockRefinementScheduler(block_length=options.block_length))
    pipe.set_progress_bar_config(disable=True)
    sequences, _ = pipe(
        input_ids=cast(torch.LongTensor, torch.tensor([prompt], device=subject.device)),
        gen_length=case.length,
        block_length=options.block_length,
        num_inference_steps=options.num_inference_steps,
        threshold=options.threshold,
        temperature=options.temperature,
        editing_threshold=None,
        eos_early_stop=False,
        mask_token_id=subject.mask_id,
        output_type="seq",
        return_dict=False,
    )
    return sequences[0].tolist(), model.forwards
