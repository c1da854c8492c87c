"""Findings: strict JSON both ways, plain numbers, nothing that can be changed."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from core_strategies import findings
from hypothesis import given

from ml_systems_debugger.core import ConfigurationError, Event, EventKind, Finding


def finding(**more: Any) -> Finding:
    return Finding(**{"failure_mode": "loss_spike", "severity": "high", "confidence": 0.5, **more})


@given(findings)
def test_through_json_and_back(one: Finding) -> None:
    text = json.dumps(one.to_dict(), allow_nan=False)
    back = Finding.from_dict(json.loads(text))
    assert back == one
    assert hash(back) == hash(one)
    assert json.dumps(back.to_dict(), allow_nan=False) == text


@given(findings)
def test_pickled_and_copied(one: Finding) -> None:
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301 - our own bytes
    assert copy.deepcopy(one) == one


def test_numbers_of_numpy_become_plain() -> None:
    one = finding(onset_step=np.int64(7), end_step=9.0, replica_id=np.int32(3))
    assert (type(one.onset_step), type(one.end_step), type(one.replica_id)) == (int, int, int)
    assert finding(onset_step=7, end_step=9, replica_id=3) == one


@pytest.mark.parametrize("step", [1.5, math.nan, math.inf, "7"])
def test_a_step_that_is_none_names_itself(step: object) -> None:
    with pytest.raises(TypeError, match=r"onset_step is a whole number, got"):
        finding(onset_step=step)


@pytest.mark.parametrize("confidence", [-0.1, 1.1, math.nan])
def test_confidence_lies_between_0_and_1(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence lies between 0 and 1"):
        finding(confidence=confidence)


def test_an_unknown_mode_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown failure mode 'lossspike'.*loss_spike"):
        finding(failure_mode="lossspike")


def test_evidence_is_a_copy_that_cannot_change() -> None:
    inner = [1, 2]
    given_evidence = {"a": inner, "b": {"c": np.array([1.0, math.nan])}}
    one = finding(evidence=given_evidence)
    inner.append(3)
    assert one.evidence["a"] == (1, 2)
    assert one == finding(evidence={"a": [1, 2], "b": {"c": [1.0, math.nan]}})
    with pytest.raises(TypeError, match="read-only"):
        one.evidence["a"] = 1  # type: ignore[index]


def test_tensors_in_evidence_are_written_as_numbers() -> None:
    torch = pytest.importorskip("torch")
    one = finding(evidence={"norms": torch.tensor([1.0, 2.0]), "last": torch.tensor(3)})
    assert one.to_dict()["evidence"] == {"norms": [1.0, 2.0], "last": 3}


def test_non_finite_evidence_is_three_words() -> None:
    one = finding(evidence={"x": math.nan, "y": math.inf, "z": [-math.inf]})
    written = one.to_dict()["evidence"]
    assert written == {"x": "NaN", "y": "Infinity", "z": ["-Infinity"]}


def test_events_are_ordered_by_step_then_finding_then_kind() -> None:
    a, b = finding(finding_id="a"), finding(finding_id="b")
    events = [Event(EventKind.CLOSE, 2, a), Event(EventKind.OPEN, 2, b),
              Event(EventKind.OPEN, 2, a), Event(EventKind.OPEN, 1, b)]  # fmt: skip
    ordered = sorted(events, key=Event.sort_key)
    assert [(e.step, e.finding.finding_id, e.kind.value) for e in ordered] == [
        (1, "b", "open"), (2, "a", "open"), (2, "a", "close"), (2, "b", "open"),
    ]  # fmt: skip
