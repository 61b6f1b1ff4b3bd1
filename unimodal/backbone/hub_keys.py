"""Published weight names and ours, both ways.

Published experts are separate matrices, ours are fused per layer: `experts.gate_up_proj` [E, 2I, H] holds gate above
up, and `experts.down_proj` [E, H, I]. All other tensors are the same under another name.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

OUTSIDE = {
    "embedding.weight": "model.word_embeddings.weight",
    "final_norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
IN_LAYER = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.query_key_value.weight": "attention.query_key_value.weight",
    "attention.query_key_value.bias": "attention.query_key_value.bias",
    "attention.query_norm.weight": "attention.query_layernorm.weight",
    "attention.key_norm.weight": "attention.key_layernorm.weight",
    "attention.output.weight": "attention.dense.weight",
    "attention.output.bias": "attention.dense.bias",
    "feed_forward_norm.weight": "post_attention_layernorm.weight",
    "feed_forward.gate_proj.weight": "mlp.gate_proj.weight",
    "feed_forward.up_proj.weight": "mlp.up_proj.weight",
    "feed_forward.down_proj.weight": "mlp.down_proj.weight",
    "feed_forward.router.weight": "mlp.gate.weight",
    "feed_forward.router.expert_bias": "mlp.gate.expert_bias",
    "feed_forward.shared_experts.gate_proj.weight": "mlp.shared_experts.gate_proj.weight",
    "feed_forward.shared_experts.up_proj.weight": "mlp.shared_experts.up_proj.weight",
    "feed_forward.shared_experts.down_proj.weight": "mlp.shared_experts.down_proj.weight",
}
GATE_UP, DOWN = "feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj"

_OUTSIDE_OURS = {published: ours for ours, published in OUTSIDE.items()}
_IN_LAYER_OURS = {published: ours for ours, published in IN_LAYER.items()}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_EXPERT = re.compile(r"mlp\.experts\.(\d+)\.(gate|up|down)_proj\.weight")


@dataclass(frozen=True)
class Place:
    """Where a published tensor lives in our model: a whole tensor, or one expert's rows of a fused one.

    Attributes:
        name: our tensor.
        expert: first index into it, None for the whole tensor.
        half: "gate" or "up" for the first or second half of the rows, None for all of them.
    """

    name: str
    expert: int | None = None
    half: str | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """The view of our tensor `name` that the published tensor fills."""
        if self.expert is None:
            return tensor
        rows = tensor[self.expert]
        if self.half is None:
            return rows
        middle = rows.shape[0] // 2
        return rows[:middle] if self.half == "gate" else rows[middle:]


def place_of(published: str) -> Place | None:
    """Where the published tensor goes, or None if no layer of this architecture has such a tensor."""
    if published in _OUTSIDE_OURS:
        return Place(_OUTSIDE_OURS[published])
    inside = _LAYER.fullmatch(published)
    if inside is None:
        return None
    layer, rest = inside.groups()
    if rest in _IN_LAYER_OURS:
        return Place(f"layers.{int(layer)}.{_IN_LAYER_OURS[rest]}")
    expert = _EXPERT.fullmatch(rest)
    if expert is None:
        return None
    index, part = expert.groups()
    if part == "down":
        return Place(f"layers.{int(layer)}.{DOWN}", int(index))
    return Place(f"layers.{int(layer)}.{GATE_UP}", int(index), part)


def published_names(ours: str, num_experts: int) -> list[str]:
    """The published names of one of our tensors, experts in order, gate before up."""
    if ours in OUTSIDE:
        return [OUTSIDE[ours]]
    _, layer, rest = ours.split(".", 2)
    prefix = f"model.layers.{layer}"
    if rest in IN_LAYER:
        return [f"{prefix}.{IN_LAYER[rest]}"]
    parts = {GATE_UP: ("gate", "up"), DOWN: ("down",)}.get(rest)
    if parts is None:
        raise ValueError(f"ours: {ours!r} is no tensor of the backbone")
    return [f"{prefix}.mlp.experts.{expert}.{part}_proj.weight" for expert in range(num_experts) for part in parts]


def to_published(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Our state dict under its published names: views, not copies, in the order of `state`."""
    for ours, tensor in state.items():
        for name in published_names(ours, tensor.shape[0] if ours.endswith((GATE_UP, DOWN)) else 0):
            place = place_of(name)
            assert place is not None and place.name == ours
            yield name, place.of(tensor)
