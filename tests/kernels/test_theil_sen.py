import math

import numpy as np
import pytest

from ml_systems_debugger.kernels import theil_sen
from ml_systems_debugger.kernels.reference import sequences


@pytest.mark.parametrize("n", [2, 3, 10, 64])
@pytest.mark.parametrize("digits", [0, 6])
def test_slope_is_its_twin(n, digits):
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal(n).round(digits) + np.arange(n), rng.standard_normal(n).round(digits)
    found = theil_sen(x, y)
    twin = sequences.theil_sen(x, y)
    assert (found.slope, found.intercept) == pytest.approx(twin, rel=1e-13, nan_ok=True)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_interval_is_that_of_scipy(confidence):
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    for n in (5, 20, 64):
        x, y = rng.integers(0, 2 * n, n).astype(float), rng.standard_normal(n).round(1)
        peer = stats.theilslopes(y, x, confidence)
        assert theil_sen(x, y, confidence) == pytest.approx(tuple(peer), rel=1e-12)


def test_nothing_to_say():
    assert all(math.isnan(v) for v in theil_sen([1.0, 1.0], [2.0, 3.0]))
    assert all(math.isnan(v) for v in theil_sen([], []))


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"one length are needed, got shapes \[2\] and \[3\]"):
        theil_sen([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="at most 4096 points, got 5000"):
        theil_sen(np.arange(5000.0), np.arange(5000.0))
    with pytest.raises(ValueError, match="point 1 is"):
        theil_sen([1.0, math.nan], [1.0, 2.0])
    with pytest.raises(ValueError, match="confidence"):
        theil_sen([1.0, 2.0], [1.0, 2.0], confidence=0.0)
