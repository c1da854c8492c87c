"""The trail fold: against its twin, under cuts, and what it holds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_systems_debugger.kernels import _trail_reference as reference
from ml_systems_debugger.kernels.trail import (
    TRAIL_SIZE,
    Field,
    Reason,
    early,
    ring,
    table,
    trail_fold,
    trail_fold_table,
)
from ml_systems_debugger.kernels.trail import settings as trail_settings

SETTINGS = [
    trail_settings(relative=0.1, early=5.0, rise_of_gain=0.25, rise_of_best=0.1),
    trail_settings(logarithm=True, floor=0.7, early=3.0, rise=2.3),
    trail_settings(logarithm=True, sign=-1, floor=0.7, early=3.0, rise=4.6),
    trail_settings(floor=np.inf, rise=np.inf),
    trail_settings(relative=0.1, early=5.0, always=True),
]


def fold_all(fold, values, how, cuts=()):
    """Fold in pieces; return the row and where it stopped, with the reasons."""
    row = np.zeros(TRAIL_SIZE)
    stops = []
    steps = 3 * np.arange(len(values), dtype=np.int64)
    edges = [0, *sorted(cuts), len(values)]
    for low, high in itertools.pairwise(edges):
        part, part_steps = values[low:high], steps[low:high]
        at = 0
        while at < len(part):
            at = fold(part, part_steps, at, row, how)
            if row[Field.REASON]:
                stops.append((low + at, int(row[Field.REASON])))
    row[Field.REASON] = 0
    return row, stops


def history(seed: int, size: int) -> np.ndarray:
    """Make a loss-like history with outliers, a level shift, NaN and zeros."""
    rng = np.random.default_rng(seed)
    values = 2 * np.exp(-np.arange(size) / (size / 3 + 1)) + 0.1 * rng.standard_t(2, size)
    if size > 40:
        values[size // 2 : size // 2 + rng.integers(1, size // 2)] += 10 ** rng.uniform(-1, 6)
        values[rng.integers(size, size=2)] = [np.nan, np.inf]
        values[rng.integers(size, size=3)] = 0.0
    return values


@pytest.mark.parametrize("how", SETTINGS)
@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 63, 64, 65, 191, 192, 193, 700, 2500])
def test_equals_its_twin(how, size):
    values = history(size, size)
    ours, stops = fold_all(trail_fold, values, how)
    theirs, expected = fold_all(reference.trail_fold, values, how)
    assert stops == expected
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-300)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=64), max_size=500),
    st.lists(st.integers(0, 500), max_size=6),
    st.sampled_from(SETTINGS),
)
def test_cuts_change_nothing(values, cuts, how):
    array = np.array(values, dtype=np.float64)
    whole, stops = fold_all(trail_fold, array, how)
    parts, same = fold_all(trail_fold, array, how, [c for c in cuts if c < len(array)])
    assert stops == same
    assert np.array_equal(whole, parts, equal_nan=True)


def test_table_covers_the_history_evenly():
    values = np.arange(5000, dtype=np.float64)
    row, _ = fold_all(trail_fold, values, SETTINGS[3])
    medians, starts, width = table(row)
    assert width == 27
    assert 64 <= len(medians) < 192
    assert np.array_equal(np.diff(starts), np.full(len(starts) - 1, 3.0 * width))
    np.testing.assert_array_equal(medians, starts / 3 + (width - 1) / 2)


def test_outliers_do_not_reach_the_table():
    values = np.ones(3000)
    values[::50] = 1e9
    row, _ = fold_all(trail_fold, values, SETTINGS[3])
    assert set(table(row)[0]) == {1.0}


def test_ring_holds_the_last_and_early_the_first():
    row, _ = fold_all(trail_fold, np.arange(100.0), SETTINGS[3])
    values, steps = ring(row)
    assert values.tolist() == list(range(36, 100))
    assert steps.tolist() == [3.0 * v for v in range(36, 100)]
    assert early(row).tolist() == list(range(8))


def test_an_excursion_is_nominated_and_returns():
    values = np.concatenate([np.ones(100), np.full(40, 5.0), np.ones(20)])
    values += 0.01 * np.random.default_rng(0).normal(size=160)
    row, stops = fold_all(trail_fold, values, SETTINGS[0])
    assert [stop for stop in stops if stop[1] in (Reason.TRIGGER, Reason.RETURNED)] == [
        (116, Reason.TRIGGER),
        (132, Reason.TRIGGER),
        (143, Reason.RETURNED),
    ]
    assert row[Field.START_STEP] == 300
    assert row[Field.BEFORE] == 297


def test_wrong_arguments_name_the_argument():
    row, steps = np.zeros(TRAIL_SIZE), np.arange(3)
    with pytest.raises(ValueError, match="steps"):
        trail_fold(np.ones(2), steps, 0, row, SETTINGS[0])
    with pytest.raises(ValueError, match="row"):
        trail_fold(np.ones(3), steps, 0, row[:-1], SETTINGS[0])
    with pytest.raises(IndexError, match="4"):
        trail_fold(np.ones(3), steps, 4, row, SETTINGS[0])


def test_a_table_is_folded_as_its_series_are_one_by_one() -> None:
    rng = np.random.default_rng(3)
    width, size = 7, 400
    values = np.stack([history(seed, size) for seed in range(width)], axis=1)
    steps = 5 * np.arange(size, dtype=np.int64)
    columns, rows = np.array([6, 0, 3, 1]), np.array([2, 5, 0, 4])
    which, table_of = np.array([1, 0, 4, 2]), np.stack(SETTINGS)
    trails, stops = np.zeros((6, TRAIL_SIZE)), []
    low = 0
    while low < size:
        high = min(size, low + int(rng.integers(1, 50)))
        series = at = 0
        while True:
            series, at = trail_fold_table(
                np.ascontiguousarray(values[low:high]), steps[low:high], columns, rows, which,
                trails, table_of, series, at,
            )  # fmt: skip
            if series == len(columns):
                break
            stops.append((series, low + at, int(trails[rows[series], Field.REASON])))
        low = high
    for number, (column, row) in enumerate(zip(columns, rows, strict=True)):
        expected = np.zeros(TRAIL_SIZE)
        at, seen = 0, []
        own = np.ascontiguousarray(values[:, column])
        while at < size:
            at = trail_fold(own, steps, at, expected, SETTINGS[which[number]])
            if expected[Field.REASON]:
                seen.append((number, at, int(expected[Field.REASON])))
        expected[Field.REASON] = trails[row, Field.REASON]
        np.testing.assert_array_equal(trails[row], expected)
        assert sorted(s for s in stops if s[0] == number) == sorted(seen)
    assert not trails[[1, 3]].any()


def test_a_table_that_does_not_fit_is_refused() -> None:
    values, steps, one = np.zeros((4, 2)), np.arange(4), np.zeros(1, np.int64)
    trails, how = np.zeros((1, TRAIL_SIZE)), np.stack(SETTINGS)
    fold = lambda v, s, c, r, w: trail_fold_table(v, s, c, r, w, trails, how, 0, 0)  # noqa: E731
    with pytest.raises(IndexError, match=r"columns\[0\] lies between 0 and 1, got 2"):
        fold(values, steps, one + 2, one, one)
    with pytest.raises(IndexError, match=r"rows\[0\]"):
        fold(values, steps, one, one + 1, one)
    with pytest.raises(IndexError, match=r"which\[0\]"):
        fold(values, steps, one, one, one - 1)
    with pytest.raises(ValueError, match="steps holds 4 values, got 3"):
        fold(values, steps[:3], one, one, one)
    with pytest.raises(ValueError, match="values is a dense array"):
        fold(values[:, ::2], steps, one, one, one)
