"""Divergences against their twins, scipy, and what is known of them."""

import math

import numpy as np
import pytest

from ml_systems_debugger.core.errors import ConfigurationError
from ml_systems_debugger.kernels import (
    bin_counts,
    compare_samples,
    js_divergence,
    kl_divergence,
    ks_p_value,
    ks_statistic,
    psi,
    quantile_cuts,
    total_variation,
    wasserstein,
)
from ml_systems_debugger.kernels.reference import distributions

PAIRS = [
    (kl_divergence, distributions.kl_divergence),
    (js_divergence, distributions.js_divergence),
    (psi, distributions.psi),
    (total_variation, distributions.total_variation),
]


@pytest.mark.parametrize(("kernel", "twin"), PAIRS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("n", [*range(1, 20), 63, 64, 65, 511, 512, 513, 3000])
@pytest.mark.parametrize("empty", [0.0, 0.3])
def test_every_divergence_is_its_twin(kernel, twin, n, empty, target):
    rng = np.random.default_rng(n)
    p, q = rng.gamma(0.5, size=(2, n)) * [[3.0], [1e-9]]
    none = rng.random(n) < empty
    p[none] = 0
    if kernel is js_divergence or kernel is total_variation:
        q[rng.random(n) < empty] = 0
    else:
        q[none] = 0
    if not (p.sum() > 0 and q.sum() > 0):
        with pytest.raises(ValueError, match="something must be in it"):
            kernel(p, q)
        return
    assert kernel(p, q) == pytest.approx(twin(p.tolist(), q.tolist()), rel=1e-12, abs=1e-15)


def test_many_bins_keep_twelve_digits(target):
    p, q = np.random.default_rng(0).random((2, 200_000))
    exact = distributions.kl_divergence(p.tolist(), q.tolist())
    assert kl_divergence(p, q) == pytest.approx(exact, rel=1e-12)
    assert kl_divergence(p / p.sum(), q / q.sum()) == pytest.approx(exact, rel=1e-12)


def test_almost_equal_distributions_keep_their_digits(target):
    rng = np.random.default_rng(1)
    p = rng.random(1000) + 0.5
    e = 1e-6 * rng.standard_normal(1000)
    q = p * (1 + e)
    # To second order KL = (sum of p e^2 - (sum of p e)^2) / 2 with p scaled to 1.
    s = p / p.sum()
    expected = 0.5 * (math.fsum(s * e**2) - math.fsum(s * e) ** 2)
    assert kl_divergence(p, q) == pytest.approx(expected, rel=1e-4)
    assert kl_divergence(p, p) == 0.0
    assert js_divergence(p, 3 * p) == pytest.approx(0.0, abs=1e-15)


def test_logarithm_over_all_exponents(target):
    rng = np.random.default_rng(2)
    big = 2.0 ** rng.uniform(-1000, 1000, 400)
    for value in [*big, 2.0**-1022, 1.7e308 / 4]:
        q = np.array([1.0, 1.0])
        p = np.array([value, 0.0])
        assert kl_divergence(p, q) == pytest.approx(math.log(2), rel=1e-14)
    with pytest.raises(ValueError, match="p: something must be in it, its sum is 5e-324"):
        kl_divergence([5e-324, 0.0], [1.0, 1.0])
    subnormal = [1.0, 3e-310]
    assert kl_divergence([1.0, 1e-310], subnormal) == pytest.approx(2e-310, abs=1e-308)
    assert psi([1.0, 1e-310], [1.0, 1e-5]) == pytest.approx(1e-5 * 702.29, rel=1e-4)
    near = 1 + 2.0 ** -np.arange(1, 52)
    for ratio in near:
        found = psi([1.0, ratio], [ratio, 1.0])
        a, b = 1 / (1 + ratio), ratio / (1 + ratio)
        assert found == pytest.approx(2 * (b - a) * math.log(ratio), rel=1e-9)


@pytest.mark.parametrize("n", [2, 17, 600])
def test_empty_bins(n, target):
    p, q = np.ones(n), np.ones(n)
    q[-1] = 0
    assert kl_divergence(p, q) == math.inf
    assert math.isfinite(kl_divergence(q, p))
    assert psi(p, q) == psi(q, p) == math.inf
    assert math.isfinite(psi(p, q, floor=1e-4))
    assert 0 < js_divergence(p, q) < math.log(2)
    p[-1] = 0
    assert kl_divergence(p, q) == psi(p, q) == js_divergence(p, q) == total_variation(p, q) == 0


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, -1e-310])
@pytest.mark.parametrize(("kernel", "twin"), PAIRS, ids=lambda f: f.__name__)
def test_what_is_no_count_is_named(bad, kernel, twin, target):
    p, q = np.ones(40), np.ones(40)
    q[17] = bad
    with pytest.raises(ValueError, match=r"q\[17\]: a count or a probability is needed"):
        kernel(p, q)
    with pytest.raises(ValueError, match=r"p\[17\]"):
        kernel(q, p)


def test_units_and_other_arguments():
    p, q = [1.0, 2.0], [2.0, 1.0]
    assert kl_divergence(p, q, base=2) == pytest.approx(kl_divergence(p, q) / math.log(2))
    with pytest.raises(ConfigurationError, match="base is above 1"):
        kl_divergence(p, q, base=1.0)
    with pytest.raises(ConfigurationError, match="floor lies in"):
        psi(p, q, floor=-1.0)
    with pytest.raises(ValueError, match="as many bins in both are needed, got 2 and 3"):
        kl_divergence(p, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="p: something must be in it"):
        js_divergence([0.0, 0.0], q)


def test_bias_of_equal_distributions_is_taken_off():
    rng = np.random.default_rng(3)
    found = {kernel: [] for kernel, _ in PAIRS}
    for _ in range(400):
        p, q = rng.multinomial(500, [0.05] * 20), rng.multinomial(800, [0.05] * 20)
        for kernel in found:
            found[kernel].append((kernel(p, q), kernel(p, q, debias=True)))
    for kernel, values in found.items():
        raw, debiased = np.mean(values, axis=0)
        assert abs(debiased) < 0.1 * raw, kernel


@pytest.mark.parametrize("sizes", [(1, 1), (5, 3), (50, 80), (200, 200)])
@pytest.mark.parametrize("digits", [0, 1, 9])
def test_distances_of_samples_are_their_twins(sizes, digits):
    rng = np.random.default_rng(sizes[0])
    x, y = (rng.standard_normal(n).round(digits) for n in sizes)
    assert ks_statistic(x, y) == pytest.approx(distributions.ks_statistic(x, y), abs=1e-13)
    area = distributions.wasserstein(x, y)
    assert wasserstein(x, y) == pytest.approx(area, rel=1e-12, abs=1e-13)


def test_scipy_agrees():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal(3000), 1.1 * rng.standard_normal(2000) + 0.05
    peer = stats.ks_2samp(x, y, method="asymp")
    assert ks_statistic(x, y) == pytest.approx(peer.statistic, rel=1e-12)
    assert ks_p_value(peer.statistic, 3000, 2000) == pytest.approx(peer.pvalue, rel=0.1)
    assert wasserstein(x, y) == pytest.approx(stats.wasserstein_distance(x, y), rel=1e-12)
    p, q, places = rng.random(50), rng.random(50), np.sort(rng.random(50))
    area = stats.wasserstein_distance(places, places, p, q)
    assert wasserstein(p, q, places) == pytest.approx(area, rel=1e-10)


def test_distances_leave_out_what_is_not_finite_and_say_what_is_wrong():
    assert ks_statistic([1.0, math.nan, 2.0], [1.0, 2.0, math.inf]) == 0.0
    with pytest.raises(ValueError, match="y: at least one finite value"):
        ks_statistic([1.0], [math.nan])
    with pytest.raises(ValueError, match="places: ascending"):
        wasserstein([1, 2], [2, 1], [1.0, 1.0])
    with pytest.raises(ValueError, match="places: one per bin is needed, got 3 for 2"):
        wasserstein([1, 2], [2, 1], [1.0, 2.0, 3.0])
    assert ks_p_value(0.0, 10, 10) == 1.0
    assert ks_p_value(1.0, 1000, 1000) < 1e-100


def test_counts_of_parts_are_counts_of_the_whole():
    rng = np.random.default_rng(5)
    reference, serving = rng.standard_normal((2, 5000))
    cuts = quantile_cuts(reference, 16)
    parts = sum(bin_counts(part, cuts) for part in np.array_split(serving, 7))
    np.testing.assert_array_equal(parts, bin_counts(serving, cuts))


def test_samples_compared_whole():
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((2, 20_000))
    same, shifted = compare_samples(a, b), compare_samples(a, b + 0.2)
    assert abs(same.psi) < 0.005
    assert 0.02 < shifted.psi < 0.08
    assert shifted.wasserstein == pytest.approx(0.2, abs=0.03)
    broken = b.copy()
    broken[:2000] = math.nan
    assert compare_samples(a, broken).psi > 0.5
    assert math.isfinite(compare_samples(a, np.full(100, 50.0)).kl)


@pytest.mark.parametrize("at", [0, 7, 511, 512, 1023, 1500])
@pytest.mark.parametrize(("kernel", "twin"), PAIRS, ids=lambda f: f.__name__)
def test_one_unusual_bin_anywhere(kernel, twin, at, target):
    p, q = np.random.default_rng(at).random((2, 1501)) + 0.1
    for value in (0.0, -0.0, 1e-310, 2.0**-1022, 2.0**-1021, 1e300):
        for one in (p, q):
            before, one[at] = one[at], value
            expected = twin(p.tolist(), q.tolist())
            assert kernel(p, q) == pytest.approx(expected, rel=1e-12, abs=1e-15), value
            one[at] = before
    for value in (-1e-300, -1.0, math.nan, math.inf, -math.inf):
        for one, name in ((p, "p"), (q, "q")):
            before, one[at] = one[at], value
            with pytest.raises(ValueError, match=rf"{name}\[{at}\]: a count or a probability"):
                kernel(p, q)
            one[at] = before
