"""Exponent counts and narrowing against their twins."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from ml_systems_debugger import kernels
from ml_systems_debugger.kernels.reference import arrays as twin

SOURCES = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def spread(name: str, n: int) -> npt.NDArray[Any]:
    """Magnitudes over the whole range of a dtype, zeros and non-finite values among them."""
    rng = np.random.default_rng(n)
    raw = rng.integers(0, 256, n * dtype_of(name).itemsize, np.uint8).view(dtype_of(name))
    raw[::17] = 0
    return raw


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("n", [0, 1, 7, 64, 1001, 5000])
def test_exponents(target: str, name: str, n: int) -> None:
    x = spread(name, n)
    got = kernels.exponent_counts(x)
    want = twin.exponent_counts(x)
    least = -1022 if name == "float64" else -126
    normal = {e: c for e, c in want.items() if e >= least}
    found = {got.first + i: int(c) for i, c in enumerate(got.counts) if c}
    assert found == normal
    assert got.nonfinite == sum(twin.count_nonfinite(x))
    assert int(got.counts.sum()) + got.small + got.nonfinite == n
    assert len(got.counts) == 0 or (got.counts[0] and got.counts[-1])


@pytest.mark.parametrize("to", kernels.NARROW_FORMATS)
def test_narrowing_at_its_bounds(target: str, to: str) -> None:
    """Around every bound, one step of float32 to each side."""
    form = kernels.NARROW_FORMATS[to]
    edges = [form.overflow, form.min_normal, form.min_normal - form.smallest / 2]
    edges += [form.smallest, form.smallest / 2, 0.0, 1.0]
    with np.errstate(over="ignore"):
        middle = np.array(edges, np.float32)
        # Subnormal float32 values have steps too; infinity counts as not finite.
        x = np.concatenate([middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)])
    x = np.concatenate([x, -x]).astype(np.float32)
    want = twin.narrowing(x, dtype_of(to), form.min_normal)
    assert tuple(kernels.narrowing(x, to)) == want


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("to", kernels.NARROW_FORMATS)
def test_narrowing_of_anything(target: str, name: str, to: str) -> None:
    x = spread(name, 3001)
    want = twin.narrowing(x, dtype_of(to), kernels.NARROW_FORMATS[to].min_normal)
    assert tuple(kernels.narrowing(x, to)) == want


def test_shares_and_bad_names() -> None:
    x = np.array([1e-9, 1e-6, 1.0, 1e6, np.nan], np.float32)
    assert kernels.narrowing(x, "float16").shares == (0.25, 0.25, 0.25)
    assert np.isnan(kernels.narrowing(x[:0], "float16").shares[0])
    with pytest.raises(ValueError, match="float4"):
        kernels.narrowing(x, "float4")


def test_many_blocks_on_many_threads() -> None:
    x = np.resize(np.array([0.25, 3.0, -3.0, 0.0], np.float32), 40 * kernels.BLOCK // 8)
    got = kernels.exponent_counts(x)
    assert got.first == -2
    assert got.counts.tolist() == [len(x) // 4, 0, 0, len(x) // 2]
