"""Skew: silent where distributions are the same, sure and named where they are not."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import (
    ConfigurationError,
    Outcome,
    Series,
    SeriesKey,
    SeriesKind,
    Severity,
    Signal,
    SignalSet,
    TrainingServingSkewDetector,
)

DETECTOR = TrainingServingSkewDetector()
RNG = np.random.default_rng(0)


def compare(reference: Any, serving: Any) -> Any:
    return DETECTOR.detect([], {"reference": {"x": reference}, "serving": {"x": serving}})


def test_two_hundred_pairs_of_equal_distributions_raise_at_most_two_alarms() -> None:
    rng = np.random.default_rng(3)
    draws = [
        lambda n: rng.normal(size=n),
        lambda n: rng.standard_t(2, n),
        lambda n: rng.lognormal(0, 1.5, n),
        lambda n: rng.poisson(2, n).astype(float),
    ]
    alarms = sum(
        compare(draws[i % 4](n), draws[i % 4](n)).detected
        for i, n in enumerate([300, 500, 1000, 3000] * 50)
    )
    assert alarms <= 2


def test_a_fifth_of_a_sigma_is_found_at_ten_thousand() -> None:
    found = compare(RNG.normal(size=10_000), RNG.normal(0.2, 1, 10_000))
    assert found.evidence["kind"] == "shift"
    assert found.evidence["effect_size"] == pytest.approx(0.2, abs=0.05)


def test_a_hundredth_of_a_sigma_is_not_at_a_million() -> None:
    assert not compare(RNG.normal(size=10**6), RNG.normal(0.01, 1, 10**6)).detected


def test_a_spread_of_thirty_times_at_the_same_mean_is_found() -> None:
    found = compare(RNG.normal(size=2000), RNG.normal(0, 30, 2000))
    assert (found.severity, found.evidence["kind"]) == (Severity.HIGH, "scale")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("unit_change", lambda x: x * 1000),
        ("constant", lambda x: np.full_like(x, 40.0)),
        ("nulls", lambda x: np.where(np.arange(len(x)) % 3 == 0, np.nan, x)),
        ("shift", lambda x: x + 10),
    ],
)
def test_kinds_are_named(kind: str, change: Any) -> None:
    found = compare(RNG.normal(40, 9, 3000), change(RNG.normal(40, 9, 3000)))
    assert found.detected
    assert found.evidence["kind"] == kind


def test_equal_constants_are_equal_and_others_are_not() -> None:
    assert not compare(np.ones(500), np.ones(500)).detected
    assert compare(np.ones(500), np.full(500, 2.0)).detected


@pytest.mark.parametrize("sides", [("train", "serving"), ("reference", "production")])
def test_pairs_come_as_scalars_of_two_splits(sides: tuple[str, str]) -> None:
    signals = [
        Signal("feature/age", float(v), metadata={"split": side})
        for side, middle in zip(sides, (40, 80), strict=True)
        for v in RNG.normal(middle, 9, 200)
    ]
    found = DETECTOR.detect(signals)
    assert found.evidence["feature"] == "age"
    assert found.judged == ("feature",)


def test_pairs_come_as_arrays() -> None:
    found = DETECTOR.detect(
        [
            Signal("training_distribution", RNG.normal(size=500), layer_name="f"),
            Signal("serving_distribution", RNG.normal(3, 1, 500), layer_name="f"),
        ]
    )
    assert (found.severity, found.evidence["feature"]) == (Severity.HIGH, "f")


def test_a_logged_divergence_alone_is_medium() -> None:
    found = DETECTOR.detect([Signal("kl_divergence", 0.9, step=i) for i in range(5)])
    assert (found.severity, found.evidence["kind"]) == (Severity.MEDIUM, "divergence")
    assert not DETECTOR.detect([Signal("kl_divergence", 0.01, step=0)]).detected


def test_many_features_share_one_rate_of_false_discoveries() -> None:
    rng = np.random.default_rng(5)
    sides = [{str(i): rng.standard_t(3, 400) for i in range(60)} for _ in range(2)]
    assert not DETECTOR.detect([], {"reference": sides[0], "serving": sides[1]}).detected
    sides[1]["7"] = sides[1]["7"] + 1.0
    found = DETECTOR.detect([], {"reference": sides[0], "serving": sides[1]})
    assert [f.evidence["feature"] for f in found.findings] == ["7"]


def test_too_few_values_and_no_pair_are_said() -> None:
    assert compare([1.0] * 10, [2.0] * 10).outcome is Outcome.INSUFFICIENT
    assert DETECTOR.detect([]).outcome is Outcome.NOT_APPLICABLE


def test_text_is_an_error_that_names_the_feature() -> None:
    with pytest.raises(ConfigurationError, match="'x' holds no numbers"):
        compare(["a", "b"], ["c", "d"])


@pytest.mark.parametrize("width", [1000, 7777, 16384, 33333])
def test_memory_is_bounded_and_the_cut_is_all_the_same(width: int) -> None:
    n = 100_000
    run = SignalSet(
        Series(SeriesKey("feature", side, "x"), np.arange(n), RNG.normal(shift, 1, n))
        for side, shift in (("train", 0.0), ("serving", 0.3))
    )
    state = DETECTOR.init()
    for start, stop in pairwise([None, *range(width, n, width), None]):
        DETECTOR.update(state, run.between(start, stop))
    assert DETECTOR.conclude(state).to_dict() == DETECTOR.detect(run).to_dict()
    assert len(state.to_bytes()) < 400_000


def test_arrays_are_not_kept_and_not_changed() -> None:
    arrays = np.empty(2, dtype=object)
    arrays[:] = [np.arange(50.0), np.arange(50.0) + 1]
    run = SignalSet(
        [
            Series(
                SeriesKey("training_distribution", layer="f", kind=SeriesKind.ARRAY),
                np.arange(2), arrays,
            )
        ]
    )  # fmt: skip
    DETECTOR.detect(run)
    np.testing.assert_array_equal(arrays[1], np.arange(50.0) + 1)
