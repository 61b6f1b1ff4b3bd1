"""The kernel that norms and rotates in one pass: its numbers, where it is used, and that it compiles for a real GPU.

No GPU is needed: Triton's interpreter runs the kernel, and its compiler makes code for GPUs that are not there.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.small_backbone import WORDS, small_backbone
from unimodal.backbone import attention, fused
from unimodal.backbone.rotary import rotary_table, rotate

EPSILON = 1e-6

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


class Case(NamedTuple):
    """Sizes of one call: `beside` heads lie between those of one token and the next, tables have `rows` rows."""

    batch: int
    length: int
    count: int
    width: int
    rotary_dim: int
    rows: int
    beside: int = 0
    grid_dim: int = 0


CASES = {
    "as published": Case(2, 32, 20, 128, 64, 2, beside=4),
    "all rotated": Case(2, 3, 5, 128, 128, 1, beside=1),
    "no power of two": Case(2, 5, 6, 24, 24, 2),
    "no power of two, half": Case(3, 4, 3, 24, 12, 1, beside=2),
    "odd remainder": Case(1, 2, 1, 20, 6, 1, beside=1),
    "pictures": Case(2, 7, 4, 32, 16, 2, grid_dim=4),
    "not rotated": Case(1, 3, 2, 8, 0, 1),
    "one token": Case(1, 1, 9, 16, 8, 1),
    "nothing": Case(2, 0, 4, 16, 8, 1),
}


def inputs(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Heads, weights, cosine and sine; the heads are of sizes that lie far apart."""
    generator = torch.Generator().manual_seed(0)
    slots = torch.randn(case.batch, case.length, case.count + case.beside, case.width, generator=generator)
    slots = slots * torch.logspace(-4, 3, slots.shape[2])[:, None]
    weights = 1 + 0.3 * torch.randn(case.count, case.width, generator=generator)
    places = torch.randint(3000, (case.rows, case.length, 3), generator=generator)
    places = places if case.grid_dim else places[..., 0]
    if case.rotary_dim:
        cosine, sine = rotary_table(places, case.width, case.rotary_dim, 1e4, dtype, case.grid_dim)
    else:
        cosine = torch.ones(case.rows, case.length, 1, case.width, dtype=dtype)
        sine = torch.zeros_like(cosine)
    return slots.to(dtype)[:, :, : case.count], weights.to(dtype), cosine, sine


def plain(heads: Tensor, weights: Tensor, cosine: Tensor, sine: Tensor, rotary_dim: int) -> Tensor:
    return rotate(F.rms_norm(heads, heads.shape[-1:], eps=EPSILON) * weights, cosine, sine, rotary_dim)


def interpreted(case: Case, dtype: torch.dtype, layout: str = "as it is") -> tuple[float, float]:
    """Error of the kernel and of the plain way: root mean square over heads, each next to the head's exact length."""
    heads, weights, cosine, sine = inputs(case, dtype)
    if layout == "rows inside":
        heads = heads.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "tables expanded":
        cosine, sine = (table.expand(case.batch, -1, -1, -1) for table in (cosine, sine))
    exact = plain(heads.double(), weights.double(), cosine.double(), sine.double(), case.rotary_dim)
    with pytest.MonkeyPatch.context() as patch:
        # The interpreter cuts off what bfloat16 cannot hold, where a GPU rounds: it is to write all, rounded below.
        written, empty = torch.float32 if dtype == torch.bfloat16 else dtype, torch.empty
        patch.setattr(torch, "empty", lambda *shape, **more: empty(*shape, **{**more, "dtype": written}))
        found = fused.normalise_and_rotate(heads, weights, cosine, sine, EPSILON, case.rotary_dim)
    assert (found.shape, found.dtype, found.is_contiguous()) == (heads.shape, written, True)
    found = found.to(dtype)

    def error(result: Tensor) -> float:
        errors = (result.double() - exact).norm(dim=-1) / exact.norm(dim=-1)
        return errors.square().mean().sqrt().item() if errors.numel() else 0.0

    return error(found), error(plain(heads, weights, cosine, sine, case.rotary_dim))


@torch.no_grad()
def logits_of_a_model() -> tuple[int, float]:
    """How often a model of three layers asks for the kernel, and how far its logits are from those of the plain way."""
    model, tokens = small_backbone(), torch.randint(WORDS[1], (2, 9), generator=torch.Generator().manual_seed(0))
    expected, asked = model(tokens).logits, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "can_fuse", lambda heads: not asked.append(heads.shape))
        error = (model(tokens).logits - expected).abs().max().item()
    return len(asked), error


@pytest.fixture(scope="module")
def interpreter() -> Iterator[ProcessPoolExecutor]:
    """A process in which kernels are interpreted, which has to be said before Triton is imported."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            pool.submit(torch.use_deterministic_algorithms, True).result()  # what is never written stays NaN
        yield pool


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_gives_what_the_plain_way_gives(interpreter, name, dtype):
    found, of_the_plain_way = interpreter.submit(interpreted, CASES[name], dtype).result()
    assert found <= (1e-6 if dtype == torch.float32 else of_the_plain_way)


@needs_triton
@pytest.mark.parametrize("layout", ["rows inside", "tables expanded"])
def test_the_layout_changes_nothing(interpreter, layout):
    case = Case(3, 4, 5, 16, 8, 1, beside=1)
    assert interpreter.submit(interpreted, case, torch.float32, layout).result()[0] <= 1e-6


@needs_triton
def test_a_model_that_uses_it_gives_the_same_logits(interpreter):
    asked, error = interpreter.submit(logits_of_a_model).result()
    assert asked == 3 and error < 1e-4


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The kernel is made anew, and what is compiled is kept nowhere."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    caches = fused._kernel, fused._drives
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@needs_triton
def test_the_kernel_compiles_for_hopper(kernel, monkeypatch):
    """What a launch would compile: whole words are read and written, nothing travels between warps, and what was made
    for one length serves every other, so that none is made while a graph is recorded.
    """
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    hopper = SimpleNamespace(
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
    )
    monkeypatch.setattr(driver, "_active", hopper)
    made, kernel_of_triton = [], fused._kernel()

    class Compiled:
        def __getitem__(self, grid):
            compiled = partial(kernel_of_triton.warmup, grid=grid)
            return lambda *given, **settings: made.append((grid, compiled(*given, **settings)))

    monkeypatch.setattr(fused, "_kernel", Compiled)
    for length in (32, 33, 1):
        case = CASES["as published"]._replace(length=length)
        out = fused.normalise_and_rotate(*inputs(case, torch.bfloat16), EPSILON, case.rotary_dim)
        assert out.dtype == torch.bfloat16
    assert [grid for grid, _ in made] == [(64, 5), (66, 5), (2, 5)]
    compiled = made[0][1]
    assert all(other is compiled for _, other in made)
    text = compiled.asm["ptx"]
    assert ".target sm_90" in text and compiled.asm["cubin"]
    assert "ld.global" in text and "global.b16" not in text and compiled.metadata.shared == 0


def heads_on_a_gpu() -> Tensor:
    with FakeTensorMode():
        return torch.empty(2, 3, 4, 8, dtype=torch.bfloat16, device="cuda")


@torch.no_grad()
def test_elsewhere_the_plain_way_stays(kernel, monkeypatch):
    monkeypatch.setattr(fused, "_kernel", object)
    monkeypatch.setattr(fused, "_drives", lambda device: True)
    heads = heads_on_a_gpu()
    assert fused.can_fuse(heads) and fused.can_fuse(heads[:, :, 1:])
    assert not fused.can_fuse(torch.empty(2, 3, 4, 8, dtype=torch.bfloat16))
    assert not fused.can_fuse(heads.mT) and not fused.can_fuse(heads.double())
    with torch.enable_grad():
        assert not fused.can_fuse(heads)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not fused.can_fuse(heads)


@torch.no_grad()
def test_without_triton_the_plain_way_stays(kernel, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert not fused.can_fuse(heads_on_a_gpu())


@needs_triton
@torch.no_grad()
def test_what_triton_cannot_use_is_left_to_the_plain_way(kernel, monkeypatch):
    class NoCompiler:
        @property
        def active(self):
            raise RuntimeError("Failed to find C compiler")

    import triton

    monkeypatch.setattr(triton.runtime, "driver", NoCompiler())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert not fused.can_fuse(heads_on_a_gpu())
    fused._drives.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with pytest.warns(UserWarning, match="cannot use cuda:0, .*: Failed to find C compiler"):
        assert not fused.can_fuse(heads_on_a_gpu())
    assert not fused.can_fuse(heads_on_a_gpu())  # and it is said once
    fused._drives.cache_clear()
    monkeypatch.setattr(triton.runtime, "driver", SimpleNamespace(active="a driver"))
    assert fused.can_fuse(heads_on_a_gpu())


def test_importing_asks_for_no_triton(tmp_path):
    code = "import sys; sys.modules['triton'] = None; import unimodal.backbone.fused"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "changed",
    [
        {"weights": torch.ones(1, 8)},
        {"cosine": torch.ones(3, 3, 1, 8)},
        {"cosine": torch.ones(1, 2, 1, 8)},
        {"sine": torch.ones(2, 3, 1, 8)},
        {"rotary_dim": 3},
        {"rotary_dim": 10},
        {"heads": torch.ones(2, 3, 8, 4).mT},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_does_not_fit_is_refused(changed):
    given = {
        "heads": torch.ones(2, 3, 4, 8),
        "weights": torch.ones(4, 8),
        "cosine": torch.ones(1, 3, 1, 8),
        "sine": torch.zeros(1, 3, 1, 8),
        "epsilon": EPSILON,
        "rotary_dim": 8,
    }
    with pytest.raises(ValueError, match=f"^{next(iter(changed))}: got"):
        fused.normalise_and_rotate(**{**given, **changed})
