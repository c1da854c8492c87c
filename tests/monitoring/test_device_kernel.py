"""Statistics on a device: the Triton kernel, run by Triton's interpreter, against its twin."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger.monitoring._device_stats import norms_of, plain, stats_of

torch = pytest.importorskip("torch", reason="torch is not installed")

# The interpreter computes with NumPy, which warns of what the kernel then reads again.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid|divide|underflow):RuntimeWarning")

NAN, INF = float("nan"), float("inf")
KINDS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.fixture(scope="module")
def fused() -> Iterator[Any]:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("triton was imported without its interpreter")
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined, and where it runs
    try:
        module = importlib.import_module("ml_systems_debugger.monitoring._device_kernel")
        yield module.FusedStats
    finally:
        if before is None:
            del os.environ["TRITON_INTERPRET"]
        else:
            os.environ["TRITON_INTERPRET"] = before


def mixed(kind: Any) -> list[Any]:
    """Return tensors of awkward sizes, layouts and values."""
    g = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Any:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def same(count: int, value: float) -> Any:
        return torch.full((count,), value, dtype=torch.float64)

    top = torch.finfo(kind).max
    least = torch.finfo(kind).smallest_normal
    made = [
        normal(1), normal(63), normal(64), normal(65), normal(511), normal(512), normal(1025),
        normal(0), normal(7, 0), torch.zeros(130), normal(30, 17).mT, normal(40, 40)[::3, 1::2],
        normal(2, 3, 5, 4).contiguous(memory_format=torch.channels_last), normal(()),
        # Triton's interpreter makes subnormal bfloat16 zero; a GPU does not.
        same(300, top / 32), same(300, least), same(40, least / (1 + (kind != torch.bfloat16))),
        torch.cat([same(1, top / 2), same(1, least)]),
    ]  # fmt: skip
    for bad in ((NAN,), (INF,), (-INF,), (NAN, INF, -INF)):
        spoilt = normal(700)
        for at, value in enumerate(bad):
            spoilt[350 + 100 * at] = value
        made.append(spoilt)
    return [one.to(kind) for one in made] + [normal(9).to(kind)[1:]]  # the last is not aligned


def exact(tensor: Any) -> tuple[float, int, float]:
    """Return the statistics by wide arithmetic that cannot overflow."""
    x = tensor.double().numpy().ravel().astype(np.longdouble)
    finite = np.isfinite(x)
    norm = float(np.sqrt((x[finite] ** 2).sum()))
    if not finite.all():
        norm = NAN if np.isnan(x).any() else INF
    top = float(np.abs(x[finite]).max()) if finite.any() else 0.0
    return norm, int((~finite).sum()), top


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_twin_is_exact(kind: Any) -> None:
    tensors = [plain(one) for one in mixed(kind)]
    found = stats_of(tensors).numpy()
    np.testing.assert_allclose(found, np.array([exact(one) for one in tensors]).T, rtol=1e-12)
    np.testing.assert_array_equal(norms_of(tensors).numpy(), found[0])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_kernel_agrees_with_its_twin(fused: Any, kind: Any) -> None:
    tensors = mixed(kind)
    measure = fused(chunk=512, block=64)  # several chunks, and turns of each
    found = measure(tensors)
    assert found.dtype is torch.float64
    assert found.shape == (3, len(tensors))
    wanted = stats_of([plain(one) for one in tensors]).numpy()
    np.testing.assert_allclose(found[0].numpy(), wanted[0], rtol=2.5e-6)
    np.testing.assert_array_equal(found[1:].numpy(), wanted[1:])
    assert torch.equal(torch.nan_to_num(measure(tensors)), torch.nan_to_num(found))  # bit for bit


def test_one_call_takes_every_type(fused: Any) -> None:
    tensors = [one for kind in KINDS for one in mixed(kind)[9:14]]
    found = fused(chunk=1024, block=128)(tensors).numpy()
    np.testing.assert_allclose(found, stats_of([plain(one) for one in tensors]), rtol=2.5e-6)


def test_values_that_are_far_apart(fused: Any) -> None:
    wide = torch.full((4096,), 1e30)
    tiny = torch.full((4096,), 1e-42)
    spread = torch.cat([torch.full((600,), 1e-30), torch.full((600,), 1e30)])
    found = fused(chunk=512, block=64)([wide, tiny, spread])[0].numpy()
    by_torch = norms_of([wide, tiny, spread]).numpy()
    exactly = [exact(one)[0] for one in (wide, tiny, spread)]
    np.testing.assert_allclose(found, exactly, rtol=2.5e-6)
    np.testing.assert_allclose(by_torch, exactly, rtol=1e-12)


def test_tables_follow_the_tensors(fused: Any) -> None:
    measure = fused(chunk=256, block=64)
    for sizes in ((100, 300), (100, 300), (300, 100), (5,), (100, 300)):
        tensors = [torch.full((size,), float(at + 1)) for at, size in enumerate(sizes)]
        wanted = [(at + 1) * size**0.5 for at, size in enumerate(sizes)]
        np.testing.assert_allclose(measure(tensors)[0].numpy(), wanted, rtol=1e-6)


@pytest.mark.parametrize("kind", [torch.float32, torch.complex64, torch.float8_e4m3fn], ids=str)
def test_other_types_are_taken_as_floats(kind: Any) -> None:
    values = torch.tensor([1.5, -2.0, 0.25]).to(kind)
    found = float(norms_of([plain(values)])[0])
    assert found == pytest.approx((1.5**2 + 2**2 + 0.25**2) ** 0.5)
