"""Counts against NumPy bin for bin, on every target."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ml_systems_debugger.core.errors import ConfigurationError
from ml_systems_debugger.kernels import (
    bin_counts,
    histogram,
    quantile_cuts,
    set_num_threads,
)
from ml_systems_debugger.kernels.reference import distributions


def assert_as_numpy(x, bins, span):
    found = histogram(x, bins, span)
    counts, edges = np.histogram(x, bins, span)
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_array_equal(found.edges, edges)
    assert found.size == x.size
    low, high = found.edges[[0, -1]]
    assert found.underflow == np.count_nonzero(np.isfinite(x) & (x < low))
    assert found.overflow == np.count_nonzero(np.isfinite(x) & (x > high))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bins", [1, 2, 7, 64, 256, 1000, 100_000])
@pytest.mark.parametrize(
    "span", [(-2.0, 2.0), (0.1, 0.7), (-1e-3, 1e3), (-1e30, 1e30), (1e-40, 3e-40)]
)
def test_even_bins_are_those_of_numpy(dtype, bins, span, target):
    rng = np.random.default_rng(bins)
    edges = np.histogram_bin_edges(np.empty(0, dtype), bins, span)
    if not (np.diff(edges) > 0).all():
        with pytest.raises(ValueError, match="too narrow for the precision"):
            histogram(np.empty(0, dtype), bins, span)
        return
    width = span[1] - span[0]
    x = rng.uniform(span[0] - 0.1 * width, span[1] + 0.1 * width, 5000).astype(dtype)
    near = rng.choice(edges, 3000).astype(dtype)  # on an edge, and next to one
    x = np.r_[x, near, np.nextafter(near, dtype(np.inf)), np.nextafter(near, dtype(-np.inf))]
    assert_as_numpy(x, bins, span)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64])
def test_whole_numbers_on_the_edges(dtype, target):
    x = np.random.default_rng(0).integers(0, 100, 4000).astype(dtype)
    assert_as_numpy(x, 100, (0, 100))
    assert_as_numpy(x, 33, (5, 71))


@pytest.mark.parametrize("n", [*range(40), 2047, 2048, 2049, 5000])
@pytest.mark.parametrize("offset", [0, 1])
def test_every_length_and_alignment(n, offset, target):
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    raw = np.zeros(4 * n + 64, np.uint8)
    raw[offset : offset + 4 * n] = x.view(np.uint8)
    shifted = raw[offset : offset + 4 * n].view(np.float32)
    wanted = np.histogram(x, 10, (-1, 1))[0]
    np.testing.assert_array_equal(histogram(shifted, 10, (-1, 1)).counts, wanted)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("count", [0, 1, 5, 64, 65, 3000])
def test_any_cuts_are_their_twin(dtype, count, target):
    rng = np.random.default_rng(count)
    cuts = np.unique(rng.standard_normal(count) ** 3)
    x = rng.standard_normal(3000).astype(dtype)
    x[::50] = [math.nan, math.inf, -math.inf] * 20
    if count:
        x[1::7] = rng.choice(cuts, len(x[1::7])).astype(dtype)
    np.testing.assert_array_equal(bin_counts(x, cuts), distributions.bin_counts(x.tolist(), cuts))


def test_small_formats_are_counted_as_their_values(target):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    cuts = np.linspace(-3, 3, 41)
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"):
        x = np.random.default_rng(0).standard_normal(3000).astype(getattr(ml_dtypes, name))
        x[5:8] = math.nan
        wanted = distributions.bin_counts(x.astype(np.float64).tolist(), cuts)
        np.testing.assert_array_equal(bin_counts(x, cuts), wanted)


@settings(max_examples=200, deadline=None)
@given(
    x=hnp.arrays(np.float64, st.integers(0, 100), elements=st.floats(width=64)),
    bins=st.integers(1, 50),
    low=st.floats(-1e6, 1e6),
    width=st.floats(1e-3, 1e6),
)
def test_anything_is_counted_once(x, bins, low, width):
    edges = np.histogram_bin_edges(np.empty(0), bins, (low, low + width))
    if not (np.diff(edges) > 0).all():
        return
    found = histogram(x, bins, (low, low + width))
    assert found.size == x.size
    assert found.nan == np.count_nonzero(np.isnan(x))
    assert found.posinf == np.count_nonzero(x == math.inf)
    assert found.neginf == np.count_nonzero(x == -math.inf)
    with np.errstate(all="ignore"):
        inside = x[np.isfinite(x) & (x >= edges[0]) & (x <= edges[-1])]
        np.testing.assert_array_equal(found.counts, np.histogram(inside, edges)[0])


def test_parts_add_up_and_threads_do_not_matter():
    x = np.random.default_rng(0).standard_normal(3_000_000).astype(np.float32)
    whole = histogram(x, 50, (-3, 3))
    parts = histogram(x[:1_234_567], 50, (-3, 3)) + histogram(x[1_234_567:], 50, (-3, 3))
    try:
        set_num_threads(1)
        alone = histogram(x, 50, (-3, 3))
    finally:
        set_num_threads(0)
    for other in (parts, alone):
        np.testing.assert_array_equal(whole.counts, other.counts)
        assert (whole.underflow, whole.overflow) == (other.underflow, other.overflow)
    with pytest.raises(ValueError, match="different edges"):
        whole + histogram(x[:10], 50, (-3, 4))


def test_range_is_that_of_the_finite_values():
    x = np.array([1.0, 5.0, math.nan, math.inf])
    found = histogram(x, 4)
    np.testing.assert_array_equal(found.edges, [1, 2, 3, 4, 5])
    assert found.counts.tolist() == [1, 0, 0, 1]
    assert histogram(np.full(3, 2.0), 2).counts.sum() == 3
    assert histogram(np.array([math.nan]), 2).nan == 1
    assert histogram([], 2).size == 0


def test_a_matrix_is_counted_as_a_whole():
    x = np.random.default_rng(0).standard_normal((50, 40))
    part = x[::2, ::-3]
    wanted = np.histogram(part, 5, (-1, 1))[0]
    np.testing.assert_array_equal(histogram(part, 5, (-1, 1)).counts, wanted)


def test_quantile_cuts_give_equal_bins():
    x = np.random.default_rng(0).standard_normal(1000)
    x[::100] = math.nan
    counts = bin_counts(x, quantile_cuts(x, 10))
    assert counts[:10].tolist() == [99] * 10
    assert counts[10] == 10
    tied = np.r_[np.zeros(900), np.arange(1, 101)]
    assert bin_counts(tied, quantile_cuts(tied, 10))[:-3].min() > 0
    assert quantile_cuts([math.nan], 5).tolist() == []
    assert quantile_cuts([3.0, 3.0], 5).tolist() == []


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"cuts: .* number 1 is 0\.0"):
        bin_counts(np.zeros(3), [0.0, 0.0])
    with pytest.raises(ValueError, match=r"cuts: .* number 0 is inf"):
        bin_counts(np.zeros(3), [math.inf])
    with pytest.raises(ValueError, match="bins: a count, or at least two"):
        histogram(np.zeros(3), [1.0])
    with pytest.raises(ConfigurationError, match="bins is at least 1"):
        quantile_cuts([1.0], 0)


def test_raw_bytes_with_the_name_of_their_type():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.random.default_rng(0).standard_normal(500).astype(ml_dtypes.bfloat16)
    raw = x.view(np.uint8)
    found = histogram(raw, 8, dtype="bfloat16")
    np.testing.assert_array_equal(found.counts, np.histogram(x.astype(np.float64), 8)[0])
    np.testing.assert_array_equal(
        bin_counts(raw, [0.0], dtype="bfloat16"), bin_counts(x.astype(np.float32), [0.0])
    )


def test_many_threads_count_at_once():
    x = np.random.default_rng(0).standard_normal(400_000).astype(np.float32)
    wanted = np.histogram(x, 40, (-2, 2))[0]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: histogram(x, 40, (-2, 2)).counts, range(16)):
            np.testing.assert_array_equal(found, wanted)
