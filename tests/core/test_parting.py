"""Where two series part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_systems_debugger.core import Series, SeriesKey, SeriesKind
from ml_systems_debugger.core.parting import common_places

NAN, INF = float("nan"), float("inf")


def series(steps: Any, values: Any, kind: SeriesKind = SeriesKind.SCALAR) -> Series:
    dtype = np.uint64 if kind is SeriesKind.DIGEST else np.float64
    key = SeriesKey("param_digest" if kind is SeriesKind.DIGEST else "loss", kind=kind)
    return Series(key, np.array(steps, np.int64), np.array(values, dtype))


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_places_are_those_of_a_plain_loop(one: list[int], other: list[int]) -> None:
    def places(steps: list[int]) -> list[tuple[int, int]]:
        return [(step, steps[:at].count(step)) for at, step in enumerate(steps)]

    one, other = sorted(one), sorted(other)
    found = common_places(series(one, range(len(one))), series(other, range(len(other))))
    wanted = [place for place in places(one) if place in places(other)]
    assert found.steps.tolist() == [step for step, _ in wanted]
    assert found.a.tolist() == [places(one).index(place) for place in wanted]
    assert found.b.tolist() == [places(other).index(place) for place in wanted]


@pytest.mark.parametrize(
    ("a", "b", "first", "beyond", "largest"),
    [
        ([1.0, 2.0], [1.0, 2.0], None, None, 0.0),
        ([1.0, NAN, INF], [1.0, NAN, INF], None, None, 0.0),
        ([1.0, 2.0, 3.0], [1.0, 2.0 + 1e-9, 4.0], 1, 2, 0.25),
        ([1.0, NAN], [1.0, 2.0], 1, 1, INF),
        ([1.0, INF], [1.0, 2.0], 1, 1, INF),
        ([-INF], [INF], 0, 0, INF),
        ([0.0], [-0.0], None, None, 0.0),
        ([], [], None, None, 0.0),
    ],
)
def test_what_differs(
    a: list[float], b: list[float], first: int | None, beyond: int | None, largest: float
) -> None:
    found = common_places(series(range(len(a)), a), series(range(len(b)), b))
    assert found.first_parting() == first
    assert found.first_parting(1e-3) == beyond
    assert found.largest_difference() == largest


def test_digests_are_equal_or_not() -> None:
    kind = SeriesKind.DIGEST
    found = common_places(
        series([1, 2], [7, 2**64 - 1], kind), series([1, 2], [7, 2**64 - 2], kind)
    )
    assert found.first_parting(0.5) == 1, "no float could tell them apart"
