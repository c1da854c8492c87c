"""Rolling statistics against their twin and against pandas."""

import math

import numpy as np
import pytest

from ml_systems_debugger.core.errors import ConfigurationError
from ml_systems_debugger.kernels import (
    ROLLING_STATS,
    Rolling,
    rolling,
)
from ml_systems_debugger.kernels.reference import windows


@pytest.mark.parametrize("window", [1, 2, 3, 8, 31, 32, 33, 64, 65, 100])
@pytest.mark.parametrize("bad", [0.0, 0.1])
@pytest.mark.parametrize("min_count", [None, 1])
def test_every_statistic_is_its_twin(window, bad, min_count, target):
    rng = np.random.default_rng(window)
    x = rng.standard_normal(5 * window + 7)
    x[rng.random(len(x)) < bad] = math.nan
    found = rolling(x, window, ROLLING_STATS, min_count=min_count, ddof=1)
    wanted = windows.rolling(x.tolist(), window, min_count, ddof=1)
    assert tuple(found) == ROLLING_STATS
    for name in ROLLING_STATS:
        exact = name in ("min", "max", "median")
        tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-10, "atol": 1e-12}
        np.testing.assert_allclose(found[name], wanted[name], err_msg=name, **tolerance)


@pytest.mark.parametrize("window", [5, 200])
def test_an_offset_costs_no_digits(window):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(20 * window) + 1e8
    x[7 * window :] -= 1e8  # the offset goes: nothing of it may stay
    found = rolling(x, window, ("mean", "std", "slope"))
    windows = np.lib.stride_tricks.sliding_window_view(x, window)
    first = windows[:, :1]
    np.testing.assert_allclose(found["std"][window - 1 :], (windows - first).std(axis=1), rtol=1e-9)
    mean = (windows - first).mean(axis=1) + first[:, 0]
    np.testing.assert_allclose(found["mean"][window - 1 :], mean, rtol=1e-13, atol=1e-12)


def test_a_spike_leaves_nothing_behind():
    x = np.random.default_rng(1).standard_normal(500)
    x[100] = 1e30
    found = rolling(x, 20, ("mean", "std", "max"))
    clean = np.delete(x, 100)[100:]
    np.testing.assert_allclose(
        found["mean"][140:], rolling(clean, 20, ("mean",))["mean"][39:], atol=1e-12
    )
    assert found["std"][121:].max() < 3
    assert found["max"][119] == 1e30
    assert found["max"][120] < 10


@pytest.mark.parametrize("place", [0, 33])
def test_a_long_history_in_parts_is_the_same_bit_for_bit(place):
    rng = np.random.default_rng(5)
    x = rng.standard_normal(300_000)
    x[rng.random(len(x)) < 1e-4] = math.nan
    x[100_000:100_150] = math.nan  # a whole window of them
    fold = Rolling(50, ROLLING_STATS, min_count=1)
    whole, cut = fold.init(), fold.init()
    for state in (whole, cut):
        fold.update(state, x[:place])
    found = fold.update(whole, x[place:])  # long enough for several threads
    pieces = [fold.update(cut, part) for part in np.array_split(x[place:], 17)]
    for name in ROLLING_STATS:
        wanted = np.concatenate([piece[name] for piece in pieces])
        assert found[name].tobytes() == wanted.tobytes(), name
    assert whole.tobytes() == cut.tobytes()


def test_constant_series_have_no_spread():
    found = rolling(np.full(1000, 0.1), 37, ("mean", "std", "slope", "median"))
    assert set(found["std"][36:]) == {0.0}
    assert set(found["slope"][36:]) == {0.0}
    assert set(found["mean"][36:]) == {0.1}
    assert set(found["median"][36:]) == {0.1}


def test_median_of_ties_and_signed_zeros():
    x = np.tile([0.0, -0.0, 1.0, 0.0, -1.0], 40)
    got = rolling(x, 10, ("median",))["median"]
    assert not np.signbit(got[9:]).any()
    assert set(got[9:]) == {0.0}


def test_pandas_agrees():
    pandas = pytest.importorskip("pandas")
    x = np.random.default_rng(3).standard_normal(3000)
    x[::17] = math.nan
    found = rolling(x, 50, ("mean", "std", "min", "max", "median"), min_count=10, ddof=1)
    peer = pandas.Series(x).rolling(50, min_periods=10)
    for name in found:
        np.testing.assert_allclose(found[name], getattr(peer, name)(), rtol=1e-9, atol=1e-12)


def test_short_and_empty_input():
    assert rolling([], 5, ("mean",))["mean"].shape == (0,)
    assert np.isnan(rolling([1.0, 2.0], 5, ("mean", "median"))["median"]).all()
    assert rolling(np.zeros((3, 0)), 2, ("mean",))["mean"].shape == (3, 0)
    two = rolling(np.arange(12.0).reshape(6, 2), 3, ("mean",))["mean"]
    np.testing.assert_array_equal(two[2:, 1] - two[2:, 0], np.ones(4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 0}, "window is an int of at least 1"),
        ({"window": 1 << 18}, "window is at most"),
        ({"window": 3, "min_count": 4}, "min_count is at most window, got 4"),
        ({"window": 3, "stats": ("mode",)}, "stats are some of mean, std"),
        ({"window": 3, "stats": "mean"}, "stats are some of"),
        ({"window": 3, "ddof": -1}, "ddof"),
    ],
)
def test_parameters_that_make_no_sense(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        Rolling(**arguments)
