"""Read-only mappings, and values of every library in strict JSON."""

from __future__ import annotations

import copy
import datetime
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest

from ml_systems_debugger.core import FrozenDict, Severity, freeze, to_jsonable


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(a=2), lambda d: d.pop("a"), lambda d: d.clear(),
        lambda d: d.setdefault("b", 1), lambda d: d.__setitem__("a", 2),
        lambda d: d.__delitem__("a"), lambda d: d.popitem(), lambda d: d.__ior__({"b": 1}),
    ],
)  # fmt: skip
def test_nothing_changes_it(change: object) -> None:
    frozen = freeze({"a": 1})
    with pytest.raises(TypeError, match="read-only"):
        change(frozen)  # type: ignore[operator]
    assert frozen == {"a": 1}


def test_freezing_goes_all_the_way_down() -> None:
    frozen = freeze({"a": [{"b": [1]}], "c": {2, 1}})
    assert frozen == {"a": ({"b": (1,)},), "c": frozenset({1, 2})}
    assert isinstance(frozen["a"][0], FrozenDict)
    assert freeze(frozen) is frozen
    assert freeze(None) == {}


def test_pickle_and_copy() -> None:
    frozen = freeze({"a": [math.nan]})
    assert isinstance(pickle.loads(pickle.dumps(frozen)), FrozenDict)  # noqa: S301
    assert copy.deepcopy(frozen) is frozen
    assert json.dumps(freeze({"a": (1, 2)})) == '{"a": [1, 2]}'


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (np.float32(0.5), 0.5), (np.int8(3), 3), (np.bool_(True), True), (np.float64("nan"), "NaN"),
        (np.float16("inf"), "Infinity"), (-math.inf, "-Infinity"), (2**70, 2**70),
        (Severity.HIGH, "high"), (np.array([[1, 2]]), [[1, 2]]), (np.array(1.5), 1.5),
        ({1: {2.5, 1.0}}, {"1": [1.0, 2.5]}), (Path("a/b"), "a/b"),
        (datetime.date(2026, 1, 2), "2026-01-02"), (1 + 2j, "(1+2j)"), (b"x", "b'x'"),
        (range(2), [0, 1]), (int, "<class 'int'>"),
    ],
)  # fmt: skip
def test_jsonable(value: object, written: object) -> None:
    assert to_jsonable(value) == written
    assert type(to_jsonable(value)) is type(written)
    json.dumps(to_jsonable(value), allow_nan=False)


def test_tensors_are_jsonable() -> None:
    torch = pytest.importorskip("torch")
    assert to_jsonable(torch.tensor([1.0, math.nan])) == [1.0, "NaN"]
    assert to_jsonable(torch.tensor(2)) == 2
    assert to_jsonable(torch.tensor([1.5], dtype=torch.bfloat16)) == [1.5]
