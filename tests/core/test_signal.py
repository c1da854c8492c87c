"""Signals: equality and hash agree, parts are of their types, arrays are held."""

from __future__ import annotations

import copy
import datetime
import json
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from core_strategies import signals
from hypothesis import given

from ml_systems_debugger.core import Signal, is_array, scalar_value


@given(signals)
def test_through_json_pickle_and_copy(one: Signal) -> None:
    for back in (
        Signal.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False))),
        pickle.loads(pickle.dumps(one)),  # noqa: S301 - our own bytes
        copy.deepcopy(one),
    ):
        assert back == one
        assert hash(back) == hash(one)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, 1.0), (np.float32(0.1), float(np.float32(0.1))), (np.array(2.0), 2), (True, 1),
        (math.nan, np.float32("nan")), (2**60, np.int64(2**60)), (np.uint8(3), 3.0),
    ],
)  # fmt: skip
def test_equal_numbers_are_equal_signals_with_one_hash(a: object, b: object) -> None:
    assert Signal("loss", a) == Signal("loss", b)
    assert hash(Signal("loss", a)) == hash(Signal("loss", b))


@pytest.mark.parametrize(
    ("a", "b"), [(math.nan, "NaN"), (2**60, 2**60 + 1), (1, "1"), (0.1, np.float32(0.1))]
)
def test_what_only_looks_equal_is_not(a: object, b: object) -> None:
    assert Signal("loss", a) != Signal("loss", b)


def test_arrays_are_held_by_reference_and_equal_by_identity() -> None:
    array = np.ones(3)
    one = Signal("gradient", array)
    assert one.value is array
    assert one == Signal("gradient", array)
    assert one != Signal("gradient", array.copy())
    assert isinstance(hash(one), int)
    assert "value=<ndarray (3,)>" in repr(one)


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    weight = torch.ones(2, 3, requires_grad=True)
    assert Signal("parameter", weight).value is weight
    assert is_array(weight)
    assert not is_array(torch.tensor(1.0))
    assert scalar_value(torch.tensor(1.5, dtype=torch.bfloat16)) == 1.5
    assert hash(Signal("loss", torch.tensor(0.5))) == hash(Signal("loss", 0.5))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"name": ""}, "name is a non-empty str"),
        ({"name": 3}, "name is a non-empty str"),
        ({"step": 1.5}, r"step of signal 'loss' is a whole number, got 1.5"),
        ({"step": "3"}, r"step of signal 'loss' is a whole number, got '3'"),
        ({"layer_name": 3}, r"layer_name of signal 'loss' is a str, got 3"),
        ({"replica_id": 1.5}, "replica_id is a whole number"),
        ({"timestamp": datetime.datetime(2026, 1, 1)}, "timestamp of signal 'loss' is in seconds"),
    ],
)
def test_parts_of_a_wrong_type_are_named(parts: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Signal(**{"name": "loss", "value": 1.0, **parts})  # type: ignore[arg-type]


def test_numbers_of_numpy_become_plain() -> None:
    one = Signal("loss", 1.0, np.float32(5), {}, np.int64(2), np.int64(7))
    assert (type(one.timestamp), type(one.replica_id), type(one.step)) == (float, int, int)
    assert Signal("loss", 1.0, step=7.0).step == 7  # type: ignore[arg-type]


def test_it_is_read_only() -> None:
    one = Signal("loss", 1.0, metadata={"tags": ["a"]})
    with pytest.raises(AttributeError):
        one.value = 2  # type: ignore[misc]
    with pytest.raises(TypeError, match="read-only"):
        one.metadata["x"] = 1  # type: ignore[index]
    assert one.metadata["tags"] == ("a",)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (True, 1.0), (10**400, math.inf), (-(10**400), -math.inf), (Fraction(1, 2), 0.5),
        (np.float16(0.5), 0.5), (np.array(3), 3.0), ("1", None), (b"1", None), (None, None),
        (1j, None), (np.complex64(1), None), ([1], None), (np.ones(1), None),
    ],
)  # fmt: skip
def test_scalar_value(value: object, number: float | None) -> None:
    assert scalar_value(value) == number
