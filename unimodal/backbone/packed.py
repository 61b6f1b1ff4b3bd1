"""Weights as oneDNN reads them fastest, beside the plain ones.

A step of block diffusion multiplies a few dozen rows with every weight of the model. Torch's product is made for more
rows than that: on a CPU it then takes two to three times as long as oneDNN's with weights in blocks.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_ROWS = 256
"""With more rows both products take about as long."""


def can_pack(*weights: Tensor) -> bool:
    """Whether this build of torch, on this processor, has the product for weights like these."""
    if not torch.backends.mkldnn.is_available() or any(weight.device.type != "cpu" for weight in weights):
        return False
    dtypes = {weight.dtype for weight in weights}
    allowed = {torch.float32}
    if torch.bfloat16 in dtypes and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        allowed.add(torch.bfloat16)
    return len(dtypes) == 1 and dtypes <= allowed


class Derived:
    """A tensor made from weights, good for as long as these stay as they are."""

    def __init__(self, value: Tensor, *weights: Tensor) -> None:
        self.value = value
        self._states = [_state(weight) for weight in weights]

    def holds(self, *weights: Tensor) -> bool:
        # A compiler lays weights out by itself, and cannot see where they are.
        return not torch.compiler.is_compiling() and self._states == [_state(weight) for weight in weights]

    def __getstate__(self) -> dict[str, Any]:
        """What is copied or written with its model holds no more: the weights of the other one are others."""
        return {**self.__dict__, "value": None, "_states": None}


class Packed(Derived):
    """A copy of a matrix [out, in] that was made from weights."""

    def __init__(self, matrix: Tensor, *weights: Tensor) -> None:
        super().__init__(torch.ops.mkldnn._reorder_linear_weight(matrix.detach().contiguous(), None), *weights)
        self._dtype = matrix.dtype

    def fits(self, x: Tensor, *weights: Tensor) -> bool:
        """Whether `product` may take the place of torch's: few rows, no gradient, the weights unchanged."""
        return (
            x.dtype == self._dtype
            and x.device.type == "cpu"
            and 0 < x.numel() <= MOST_ROWS * x.shape[-1]
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and self.holds(*weights)
        )

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [..., in] · matrixᵀ + bias -> [..., out]."""
        return torch.ops.mkldnn._linear_pointwise(x, self.value, bias, "none", [], "")


class Linear(nn.Linear):
    """`nn.Linear` that uses its packed weight where there is one and it fits."""

    packed: Packed | None = None

    def pack(self) -> None:
        self.packed = Packed(self.weight, self.weight) if can_pack(self.weight) else None

    def forward(self, input: Tensor) -> Tensor:
        if self.packed is not None and self.packed.fits(input, self.weight):
            return self.packed.product(input, self.bias)
        return F.linear(input, self.weight, self.bias)


class PackedExperts:
    """All experts of a layer as one wide feed-forward, whose parts count as much as the router says.

    Where a token goes to a fair share of the experts, two products that compute all of them take less time than many
    small ones that compute the chosen.

    Args:
        gate_up: [E, 2·I, H], of each expert first the gate.
        down: [E, H, I].
        shared: gate [S·I, H], up [S·I, H] and down [H, S·I] of S more experts that count once for every token; or
            nothing.
    """

    def __init__(self, gate_up: Tensor, down: Tensor, *shared: Tensor) -> None:
        weights = gate_up, down, *shared
        self._routed, hidden, self._width = down.shape
        gates, ups = (part.reshape(-1, hidden) for part in gate_up.detach().chunk(2, dim=1))
        downs = down.detach().permute(1, 0, 2).reshape(hidden, -1)
        if shared:
            gate, up, last = (weight.detach() for weight in shared)
            gates, ups, downs = torch.cat([gates, gate]), torch.cat([ups, up]), torch.cat([downs, last], dim=1)
        # All gates above all ups, so that the product falls into two halves.
        self._gate_up = Packed(torch.cat([gates, ups]), *weights)
        self._down: Derived
        if downs.dtype == torch.float32:
            self._down = Packed(downs, *weights)
        else:
            self._down = Derived(downs.t().unflatten(0, (-1, self._width)).contiguous(), *weights)
        self._shares = torch.ones(1, downs.shape[1] // self._width)
        self._shares[:, : self._routed] = 0

    def fits(self, tokens: Tensor, *weights: Tensor) -> bool:
        return self._gate_up.fits(tokens, *weights)

    def __call__(self, tokens: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Weighted sum over the chosen experts: tokens [T, H], chosen and weights int and float32 [T, K] -> [T, H]."""
        gate, up = self._gate_up.product(tokens).chunk(2, dim=-1)
        inner = (F.silu(gate) * up).unflatten(1, (-1, self._width))
        if not isinstance(self._down, Packed):
            return self._sum_of_answers(inner, self._down.value, chosen, weights)
        shares = self._shares.expand(len(tokens), -1).scatter(1, chosen, weights)
        return self._down.product((inner * shares[..., None]).flatten(1))

    def _sum_of_answers(self, inner: Tensor, down: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """For a half precision: rounds the answer of every expert as the plain way does. A last bit of these is enough
        to let random weights write other tokens.

        Args:
            inner: [T, E + S, I].
            down: [E + S, I, H].
        """
        answers = torch.bmm(inner.transpose(0, 1), down)
        places = torch.add(torch.arange(len(inner))[:, None], chosen, alpha=len(inner))
        rows = answers.flatten(0, 1).index_select(0, places.flatten()).view(*chosen.shape, -1)
        mixed = (rows * weights[..., None]).sum(dim=1).to(inner.dtype)
        for answer in answers[self._routed :]:
            mixed = mixed + answer
        return mixed


def _state(weight: Tensor) -> tuple[int, int]:
    """Changes when the weight is written to or replaced."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version
