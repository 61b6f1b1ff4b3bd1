"""Packed weights: the same numbers from another layout, and never those of weights that have changed."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.small_backbone import small_backbone
from unimodal.backbone.packed import MOST_ROWS, Linear, Packed, can_pack

pytestmark = pytest.mark.skipif(not can_pack(torch.zeros(1)), reason="this build of torch has no oneDNN")


@pytest.fixture
def pair() -> tuple[Any, Any]:
    """The same model twice, the second one packed."""
    plain = small_backbone()
    packed = deepcopy(plain)
    packed.pack_weights()
    return plain, packed


def tokens(rows: int = 2, length: int = 16) -> Tensor:
    return torch.randint(10, (rows, length), generator=torch.Generator().manual_seed(0))


def close(found: Tensor, expected: Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def count_products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the rows of every packed product."""
    rows, product = [], Packed.product

    def counted(self: Packed, x: Tensor, bias: Tensor | None = None) -> Tensor:
        rows.append(x.numel() // x.shape[-1])
        return product(self, x, bias)

    monkeypatch.setattr(Packed, "product", counted)
    return rows


@torch.no_grad()
def test_the_logits_are_the_same(pair, monkeypatch):
    plain, packed = pair
    rows = count_products(monkeypatch)
    expected = plain(tokens()).logits
    assert not rows
    close(packed(tokens()).logits, expected)
    # Two projections of attention and two products of feed-forward in each layer, one more for a dense gate; the head.
    dense = sum(packed.config.is_dense(index) for index in range(packed.config.num_hidden_layers))
    assert rows == [32] * (4 * packed.config.num_hidden_layers + dense + 1)
    close(packed(tokens(), vocab_range=(3, 9)).logits, expected[..., 3:9])


@torch.no_grad()
def test_half_precision_is_as_exact(pair):
    exact, (plain, packed) = pair[0].layers[1], (model.to(torch.bfloat16).layers[1] for model in deepcopy(pair))
    packed.attention.output.pack()
    packed.feed_forward.pack()
    x = torch.randn(1, 16, 40, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    chosen, weights = exact.feed_forward.router(x[0].float())
    for layer in (exact, plain, packed):
        layer.feed_forward.router.forward = lambda _: (chosen, weights)
    heads = x.repeat(1, 1, 2)[..., :72]
    for part, given in (("feed_forward", x), ("attention.output", heads)):
        expected, usual, found = (
            layer.get_submodule(part)(given.to(dtype))
            for layer, dtype in ((exact, torch.float32), (plain, torch.bfloat16), (packed, torch.bfloat16))
        )
        if part == "feed_forward":
            expected, usual, found = expected[0], usual[0], found[0]
        assert (found - expected).norm() <= 1.3 * (usual - expected).norm()


@torch.no_grad()
def test_half_precision_rounds_the_answer_of_every_expert(pair):
    """Whole numbers make every sum exact, in whatever order: only where it is rounded can make a difference."""
    numbers = torch.Generator().manual_seed(2)
    plain, packed = (deepcopy(model).to(torch.bfloat16).layers[1].feed_forward for model in pair)
    for name, weight in plain.named_parameters():
        if not name.startswith("router"):
            weight.copy_(torch.randint(1, 4, weight.shape, generator=numbers))
    packed.load_state_dict(plain.state_dict())
    packed.pack()
    x = torch.randint(1, 5, (2, 16, 40), generator=numbers).to(torch.bfloat16)
    chosen, _ = plain.router(x.flatten(0, 1))
    weights = torch.rand(chosen.shape, generator=numbers)
    for layer in (plain, packed):
        layer.router.forward = lambda _: (chosen, weights)
    assert packed.packed is not None
    assert torch.equal(packed(x)[0], plain(x)[0])


@torch.no_grad()
@pytest.mark.parametrize("shared", [0, 2])
def test_any_number_of_shared_experts_counts_in_full(shared):
    plain: Any = small_backbone(num_shared_experts=shared)
    packed = deepcopy(plain)
    packed.pack_weights()
    close(packed(tokens()).logits, plain(tokens()).logits)
    plain, packed = (deepcopy(model).to(torch.bfloat16).layers[1].feed_forward for model in (plain, packed))
    packed.pack()
    x = torch.randn(1, 16, 40, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
    close(packed(x)[0].float(), plain(x)[0].float(), 2e-2)


def test_many_rows_and_gradients_take_the_plain_way(pair, monkeypatch):
    plain, packed = pair
    rows = count_products(monkeypatch)
    packed(tokens()).logits.sum().backward()
    with torch.no_grad():
        many = tokens(1, MOST_ROWS + 1)
        assert torch.equal(packed(many).logits, plain(many).logits)
        with torch.autocast("cpu", torch.bfloat16):
            packed(tokens())
    assert not rows


@torch.no_grad()
@pytest.mark.parametrize("change", ["written", "replaced", "loaded", "copied", "moved"])
def test_weights_that_changed_count(pair, change):
    plain, packed = pair
    packed(tokens())
    other = deepcopy(plain)
    for weight in other.parameters():
        weight.mul_(1.5)
    if change == "written":
        for weight in packed.parameters():
            weight.mul_(1.5)
    elif change == "replaced":
        for module in packed.modules():
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, torch.nn.Parameter(weight * 1.5))
    elif change == "loaded":
        packed.load_state_dict(other.state_dict())
    elif change == "copied":
        packed = deepcopy(packed)
        for weight in packed.parameters():
            weight.mul_(1.5)
    else:
        packed, other = packed.double(), plain.double()
    close(packed(tokens()).logits, other(tokens()).logits)


@torch.no_grad()
def test_a_layer_that_was_wrapped_is_asked(pair):
    plain, packed = pair

    class Doubled(torch.nn.Module):
        def __init__(self, inner: Linear) -> None:
            super().__init__()
            self.inner = inner

        @property
        def weight(self) -> Tensor:
            return self.inner.weight

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.inner(x)

    for model in (plain, packed):
        experts = model.layers[-1].feed_forward.shared_experts
        experts.down_proj = Doubled(experts.down_proj)
    expected = plain(tokens()).logits
    close(packed(tokens()).logits, expected)


@torch.no_grad()
def test_state_and_training_do_not_know_of_it(pair):
    plain, packed = pair
    packed(tokens())
    assert packed.state_dict().keys() == plain.state_dict().keys()
    packed.train()
    assert packed(tokens()).router_counts is not None


@torch.no_grad()
def test_the_last_layer_leaves_out_what_nobody_asks_for(pair):
    for model in pair:
        expected, before = model(tokens()), model.new_cache()
        rows = []
        hook = model.layers[-1].feed_forward.register_forward_pre_hook(
            lambda _, given, rows=rows: rows.append(given[0].shape[1])
        )
        for wanted in (slice(3, 9), torch.tensor([7, 2])):
            close(model(tokens(), logits_for=wanted).logits, expected.logits[:, wanted])
        model(tokens(), cache=before, update_cache=True, logits_for=slice(0, 0))
        hook.remove()
        assert rows == [6, 2]
        # Keys and values of the last layer are kept nevertheless.
        whole = model(torch.cat([tokens(), tokens()], dim=1)[:, :20], attention_mask=None).logits
        mask = torch.ones(1, 1, 20, 20, dtype=torch.bool)
        mask[..., :16, 16:] = False
        masked = model(torch.cat([tokens(), tokens()], dim=1)[:, :20], attention_mask=mask).logits
        assert not torch.allclose(whole, masked)
        close(model(tokens()[:, :4], cache=before).logits, masked[:, 16:])
