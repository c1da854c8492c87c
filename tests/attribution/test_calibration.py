"""Calibration maps: in [0, 1], never falling, to JSON and back, refused where wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_systems_debugger.attribution import (
    Calibration,
    Identity,
    Isotonic,
    Platt,
    load_calibration,
)
from ml_systems_debugger.core import ConfigurationError

MAPS: list[Calibration] = [
    Identity(), Platt(1.0, 0.0), Platt(0.4, -2.0), Platt(0.0, 3.0),
    Isotonic((0.1, 0.5, 0.9), (0.0, 0.6, 0.6)), Isotonic((0.5,), (0.3,)),
]  # fmt: skip


@pytest.mark.parametrize("calibration", MAPS, ids=repr)
@given(low=st.floats(0, 1), high=st.floats(0, 1))
def test_it_stays_inside_and_keeps_the_order(
    calibration: Calibration, low: float, high: float
) -> None:
    low, high = min(low, high), max(low, high)
    assert 0.0 <= calibration(low) <= calibration(high) + 1e-12
    assert calibration(high) <= 1.0


def test_values() -> None:
    assert Platt(1.0, 0.0)(0.3) == pytest.approx(0.3)
    steps = Isotonic((0.1, 0.5, 0.9), (0.0, 0.6, 0.8))
    assert [steps(x) for x in (0.0, 0.1, 0.3, 0.5, 0.7, 1.0)] == pytest.approx(
        [0.0, 0.0, 0.3, 0.6, 0.7, 0.8]
    )


@pytest.mark.parametrize("calibration", MAPS, ids=repr)
def test_to_a_file_and_back(calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(calibration.to_dict()))
    assert load_calibration(path) == calibration


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not json", "is no JSON"),
        ("[1]", "JSON object"),
        ('{"calibration_version": "9", "kind": "identity"}', "'9'"),
        ('{"calibration_version": "1.0", "kind": "magic"}', "'magic'"),
        ('{"calibration_version": "1.0", "kind": "platt", "slope": 1}', "offset"),
        ('{"calibration_version": "1.0", "kind": "platt", "slope": "x", "offset": 0}', "'x'"),
        ('{"calibration_version": "1.0", "kind": "platt", "slope": -1, "offset": 0}', "-1"),
        (
            '{"calibration_version": "1.0", "kind": "isotonic", "raw": [1, 0], "calibrated": [1]}',
            "rise",
        ),
        ('{"calibration_version": "1.0", "kind": "isotonic", "raw": [], "calibrated": []}', "()"),
    ],
)  # fmt: skip
def test_what_is_none_is_refused_with_the_file_and_the_value(
    text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_calibration(path)
    assert "broken.json" in str(caught.value)
    assert said in str(caught.value)
