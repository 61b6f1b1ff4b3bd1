"""A model in three lines, and what to fill with it: quick, and every token depends on all that is seen."""

from types import SimpleNamespace
from typing import Any

import torch

from unimodal.diffusion.policies import options_of
from unimodal.diffusion.sampler import SamplingOptions, SamplingResult, SamplingTask, sample

MASK, EOS, SIZE = 30, 29, 32


class Bag:
    """Logits that follow from the positions and the set of tokens that are seen."""

    def __init__(self, sharpness: float = 4.0):
        source = torch.Generator().manual_seed(3)
        self.embed, self.place, self.head = (
            torch.randn(rows, 12, generator=source, dtype=torch.float64) for rows in (SIZE, 256, SIZE)
        )
        self.sharpness = sharpness

    def __call__(self, tokens, position_ids, attention_mask=None, logits_for=slice(None), vocab_range=None):
        known = torch.tanh(self.embed[tokens] + self.place[position_ids])
        if attention_mask is None:
            seen = known.sum(dim=1, keepdim=True).expand_as(known)
        else:
            seen = attention_mask[:, 0].expand(len(tokens), -1, -1).double() @ known
        hidden = torch.tanh(seen / 4 + self.place[position_ids])[:, logits_for]
        logits = (self.sharpness * hidden @ self.head.T).float()
        return SimpleNamespace(logits=logits[..., slice(*vocab_range)] if vocab_range else logits)


def options(policy: str, **values: Any) -> SamplingOptions:
    steps = {"num_inference_steps": 4} if "num_inference_steps" in options_of(policy) else {}
    return SamplingOptions(policy=policy, **{"block_length": 8, "eos_early_stop": False, **steps, **values})


def fill(tasks: list[SamplingTask], choices: SamplingOptions, model: Any = None, **settings: Any) -> SamplingResult:
    return sample(model or Bag(), tasks, choices, mask_id=MASK, use_cache=False, **settings)


def tasks(*lengths: tuple[int, int]) -> list[SamplingTask]:
    source = torch.Generator().manual_seed(1)
    return [
        SamplingTask(
            prompt=torch.randint(0, 28, (prompt,), generator=source).tolist(),
            length=length,
            generator=torch.Generator().manual_seed(place),
        )
        for place, (prompt, length) in enumerate(lengths)
    ]
