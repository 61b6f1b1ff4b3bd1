"""The transformer: fast paths equal their slow twins, later blocks never reach earlier ones, routing by hand."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from small_backbone import PICTURES, SIZE, SIZES, small_backbone
from torch import Tensor

from unimodal.backbone import BackboneConfig, MaskedDiffusionTransformer, PrefixCache, block_causal_mask, hub_keys
from unimodal.backbone.attention import RMSNorm, _attend_with_folded_heads, additive_mask, attend
from unimodal.backbone.moe import Router, grouped_matmul
from unimodal.backbone.rotary import rotary_table, rotate


@pytest.fixture(scope="module")
def model() -> MaskedDiffusionTransformer:
    return small_backbone()


def draw_tokens(generator: torch.Generator, batch: int, length: int) -> Tensor:
    return torch.randint(0, SIZE, (batch, length), generator=generator)


def close(ours: Tensor, expected: Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(ours, expected, rtol=0.0, atol=tolerance)


# Who sees whom


def test_block_mask_by_hand() -> None:
    mask = block_causal_mask(96, 32)
    assert mask.shape == (1, 1, 96, 96)
    assert mask[0, 0, 40].nonzero().flatten().tolist() == list(range(64))
    assert mask[0, 0, 31].sum() == 32 and mask[0, 0, 32].sum() == 64


def test_block_mask_hides_padding_from_everyone() -> None:
    valid = torch.tensor([[False, False, True, True, True]])
    mask = block_causal_mask(5, 2, valid=valid)
    assert mask[0, 0].int().tolist() == [[0] * 5, [0] * 5, [0, 0, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]


@pytest.mark.parametrize(("arguments", "name"), [((8, 0), "block_length"), ((8, 2, None, torch.ones(1, 7)), "valid")])
def test_block_mask_refuses(arguments: tuple, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        block_causal_mask(*arguments)


@torch.no_grad()
def test_later_blocks_never_change_earlier_logits(
    model: MaskedDiffusionTransformer, generator: torch.Generator
) -> None:
    tokens = draw_tokens(generator, 2, 20)
    changed = tokens.clone()
    changed[:, 12:] = (changed[:, 12:] + 7) % SIZE
    mask = block_causal_mask(20, 4)
    before, after = model(tokens, attention_mask=mask).logits, model(changed, attention_mask=mask).logits
    close(after[:, :12], before[:, :12], 1e-6)
    assert (after[:, 12:] - before[:, 12:]).abs().max() > 0.1


@torch.no_grad()
def test_a_block_sees_all_of_itself(model: MaskedDiffusionTransformer, generator: torch.Generator) -> None:
    tokens = draw_tokens(generator, 1, 8)
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % SIZE
    mask = block_causal_mask(8, 4)
    exact = deepcopy(model).double()
    difference = (exact(tokens, attention_mask=mask).logits - exact(changed, attention_mask=mask).logits).abs()
    assert difference[:, 4].max() > 1e-3 and difference[:, :4].max() < 1e-6


@torch.no_grad()
def test_left_padding_changes_nothing_and_stays_finite(
    model: MaskedDiffusionTransformer, generator: torch.Generator
) -> None:
    # Blocks stay at physical multiples, so padding by whole blocks keeps them; positions restart after the padding.
    tokens = draw_tokens(generator, 1, 12)
    alone = model(tokens, attention_mask=block_causal_mask(12, 4)).logits
    padded = torch.cat([torch.zeros(1, 8, dtype=torch.long), tokens], dim=1)
    valid = torch.arange(20)[None] >= 8
    positions = (torch.arange(20)[None] - 8).clamp_min(0)
    output = model(padded, positions, block_causal_mask(20, 4, valid=valid), return_hidden=True)
    assert all(state.isfinite().all() for state in output.hidden_states)
    close(output.logits[:, 8:], alone)


def test_padding_gives_finite_gradients(generator: torch.Generator) -> None:
    model = small_backbone().train()
    mask = block_causal_mask(8, 4, valid=torch.arange(8)[None] >= 5)
    model(draw_tokens(generator, 1, 8), attention_mask=mask).logits.logsumexp(-1).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


# Slow twins


@torch.no_grad()
def test_cached_equals_full(model: MaskedDiffusionTransformer, generator: torch.Generator) -> None:
    tokens, mask = draw_tokens(generator, 3, 20), block_causal_mask(20, 4)
    full = model(tokens, attention_mask=mask).logits
    cache = model.new_cache()
    for start in range(0, 20, 4):
        block = {"tokens": tokens[:, start : start + 4], "attention_mask": mask[:, :, start : start + 4, : start + 4]}
        # A pass that does not update leaves the cache as it was.
        close(model(**block, cache=cache).logits, full[:, start : start + 4])
        assert cache.length == start
        close(model(**block, cache=cache, update_cache=True).logits, full[:, start : start + 4])
    assert cache.length == 20


@torch.no_grad()
def test_cache_rows_positions_and_truncation(model: MaskedDiffusionTransformer, generator: torch.Generator) -> None:
    tokens = draw_tokens(generator, 3, 12)
    cache = model.new_cache(capacity=5)
    model(tokens[:, :8], attention_mask=block_causal_mask(8, 4), cache=cache, update_cache=True)
    full = model(tokens, attention_mask=block_causal_mask(12, 4)).logits[:, 8:]
    rows = cache.select([2, 0])
    close(model(tokens[[2, 0], 8:], cache=rows).logits, full[[2, 0]])
    kept = torch.tensor([[0, 1, 5], [2, 3, 4], [1, 6, 7]])
    pruned = cache.gather([kept] * cache.num_layers)
    assert pruned.length == 3
    for layer in range(cache.num_layers):
        close(pruned.keys(layer)[1], cache.keys(layer)[1][:, [2, 3, 4]], 0.0)
        close(pruned.values(layer)[2], cache.values(layer)[2][:, [1, 6, 7]], 0.0)
    cache.truncate(4)
    assert cache.keys(0).shape[2] == 4
    shorter = torch.cat([tokens[:, :4], tokens[:, 8:]], dim=1)
    positions = torch.tensor([[8, 9, 10, 11]])
    mask = block_causal_mask(8, 4)
    expected = model(shorter, torch.tensor([[0, 1, 2, 3, 8, 9, 10, 11]]), mask).logits[:, 4:]
    close(model(tokens[:, 8:], positions, cache=cache).logits, expected)


def test_cache_refuses_what_it_does_not_hold() -> None:
    cache = PrefixCache(2)
    with pytest.raises(ValueError, match="length"):
        cache.truncate(1)
    with pytest.raises(ValueError, match="layer"):
        cache.keys(0)
    with pytest.raises(ValueError, match="count"):
        cache.append(3)


def test_grouped_experts_equal_the_loop_with_gradients(generator: torch.Generator) -> None:
    tokens = draw_tokens(generator, 2, 9)
    gradients, logits, counts = [], [], []
    for path in ("grouped", "loop"):
        model = small_backbone().train()
        model.set_expert_path(path)
        output = model(tokens)
        output.logits.sin().sum().backward()
        logits.append(output.logits.detach())
        counts.append(output.router_counts)
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    close(logits[0], logits[1])
    assert torch.equal(counts[0], counts[1])
    assert counts[0].shape == (2, 12) and counts[0].sum(dim=1).tolist() == [2 * 9 * 3] * 2
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-4, msg=name)


def test_slices_equal_the_grouped_kernel(generator: torch.Generator) -> None:
    rows = torch.randn(10, 6, generator=generator, dtype=torch.float64)
    matrices = torch.randn(4, 5, 6, generator=generator, dtype=torch.float64)
    stops = torch.tensor([3, 3, 9, 10])  # the second expert has no rows
    by_hand = torch.stack([matrices[expert] @ row for row, expert in zip(rows, [0, 0, 0, *[2] * 6, 3], strict=True)])
    close(grouped_matmul(rows, matrices, stops), by_hand, 1e-12)
    wider = torch.nn.functional.pad(matrices, (0, 2, 0, 3)).float()  # 8 × 8, as the kernel wants them
    close(grouped_matmul(torch.nn.functional.pad(rows, (0, 2)).float(), wider, stops)[:, :5], by_hand.float())


def test_training_attention_equals_the_fused_kernel(generator: torch.Generator) -> None:
    query, key, value = (torch.randn(2, heads, 8, 4, generator=generator, requires_grad=True) for heads in (6, 2, 2))
    mask = additive_mask(block_causal_mask(8, 4, valid=torch.arange(8)[None] >= 5), torch.float32)
    plain = attend(query, key, value, mask)
    fused = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    close(plain, fused, 1e-5)
    for ours, theirs in zip(
        torch.autograd.grad(plain.sin().sum(), (query, key, value)),
        torch.autograd.grad(fused.sin().sum(), (query, key, value)),
        strict=True,
    ):
        close(ours, theirs, 1e-5)


@pytest.mark.parametrize("masked", [True, False])
def test_folded_heads_equal_the_fused_kernel(generator: torch.Generator, masked: bool) -> None:
    query, key, value = (torch.randn(2, heads, 8, 4, generator=generator) for heads in (6, 2, 2))
    key, value = (torch.cat([x, x.flip(2)], dim=2) for x in (key, value))
    visible = torch.arange(16) % 3 != torch.arange(8)[:, None] % 3
    mask = additive_mask(visible.expand(2, 1, 8, 16), torch.float32) if masked else None
    fused = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    close(_attend_with_folded_heads(query, key, value, mask), fused, 1e-6)


@torch.no_grad()
def test_short_and_long_queries_in_bfloat16_agree_with_float32(generator: torch.Generator) -> None:
    query = torch.randn(1, 6, 300, 16, generator=generator)
    key, value = (torch.randn(1, 2, 300, 16, generator=generator) for _ in range(2))
    exact = attend(query, key, value, None)
    for length in (32, 300):
        half = attend(query[:, :, :length].bfloat16(), key.bfloat16(), value.bfloat16(), None)
        assert (half - exact[:, :, :length]).norm() / exact[:, :, :length].norm() < 0.01


def test_queries_and_keys_are_normalised_each_with_its_own_weight(generator: torch.Generator) -> None:
    layer: Any = small_backbone().layers[0]
    attention = layer.attention
    for norm in (attention.query_norm, attention.key_norm):
        norm.weight.data.uniform_(0.5, 2.0, generator=generator)
    heads = torch.randn(2, 5, 8, 12, generator=generator)
    expected = torch.cat([attention.query_norm(heads[:, :, :6]), attention.key_norm(heads[:, :, 6:])], dim=2)
    table = rotary_table(torch.arange(5)[None], 12, attention.rotary_dim, 1e4, heads.dtype)
    assert torch.equal(attention._turned(heads, *table), rotate(expected, *table, attention.rotary_dim))


@torch.no_grad()
def test_batch_equals_single_runs(model: MaskedDiffusionTransformer, generator: torch.Generator) -> None:
    tokens = draw_tokens(generator, 3, 8)
    together = model(tokens).logits
    close(torch.cat([model(row[None]).logits for row in tokens]), together)


@torch.no_grad()
def test_logits_where_and_of_what_is_asked_for(model: MaskedDiffusionTransformer, generator: torch.Generator) -> None:
    tokens = draw_tokens(generator, 2, 6)
    full = model(tokens).logits
    assert full.dtype == torch.float32
    close(model(tokens, logits_for=slice(2, 5)).logits, full[:, 2:5])
    close(model(tokens, logits_for=torch.tensor([4, 0])).logits, full[:, [4, 0]])
    each = torch.tensor([[1, 2], [5, 0]])
    close(model(tokens, logits_for=each).logits, torch.stack([full[0, each[0]], full[1, each[1]]]))
    masked = (tokens % 2 == 0).nonzero(as_tuple=True)
    close(model(tokens, logits_for=masked).logits, full[masked])
    close(model(tokens, vocab_range=PICTURES).logits, full[..., slice(*PICTURES)])
    close(model.head(model.hidden(tokens)), full)
    with pytest.raises(ValueError, match="vocab_range"):
        model(tokens, vocab_range=(PICTURES[0], SIZE + 1))


def test_gradient_checkpointing_changes_no_gradient(generator: torch.Generator) -> None:
    tokens = draw_tokens(generator, 2, 8)
    gradients = []
    for checkpointing in (False, True):
        model = small_backbone().train()
        if checkpointing:
            # Renamed in recent versions of the library.
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
            assert model.layers[0].gradient_checkpointing
        output = model(tokens)
        output.logits.sin().sum().backward()
        assert output.router_counts.sum() == 2 * 2 * 8 * 3
        gradients.append(model.embedding.weight.grad)
    close(gradients[1], gradients[0], 1e-4)


def test_trains_under_autocast(generator: torch.Generator) -> None:
    model = small_backbone().train()
    tokens = draw_tokens(generator, 2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens, attention_mask=block_causal_mask(8, 4)).logits
    assert logits.dtype == torch.float32
    logits.logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    with torch.no_grad():
        exact = model(tokens, attention_mask=block_causal_mask(8, 4)).logits
    assert (logits - exact).norm() / exact.norm() < 0.1


# The router


def router_of(scores: list[float], **changes: object) -> tuple[Router, Tensor]:
    """A router that gives one token these sigmoid scores."""
    config = BackboneConfig(**{**SIZES, "num_experts": len(scores), "hidden_size": 1, **changes})
    router = Router(config)
    router.weight.data = torch.tensor(scores).logit()[:, None]
    return router, torch.ones(1, 1)


def test_routing_by_hand() -> None:
    # Groups (.9 .1) (.6 .5) (.4 .3) (.7 .35): sums of the two best 1.0, 1.1, .7, 1.05. Two groups stay, the second and
    # the fourth, so the single best expert is not chosen. Of these the best three are .7 .6 .5, together 1.8.
    router, token = router_of([0.9, 0.1, 0.6, 0.5, 0.4, 0.3, 0.7, 0.35])
    chosen, weights = router(token)
    assert chosen.tolist() == [[6, 2, 3]]
    close(weights, torch.tensor([[0.7, 0.6, 0.5]]) / 1.8 * 2.5)


def test_bias_chooses_but_does_not_weigh() -> None:
    router, token = router_of([0.9, 0.1, 0.6, 0.5, 0.4, 0.3, 0.7, 0.35])
    router.expert_bias[1] += 0.3  # the first group's sum is now 1.3, and it replaces the last
    chosen, weights = router(token)
    assert chosen.tolist() == [[0, 2, 3]]
    close(weights, torch.tensor([[0.9, 0.6, 0.5]]) / 2.0 * 2.5)


@torch.no_grad()
def test_a_constant_bias_changes_nothing(generator: torch.Generator) -> None:
    model, tokens = small_backbone(), draw_tokens(generator, 2, 8)
    before = model(tokens).logits
    for router in model.routers():
        router.expert_bias += 0.125
    close(model(tokens).logits, before, 1e-6)


def test_routing_stays_in_float32_in_a_bfloat16_model(generator: torch.Generator) -> None:
    model = small_backbone()
    router = model.routers()[0].to(torch.bfloat16)
    token = torch.randn(5, 40, generator=generator).to(torch.bfloat16)
    chosen, weights = router(token)
    reference = Router(model.config)
    reference.load_state_dict({key: value.float() for key, value in router.state_dict().items()})
    expected, expected_weights = reference(token.float())
    assert weights.dtype == torch.float32 and torch.equal(chosen, expected)
    close(weights, expected_weights, 1e-6)


# Parts and sizes


def test_norm_is_cast_before_its_weight() -> None:
    norm = RMSNorm(2, 0.0).to(torch.bfloat16)
    norm.weight.data = torch.tensor([1.5, 1.5], dtype=torch.bfloat16)
    x = torch.tensor([1.0, 1.1], dtype=torch.bfloat16)
    cast = (x.float() * x.float().square().mean().rsqrt()).to(torch.bfloat16)
    assert torch.equal(norm(x), cast * norm.weight)


def test_rotation_by_hand() -> None:
    # Position 1, two frequencies 1 and 1/10 on the pairs (0, 2) and (1, 3); the fifth value passes through.
    cosine, sine = rotary_table(torch.tensor([[1]]), 5, 4, 100.0, torch.float32)
    rotated = rotate(torch.tensor([1.0, 1.0, 0.0, 0.0, 7.0]).view(1, 1, 1, 5), cosine, sine, 4).flatten()
    close(rotated, torch.tensor([0.5403023, 0.9950042, 0.8414710, 0.0998334, 7.0]), 1e-6)


@torch.no_grad()
def test_only_distances_between_positions_count(model: MaskedDiffusionTransformer, generator: torch.Generator) -> None:
    tokens = draw_tokens(generator, 1, 8)
    close(model(tokens, torch.arange(8)[None] + 31).logits, model(tokens).logits, 1e-4)


def test_rotary_settings_in_either_form() -> None:
    flat = BackboneConfig(**{**SIZES, "rope_theta": 500.0, "partial_rotary_factor": 1.0})
    inner = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0}
    nested = BackboneConfig(**{**SIZES, "rope_parameters": inner})
    assert (flat.rope_theta, flat.rotary_dim) == (nested.rope_theta, nested.rotary_dim) == (500.0, 12)
    assert flat.to_published() == nested.to_published()


def test_fields_of_sibling_files_are_kept() -> None:
    sibling = {"router_dtype": "fp32", "embedding_dropout": 0, "rope_scaling": {"mrope_section": [2, 1]}}
    config = BackboneConfig(**SIZES, **sibling)
    config.check()
    assert config.to_published()["router_dtype"] == "fp32"
    assert BackboneConfig(**config.to_published()).to_published() == config.to_published()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_key_value_heads", 4),
        ("num_key_value_heads", 0),
        ("partial_rotary_factor", 0.25),
        ("hidden_act", "gelu"),
        ("tie_word_embeddings", True),
        ("n_group", 5),
        ("n_group", 12),
        ("topk_group", 5),
        ("num_experts_per_tok", 7),
        ("score_function", "softmax"),
    ],
)
def test_impossible_sizes_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        small_backbone(0, **{field: value})


@pytest.mark.parametrize(
    "arguments",
    [
        {"attention_mask": torch.ones(1, 1, 4, 5, dtype=torch.bool)},
        {"attention_mask": torch.zeros(1, 1, 4, 4)},
        {"position_ids": torch.arange(4)},
    ],
)
def test_misshapen_arguments_are_refused(model: MaskedDiffusionTransformer, arguments: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        model(torch.zeros(2, 4, dtype=torch.long), **arguments)


def test_published_names_both_ways(model: MaskedDiffusionTransformer) -> None:
    state = model.state_dict()
    published = dict(hub_keys.to_published(state))
    assert published["model.layers.1.mlp.experts.11.up_proj.weight"].shape == (20, 40)
    rebuilt = {name: torch.full_like(tensor, float("nan")) for name, tensor in state.items()}
    for name, tensor in published.items():
        place = hub_keys.place_of(name)
        assert place is not None
        place.of(rebuilt[place.name]).copy_(tensor)
    assert all(torch.equal(rebuilt[name], tensor) for name, tensor in state.items())
    assert hub_keys.place_of("model.layers.1.self_attn.q_proj.weight") is None


def test_biases_of_sibling_models_have_names() -> None:
    published = dict(hub_keys.to_published(small_backbone(use_bias=True, use_qkv_bias=True).state_dict()))
    assert "model.layers.0.attention.dense.bias" in published
    assert "model.layers.2.attention.query_key_value.bias" in published
