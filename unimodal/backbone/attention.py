"""Grouped-query attention with normalised queries and keys (arXiv 2305.13245, 2302.05442), and who sees whom."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unimodal.backbone.cache import Cache
from unimodal.backbone.config import BackboneConfig
from unimodal.backbone.fused import can_fuse, normalise_and_rotate
from unimodal.backbone.packed import Derived, Linear
from unimodal.backbone.rotary import rotate

Positions = slice | Tensor | tuple[Tensor, Tensor]

# Queries whose scores of all keys are held at once.
MOST_QUERIES = 128


def block_causal_mask(
    length: int, block_length: int, device: torch.device | str | None = None, valid: Tensor | None = None
) -> Tensor:
    """Who sees whom under block diffusion: query i sees key j where j's block is not later than i's (arXiv 2512.15745).

    Blocks are counted from absolute position 0, whatever is padded.

    Args:
        valid: bool [B, length], False where a position is padding that nobody may see.

    Returns:
        bool [B, 1, length, length] (B = 1 without `valid`), True = visible.

    Raises:
        ValueError: `block_length` below 1, or `valid` of another length.
    """
    if block_length < 1:
        raise ValueError(f"block_length: got {block_length}, allowed is 1 or more")
    block = torch.arange(length, device=device) // block_length
    visible = (block[None, :] <= block[:, None])[None, None]
    if valid is None:
        return visible
    if valid.shape[-1] != length:
        raise ValueError(f"valid: covers {valid.shape[-1]} positions, length is {length}")
    return visible & valid.to(visible.device, torch.bool)[:, None, None, :]


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where visible, -inf where not, made once for all layers.

    A query that sees nothing (left padding) is let see every key: what it computes is finite, and nobody sees it.
    """
    visible = visible | ~visible.any(dim=-1, keepdim=True)
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, float("-inf"))


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32, cast to the input's dtype before the weight is applied (arXiv 1910.07467)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, eps=self.epsilon) * self.weight.to(x.dtype)


class Attention(nn.Module):
    """Fused projection [queries | keys | values], norm of queries and keys, rotation, attention, projection."""

    norm_weights: Derived | None = None

    def __init__(self, config: BackboneConfig, layer: int) -> None:
        super().__init__()
        assert config.head_dim is not None
        self.layer = layer
        self.num_heads, self.num_key_value_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim, self.rotary_dim = config.head_dim, config.rotary_dim
        self.dropout = config.attention_dropout
        slots = self.num_heads + 2 * self.num_key_value_heads
        self.query_key_value = Linear(config.hidden_size, slots * self.head_dim, bias=config.use_qkv_bias)
        self.output = Linear(self.num_heads * self.head_dim, config.hidden_size, bias=config.use_bias)
        if config.use_qk_norm:
            self.query_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
            self.key_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        else:
            self.query_norm, self.key_norm = nn.Identity(), nn.Identity()

    def pack(self) -> None:
        """Keeps the weights of both norms side by side, as they are used."""
        if isinstance(self.query_norm, RMSNorm) and isinstance(self.key_norm, RMSNorm):
            norms = self.query_norm.weight, self.key_norm.weight
            self.norm_weights = Derived(self._weights_of_heads(*norms).detach(), *norms)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: Cache | None = None,
        wanted: Positions | None = None,
    ) -> Tensor:
        """x [B, L, H]; mask additive [B or 1, 1, L, cached + L] or None = everything visible; returns [B, L', H], of
        the `wanted` positions only, a slice or int [L'].
        """
        batch, length, _ = x.shape
        slots = self.query_key_value(x).view(batch, length, -1, self.head_dim)
        turned, value = slots.split([self.num_heads + self.num_key_value_heads, self.num_key_value_heads], dim=2)
        turned = self._turned(turned, *rotary)
        query, key = turned.split([self.num_heads, self.num_key_value_heads], dim=2)
        query, key, value = pick(query, wanted).transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        if cache is not None:
            key, value = cache.extend(self.layer, key, value)
        mask = mask if mask is None else pick(mask.squeeze(1), wanted)[:, None].to(query.dtype)
        if not query.shape[2]:
            return x[:, :0]
        mixed = attend(query, key, value, mask, self.dropout if self.training else 0.0)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _turned(self, heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Queries and keys [B, L, heads + kv_heads, head_dim] in one pass, each normalised by its norm, and rotated."""
        if not (isinstance(self.query_norm, RMSNorm) and isinstance(self.key_norm, RMSNorm)):
            return rotate(heads, cosine, sine, self.rotary_dim)
        norms, epsilon = (self.query_norm.weight, self.key_norm.weight), self.query_norm.epsilon
        if self.norm_weights is not None and self.norm_weights.holds(*norms) and not torch.is_grad_enabled():
            weights = self.norm_weights.value
        else:
            weights = self._weights_of_heads(*norms)
        if can_fuse(heads):
            return normalise_and_rotate(heads, weights, cosine, sine, epsilon, self.rotary_dim)
        normalised = F.rms_norm(heads, heads.shape[-1:], eps=epsilon) * weights.to(heads.dtype)
        return rotate(normalised, cosine, sine, self.rotary_dim)

    def _weights_of_heads(self, query: Tensor, key: Tensor) -> Tensor:
        """Weights of the norms, [heads + kv_heads, head_dim]."""
        return torch.cat([query.expand(self.num_heads, -1), key.expand(self.num_key_value_heads, -1)])


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """softmax(query · keyᵀ / √head_dim + mask) · value, each key head serving a run of consecutive query heads.

    Args:
        query: [B, heads, L, head_dim].
        key, value: [B, kv_heads, K, head_dim].
        mask: additive [B or 1, 1, L, K] in the dtype of the query, or None.

    Returns:
        [B, heads, L, head_dim].
    """
    length, device = query.shape[2], query.device.type
    if device == "cpu" and not dropout and (query.requires_grad or query.dtype == torch.bfloat16):
        return _attend_in_two_products(query, key, value, mask)
    if device == "cuda" and mask is not None and query.shape[1] != key.shape[1]:
        # No fused kernel there takes both a mask and shared key heads: copy what is smaller.
        if length <= 2 * key.shape[1] * key.shape[3]:
            return _attend_with_folded_heads(query, key, value, mask, dropout)
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, enable_gqa=grouped)


def _attend_with_folded_heads(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float = 0.0
) -> Tensor:
    """The query heads of one key head as one head with as many more queries: keys and values are read once."""
    batch, heads, length, width = query.shape
    stacked = query.reshape(batch, key.shape[1], -1, width)
    repeated = mask if mask is None else mask.repeat(1, 1, heads // key.shape[1], 1)
    mixed = F.scaled_dot_product_attention(stacked, key, value, attn_mask=repeated, dropout_p=dropout)
    return mixed.reshape(batch, heads, length, width)


def _attend_in_two_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """For the CPU: the gradient of the fused kernel takes about twice as long as that of these two products, and so
    does its forward in bfloat16.

    Without a gradient, many queries go in parts, for memory. The answer of each has the same bits whatever is computed
    beside it, and however many.
    """
    batch, heads, length, width = query.shape
    keys, values = key.flatten(0, 1).mT, value.flatten(0, 1)

    def mixed(query: Tensor, mask: Tensor | None) -> Tensor:
        stacked = (query * width**-0.5).reshape(len(keys), -1, width)
        scores = torch.bmm(stacked, keys).view(batch, heads, query.shape[2], -1)
        scores = scores if mask is None else scores + mask  # in place, the gradient of a view would be copied thrice
        shares = scores.softmax(dim=-1).view(*stacked.shape[:2], -1)
        return torch.bmm(shares, values).view_as(query)

    # Autocast would take the shares to float32 and back, which costs more than the products; their sums are float32.
    with torch.autocast(query.device.type, enabled=False):
        if query.requires_grad or length <= MOST_QUERIES:
            return mixed(query, mask)
        parts = query.split(MOST_QUERIES, dim=2)
        masks = [None] * len(parts) if mask is None else mask.split(MOST_QUERIES, dim=2)
        return torch.cat([mixed(part, own) for part, own in zip(parts, masks, strict=True)], dim=2)


def pick(hidden: Tensor, positions: Positions | None) -> Tensor:
    """The hidden states [B, L, H] at `positions`: all, a slice or int [L'] the same in each row, int [B, L'] for each
    row its own, or pairs (rows [N], positions [N]) for hidden states [N, H].
    """
    if positions is None:
        return hidden
    if isinstance(positions, slice):
        return hidden[:, positions]
    if isinstance(positions, tuple):
        rows, columns = positions
        return hidden.flatten(0, 1).index_select(0, rows * hidden.shape[1] + columns)
    if positions.dim() == 1:
        return hidden.index_select(1, positions)
    if positions.dim() == 2:
        return hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[2]))
    raise ValueError(f"logits_for: got shape {tuple(positions.shape)}, allowed is [L'] or [B, L']")
