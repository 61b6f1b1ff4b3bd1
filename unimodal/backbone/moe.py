"""Feed-forward layers: the dense one, and the mixture of experts with its router (arXiv 2412.19437, 2512.15745).

T: tokens (B·L), E: experts, K: experts per token, H: model width, I: expert width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unimodal.backbone.config import BackboneConfig
from unimodal.backbone.packed import Linear, PackedExperts, can_pack

EXPERT_PATHS = ("grouped", "loop")
FEW = 4
"""Computing so many times the experts that a token goes to takes no longer than finding its own."""


class GatedFeedForward(nn.Module):
    """down( silu(gate(x)) · up(x) ), arXiv 2002.05202."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class MixtureOfExperts(nn.Module):
    """Routed experts plus a shared one that every token passes."""

    packed: PackedExperts | None = None

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.router = Router(config)
        self.experts = Experts(config)
        width = config.moe_intermediate_size * config.num_shared_experts
        self.shared_experts = GatedFeedForward(config.hidden_size, width) if width else None

    def pack(self) -> None:
        """Packs the experts if they are few."""
        weights = self._weights()
        are_few = len(self.experts.down_proj) <= FEW * self.router.num_chosen
        self.packed = PackedExperts(*weights) if are_few and weights and can_pack(*weights) else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x [B, L, H] -> [B, L, H] and the tokens that each expert received, int [E], or None where nobody counted."""
        tokens = x.flatten(0, 1)
        chosen, weights = self.router(tokens)
        packed = None if self.training or self.experts.path != "grouped" else self.packed
        if packed is not None and packed.fits(tokens, *self._weights()):
            return packed(tokens, chosen, weights).view_as(x), None
        routed, counts = self.experts(tokens, chosen, weights)
        routed = routed.view_as(x)
        return (routed if self.shared_experts is None else routed + self.shared_experts(x)), counts

    def _weights(self) -> list[Tensor]:
        """Those of all experts; none where a layer of the shared one has been replaced by something else."""
        shared = self.shared_experts
        layers = [] if shared is None else [shared.gate_proj, shared.up_proj, shared.down_proj]
        if any(type(layer) is not Linear for layer in layers):
            return []
        return [self.experts.gate_up_proj, self.experts.down_proj, *(layer.weight for layer in layers)]


class Router(nn.Module):
    """Sigmoid scores, groups of experts first, then experts; a bias steers the choice but never the weights."""

    expert_bias: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.num_groups, self.kept_groups = config.n_group, config.topk_group
        self.num_chosen = config.num_experts_per_tok
        self.normalise, self.scale = config.norm_topk_prob, config.routed_scaling_factor
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self.register_buffer("expert_bias", torch.zeros(config.num_experts))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """tokens [T, H] -> chosen experts int [T, K] and their weights float32 [T, K]."""
        with torch.autocast(tokens.device.type, enabled=False):
            scores = F.linear(tokens.float(), self.weight.float()).sigmoid()
            chosen = self.choose(scores.detach() + self.expert_bias.float())
            weights = scores.gather(1, chosen)
            if self.normalise and self.num_chosen > 1:
                weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
            return chosen, weights * self.scale

    def choose(self, scores: Tensor) -> Tensor:
        """The K best experts [T, K] by biased scores [T, E], within the groups whose two best experts sum highest."""
        grouped = scores.view(scores.shape[0], self.num_groups, -1)
        best_two = grouped if grouped.shape[2] == 2 else grouped.topk(2, dim=-1).values
        kept = best_two.sum(dim=-1).topk(self.kept_groups, dim=-1, sorted=False).indices
        dropped = grouped.new_full(grouped.shape[:2], float("-inf")).scatter_(1, kept, 0.0)
        return (grouped + dropped[..., None]).flatten(1).topk(self.num_chosen, dim=-1).indices


class Experts(nn.Module):
    """All routed experts of a layer in two fused tensors; `path` picks how they are computed ("grouped" or "loop")."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        experts, width, hidden = config.num_experts, config.moe_intermediate_size, config.hidden_size
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * width, hidden))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, width))
        self.path = EXPERT_PATHS[0]

    def forward(self, tokens: Tensor, chosen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted sum over the chosen experts, accumulated in float32.

        Args:
            tokens: [T, H].
            chosen, weights: int and float32 [T, K].

        Returns:
            [T, H] in the dtype of `tokens`, and int [E], the tokens each expert received.
        """
        device = tokens.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tokens.dtype
        compute = self._grouped if self.path == "grouped" else self._loop
        mixed, counts = compute(tokens.to(dtype), chosen, weights)
        return mixed.to(tokens.dtype), counts

    def _grouped(self, tokens: Tensor, chosen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        # 1. bring the rows of one expert together
        expert, order = chosen.flatten().sort(stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
        stops = torch.searchsorted(expert, torch.arange(len(self.down_proj), device=expert.device), right=True)
        rows = _Regroup.apply(tokens, order // chosen.shape[1], inverse)
        # 2. two grouped matmuls
        gate, up = grouped_matmul(rows, self.gate_up_proj.to(rows.dtype), stops).chunk(2, dim=-1)
        rows = grouped_matmul(F.silu(gate) * up, self.down_proj.to(rows.dtype), stops)
        # 3. back to the tokens' order, weighted sum over each token's experts
        rows = _Regroup.apply(rows, inverse, order).view(*chosen.shape, -1)
        return (rows * weights[..., None]).sum(dim=1), stops.diff(prepend=stops.new_zeros(1))

    def _loop(self, tokens: Tensor, chosen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        mixed = torch.zeros(tokens.shape, dtype=weights.dtype, device=tokens.device)
        for expert, (gate_up, down) in enumerate(zip(self.gate_up_proj, self.down_proj, strict=True)):
            token, slot = (chosen == expert).nonzero(as_tuple=True)
            gate, up = F.linear(tokens[token], gate_up.to(tokens.dtype)).chunk(2, dim=-1)
            answer = F.linear(F.silu(gate) * up, down.to(tokens.dtype))
            mixed = mixed.index_add(0, token, answer * weights[token, slot, None])
        return mixed, torch.stack([(chosen == expert).sum() for expert in range(len(self.down_proj))])


def grouped_matmul(rows: Tensor, matrices: Tensor, stops: Tensor) -> Tensor:
    """Multiplies each run of rows by its own matrix: rows[stops[e-1]:stops[e]] @ matrices[e]ᵀ.

    Args:
        rows: [N, in], sorted by expert.
        matrices: [E, out, in] of the same dtype.
        stops: int [E], where each expert's run ends.

    Returns:
        [N, out].
    """
    if _has_grouped_kernel(rows, matrices):
        return F.grouped_mm(rows, matrices.transpose(1, 2), offs=stops.to(torch.int32))
    runs = rows.split(stops.diff(prepend=stops.new_zeros(1)).tolist())
    return torch.cat([F.linear(run, matrix) for run, matrix in zip(runs, matrices.unbind(0), strict=True)])


def _has_grouped_kernel(rows: Tensor, matrices: Tensor) -> bool:
    if any(width * rows.element_size() % 16 for width in matrices.shape[1:]):  # it reads 16 bytes at a time
        return False
    supported = {"cpu": (torch.float32, torch.bfloat16), "cuda": (torch.bfloat16,)}
    return rows.dtype in supported.get(rows.device.type, ())


class _Regroup(torch.autograd.Function):
    """rows[index] where every row is taken equally often; the gradient is a gather too, not a slow scatter of sums."""

    @staticmethod
    def forward(ctx, rows: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.count = rows.shape[0]
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        gathered = gradients[0].index_select(0, inverse)
        if gathered.shape[0] != ctx.count:
            gathered = gathered.view(ctx.count, -1, gathered.shape[1]).sum(dim=1)
        return gathered, None, None
