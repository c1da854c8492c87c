"""Curves: small, and nothing that stands out is left out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_systems_debugger import DebugReport, diagnose
from ml_systems_debugger.core import Series, SeriesKey, SignalSet
from ml_systems_debugger.core.curve import Curve, curves_of


def drawn(values: object, steps: object = None, name: str = "loss") -> Curve:
    array = np.asarray(values, float)
    at = np.arange(len(array)) if steps is None else np.asarray(steps, np.int64)
    return Curve.of(Series(SeriesKey(name), at, array))


def test_one_spike_in_a_million_is_still_there() -> None:
    values = np.ones(1_000_000)
    values[123_456] = 1e6
    curve = drawn(values)
    assert len(curve.steps) <= 96
    at = next(i for i, high in enumerate(curve.high) if high == 1e6)
    assert curve.steps[at] <= 123_456 < curve.steps[at + 1]


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=300),
    st.integers(-(2**62), 2**62),
    st.data(),
)
def test_extremes_and_bad_values_of_every_stretch(
    values: list[float], start: int, data: st.DataObject
) -> None:
    gaps = data.draw(st.lists(st.integers(0, 2**40), min_size=len(values), max_size=len(values)))
    steps = [start + sum(gaps[: at + 1]) for at in range(len(gaps))]
    curve = drawn(values, steps)
    assert len(curve.steps) <= 96
    bounds = [*curve.steps, curve.last_step + 1]
    told = 0
    for at, (low, high, bad) in enumerate(
        zip(curve.low, curve.high, curve.not_finite, strict=True)
    ):
        held = [v for s, v in zip(steps, values, strict=True) if bounds[at] <= s < bounds[at + 1]]
        finite = [v for v in held if np.isfinite(v)]
        assert bad == len(held) - len(finite)
        if finite:
            assert low == pytest.approx(min(finite), rel=1e-5)
            assert high == pytest.approx(max(finite), rel=1e-5)
        else:
            assert low is high is None
        told += len(held)
    assert told == len(values)
    assert Curve.from_dict(json.loads(json.dumps(curve.to_dict(), allow_nan=False))) == curve


def test_a_series_without_values_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        drawn([])


def test_a_report_has_the_curves_of_its_findings_and_of_the_run() -> None:
    n = 400
    loss = 1 / (1.0 + np.arange(n))
    norms = {f"grad_norm/l{at}": np.ones(n) for at in range(12)}
    for at in range(9):
        norms[f"grad_norm/l{at}"][300:] = np.nan
    report = diagnose({"loss": loss, "lr": np.full(n, 0.1), **norms})
    names = [one.series for one in report.curves]
    assert names[0] == report.failures[0].findings[0].evidence["series"]
    assert len([name for name in names if name.startswith("grad_norm/")]) == 6
    assert names[-2:] == ["loss", "lr"]
    assert DebugReport.from_json(report.to_json()).curves == report.curves


def test_what_is_no_series_of_numbers_is_not_drawn() -> None:
    one = Series(SeriesKey("loss"), np.array([3]), np.array([1.0]))
    assert curves_of(SignalSet([one]), []) == []
    assert DebugReport(0.0).curves == ()
