"""The masked-diffusion transformer: one vocabulary of text and picture codes, block-causal attention, experts.

Follows LLaDA2.0 (arXiv 2512.15745) as used by LLaDA2.0-Uni (arXiv 2604.20796). Notable: no causal mask and no shift
(the logits at a position predict the token at that position), queries and keys normalised before half of each head is
rotated, sigmoid routing in groups, a head that is not tied to the embedding.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from unimodal.backbone.attention import Attention, Positions, RMSNorm, additive_mask, pick
from unimodal.backbone.cache import Cache, PrefixCache
from unimodal.backbone.config import BackboneConfig
from unimodal.backbone.moe import EXPERT_PATHS, Experts, GatedFeedForward, MixtureOfExperts, Router
from unimodal.backbone.packed import Linear, Packed, can_pack
from unimodal.backbone.rotary import rotary_table


@dataclass
class BackboneOutput:
    """What a forward gives.

    Attributes:
        logits: float32 [B, L', V'], or [N, V'] where single positions were asked for.
        hidden_states: with `return_hidden`, the input of each layer, and last the output of the final norm; [B, L, H].
        router_counts: int [expert layers, E], tokens sent to each expert in this forward; only in training mode.
    """

    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    router_counts: Tensor | None = None


class MaskedDiffusionTransformer(PreTrainedModel):
    """Tokens to logits over the whole vocabulary."""

    config_class = BackboneConfig
    config: BackboneConfig
    base_model_prefix = ""
    main_input_name = "tokens"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Layer"]  # noqa: RUF012 (declared this way by the base class)
    _supports_sdpa = True

    def __init__(self, config: BackboneConfig) -> None:
        config.check()
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))
        self.final_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = VocabularyHead(config.hidden_size, config.vocab_size, bias=False)
        self._rotary: tuple[Tensor, tuple[Tensor, Tensor]] | None = None
        self.post_init()

    def forward(
        self,
        tokens: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: Cache | None = None,
        update_cache: bool = False,
        logits_for: Positions | None = None,
        return_hidden: bool = False,
        vocab_range: tuple[int, int] | None = None,
    ) -> BackboneOutput:
        """One pass over `tokens`, which stand behind the cached prefix if there is one.

        Args:
            tokens: int [B, L].
            position_ids: int [B or 1, L]; None counts on from the cached length. Where the configuration has a
                `grid_rotary_dim`, [B or 1, L, 3]: with row and column of picture codes (`SequenceBuilder.coordinates`).
            attention_mask: bool [B or 1, 1, L, cached + L], True = visible; None = everything visible.
            cache: keys and values of the prefix; they are read, and kept only with `update_cache`.
            update_cache: makes the keys and values of this pass part of the prefix.
            logits_for: positions that get logits: a slice or int [L'], int [B, L'] for each row its own, or a pair
                (rows [N], positions [N]) as `nonzero(as_tuple=True)` gives, for logits [N, V']. None = all.
            return_hidden: also return the hidden states.
            vocab_range: (start, stop) of the vocabulary rows to compute; None = all.

        Raises:
            ValueError: a mask or positions of another shape.
        """
        same_in_all_rows = isinstance(logits_for, slice) or (isinstance(logits_for, Tensor) and logits_for.dim() == 1)
        # The last layer leaves out what nobody asks for, but for its keys and values.
        wanted = logits_for if same_in_all_rows and not (self.training or return_hidden) else None
        hidden, states, counts = self._encode(
            tokens, position_ids, attention_mask, cache, update_cache, return_hidden, wanted
        )
        logits = self.head(hidden if wanted is not None else pick(hidden, logits_for), vocab_range)
        return BackboneOutput(logits, states, counts)

    def hidden(
        self,
        tokens: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: Cache | None = None,
        update_cache: bool = False,
    ) -> Tensor:
        """The output of the final norm [B, L, H], ready for `head`. Arguments as in `forward`."""
        return self._encode(tokens, position_ids, attention_mask, cache, update_cache)[0]

    def new_cache(self, capacity: int = 0) -> PrefixCache:
        """An empty prefix cache for this model, with room for `capacity` positions."""
        return PrefixCache(len(self.layers), capacity)

    def routers(self) -> list[Router]:
        """The routers in layer order, as the rows of `router_counts`."""
        return [module for module in self.modules() if isinstance(module, Router)]

    def set_expert_path(self, path: str) -> None:
        """Computes experts by "grouped" matmuls or by the plain "loop" (the same answer, slower)."""
        if path not in EXPERT_PATHS:
            raise ValueError(f"path: got {path!r}, allowed is {' or '.join(EXPERT_PATHS)}")
        for module in self.modules():
            if isinstance(module, Experts):
                module.path = path

    def pack_weights(self) -> None:
        """Keeps a second copy of the weights in the layout with which a CPU multiplies few rows fastest, where there is
        one; elsewhere of the weights of queries' and keys' norms alone, side by side. For inference. A weight that has
        changed since is used as it is; one that is written to through `.data` needs another call.
        """
        for module in self.modules():
            if isinstance(module, Attention | Linear | MixtureOfExperts | VocabularyHead):
                module.pack()

    def _encode(
        self,
        tokens: Tensor,
        position_ids: Tensor | None,
        attention_mask: Tensor | None,
        cache: Cache | None,
        update_cache: bool,
        return_hidden: bool = False,
        wanted: Positions | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None, Tensor | None]:
        if tokens.dim() != 2:
            raise ValueError(f"tokens: got shape {tuple(tokens.shape)}, allowed is [batch, length]")
        length, cached = tokens.shape[1], 0 if cache is None else cache.length
        grid_dim = self.config.grid_rotary_dim
        if position_ids is None:
            position_ids = torch.arange(cached, cached + length, device=tokens.device)[None]
            position_ids = F.pad(position_ids[..., None], (0, 2)) if grid_dim else position_ids
        _check_shapes(tokens, position_ids, attention_mask, cached, 3 if grid_dim else 1)

        x = self.embedding(tokens)
        rotary = self._rotary_table(position_ids, x.dtype)
        mask = None if attention_mask is None else additive_mask(attention_mask, _run_dtype(x))
        states, counts = [], []
        for index, layer in enumerate(self.layers):
            if return_hidden:
                states.append(x)
            is_last = index == len(self.layers) - 1
            x, layer_counts = layer(x, rotary, mask, cache, wanted if is_last else None)
            if layer_counts is not None:
                counts.append(layer_counts)
        x = self.final_norm(x)
        if cache is not None and update_cache:
            cache.append(length)
        return x, (*states, x) if return_hidden else None, torch.stack(counts) if counts and self.training else None

    def _rotary_table(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The table of these positions; on a CPU the last one is kept, as all steps of a block have the same."""
        keeps = position_ids.device.type == "cpu" and not torch.compiler.is_compiling()
        if self._rotary is not None and keeps:
            positions, table = self._rotary
            if table[0].dtype == dtype and torch.equal(positions, position_ids):
                return table
        config = self.config
        assert config.head_dim is not None
        table = rotary_table(
            position_ids,
            config.head_dim,
            config.rotary_dim,
            config.rope_theta,
            dtype,
            config.grid_rotary_dim,
            config.grid_rotary_periods,
        )
        if keeps:
            self._rotary = position_ids.clone(), table
        return table

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        deviation = self.config.initializer_range
        if isinstance(module, nn.Linear | nn.Embedding | Router):
            nn.init.normal_(module.weight, std=deviation)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, Router):
            nn.init.zeros_(module.expert_bias)
        if isinstance(module, Experts):
            nn.init.normal_(module.gate_up_proj, std=deviation)
            nn.init.normal_(module.down_proj, std=deviation)
        if isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)


class Layer(GradientCheckpointingLayer):
    """Attention, then feed-forward, each on normalised input and added to the stream."""

    def __init__(self, config: BackboneConfig, index: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config, index)
        self.feed_forward_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if config.is_dense(index):
            self.feed_forward = GatedFeedForward(config.hidden_size, config.intermediate_size)
        else:
            self.feed_forward = MixtureOfExperts(config)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: Cache | None = None,
        wanted: Positions | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """x [B, L, H] -> [B, L', H], of the `wanted` positions only, and the tokens per expert [E] (None in a dense
        layer, and where nothing is wanted).
        """
        x = pick(x, wanted) + self.attention(self.attention_norm(x), rotary, mask, cache, wanted)
        if not x.shape[1]:
            return x, None
        update: Any = self.feed_forward(self.feed_forward_norm(x))
        update, counts = update if isinstance(update, tuple) else (update, None)
        return x + update, counts


class VocabularyHead(nn.Linear):
    """Hidden states to float32 logits, over the whole vocabulary or a range of it."""

    packed: dict[tuple[int, int], Packed] | None = None

    def pack(self) -> None:
        """From now on every range is packed when it is first asked for."""
        self.packed = {} if can_pack(self.weight) else None

    def forward(self, input: Tensor, vocab_range: tuple[int, int] | None = None) -> Tensor:
        """input [..., H] -> [..., V'], V' = stop - start of `vocab_range`."""
        start, stop = vocab_range or (0, self.out_features)
        if not 0 <= start < stop <= self.out_features:
            raise ValueError(f"vocab_range: got {vocab_range}, allowed is a range within [0, {self.out_features}]")
        if self.packed is not None and not (torch.is_grad_enabled() or torch.compiler.is_compiling()):
            packed = self.packed.get((start, stop)) or Packed(self.weight[start:stop], self.weight)
            self.packed[start, stop] = packed
            if packed.fits(input, self.weight):
                return packed.product(input).float()
        return F.linear(input, self.weight[start:stop]).float()


def _run_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which attention runs."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _check_shapes(tokens: Tensor, position_ids: Tensor, mask: Tensor | None, cached: int, axes: int) -> None:
    batch, length = tokens.shape
    each = (length,) if axes == 1 else (length, axes)
    if position_ids.shape not in ((batch, *each), (1, *each)):
        raise ValueError(f"position_ids: got shape {tuple(position_ids.shape)}, allowed is {(batch, *each)}")
    if mask is None:
        return
    allowed = (batch, 1, length, cached + length)
    if mask.dtype != torch.bool or mask.shape not in (allowed, (1, *allowed[1:])):
        raise ValueError(f"attention_mask: got {mask.dtype} {tuple(mask.shape)}, allowed is bool {allowed}")
