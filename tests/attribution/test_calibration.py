"""Calibration maps: in [0, 1], never falling, to JSON and back, refused where wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_systems_debugger import MLSystemsDebugger
from ml_systems_debugger.attribution import (
    ByEvidence,
    Calibration,
    Identity,
    Isotonic,
    Platt,
    load_calibration,
)
from ml_systems_debugger.configuration import Configuration
from ml_systems_debugger.core import ConfigurationError, Signal

MAPS: list[Calibration] = [
    Identity(), Platt(1.0, 0.0), Platt(0.4, -2.0), Platt(0.0, 3.0),
    Isotonic((0.1, 0.5, 0.9), (0.0, 0.6, 0.6)), Isotonic((0.5,), (0.3,)),
    ByEvidence(Platt(1.0, 1.0), Identity()),
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


def labelled(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences that claim too much, and whether each was right."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.05, 0.95, n)
    odds = np.log(truth / (1 - truth))
    return 1 / (1 + np.exp(-(2.0 * odds + 1.0))), rng.uniform(size=n) < truth


def error(calibration: Calibration, raw: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error over ten bins of equal width."""
    made = np.array([calibration(float(value)) for value in raw])
    bins = np.minimum((made * 10).astype(int), 9)
    return float(sum(
        abs(made[bins == at].mean() - right[bins == at].mean()) * (bins == at).mean()
        for at in range(10) if (bins == at).any()
    ))  # fmt: skip


@pytest.mark.parametrize("kind", [Platt, Isotonic])
def test_what_is_learnt_holds_on_other_runs(kind: type[Platt] | type[Isotonic]) -> None:
    learnt = kind.fit(*labelled(4000, 1))
    raw, right = labelled(4000, 2)
    assert error(Identity(), raw, right) > 0.1
    assert error(learnt, raw, right) < 0.04


def test_platt_finds_the_curve() -> None:
    learnt = Platt.fit(*labelled(40_000, 3))
    assert (learnt.slope, learnt.offset) == pytest.approx((0.5, -0.5), abs=0.05)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_any_labels_give_a_map_that_keeps_the_order(pairs: list[tuple[float, bool]]) -> None:
    raw, right = [p[0] for p in pairs], [p[1] for p in pairs]
    for learnt in (Platt.fit(raw, right), Isotonic.fit(raw, right)):
        made = [learnt(at / 20) for at in range(21)]
        assert all(0.0 <= value <= 1.0 for value in made)
        assert made == sorted(made)


def test_no_labels_are_refused() -> None:
    for raw, right in (([], []), ([0.5], [True, False]), ([1.5], [True])):
        for kind in (Platt, Isotonic):
            with pytest.raises(ConfigurationError):
                kind.fit(raw, right)


def test_the_shipped_calibration_names_where_it_was_learnt() -> None:
    import json
    from pathlib import Path

    from ml_systems_debugger import MLSystemsDebugger
    from ml_systems_debugger.attribution import calibration
    from ml_systems_debugger.configuration import Configuration

    path = Path(calibration.__file__).with_name("default_calibration.json")
    told = json.loads(path.read_text(encoding="utf-8"))["provenance"]
    assert told["wide"]["predictions"] >= 300
    assert len(told["wide"]["families"]) == 3
    assert told["narrow"]["predictions"] >= 100
    assert len(told["narrow"]["families"]) >= 2
    shipped = calibration.default_calibration()
    few = shipped.narrow  # a loss alone is no more
    run = {"loss": [2.0] * 30 + [float("nan")] * 5}
    raw = MLSystemsDebugger(config=Configuration().uncalibrated()).debug(run).attributions
    held = MLSystemsDebugger().debug(run).attributions
    assert [h.cause for h in held] == [h.cause for h in raw]
    assert [h.confidence for h in held] == [few(h.confidence) for h in raw]
    for part in (shipped, few):
        values = [part(share / 100) for share in range(101)]
        assert values == sorted(values)


# What a cause rests on.

BY_EVIDENCE = ByEvidence(Platt(1.0, 2.0), Platt(1.0, -2.0))


def run_of(*more: str) -> list[Signal]:
    steps = range(200)
    rates = [Signal("lr", 1e-3 if at < 120 else 0.1, step=at) for at in steps]
    losses = [Signal("loss", 1.0 if at < 120 else 9.0, step=at) for at in steps]
    others = [Signal(name, 1.0 + 0.01 * (at % 5), step=at) for name in more for at in steps]
    return rates + losses + others


@pytest.mark.parametrize(
    ("more", "wide"),
    [((), False), (("grad_norm", "step_time"), False), (("grad_norm/head",), False),
     (("activation_std/head",), True), (("input_std",), True)],
)  # fmt: skip
def test_causes_that_rest_on_three_curves_have_a_calibration_of_their_own(
    more: tuple[str, ...], wide: bool
) -> None:
    raw, held = (
        MLSystemsDebugger(config=Configuration(calibration=calibration))
        .debug(run_of(*more))
        .attributions[0]
        for calibration in (Identity(), BY_EVIDENCE)
    )
    part = BY_EVIDENCE.wide if wide else BY_EVIDENCE.narrow
    assert held.confidence == pytest.approx(part(raw.confidence))


def test_what_rests_on_other_series_is_not_narrow() -> None:
    grown = [Signal("memory_allocated", 20e9 + 1e8 * at, step=at) for at in range(500)]
    grown += [Signal("memory_total", 80e9, step=at) for at in range(500)]
    raw, held = (
        MLSystemsDebugger(config=Configuration(calibration=c)).debug(grown).attributions[0]
        for c in (Identity(), BY_EVIDENCE)
    )
    assert held.confidence == pytest.approx(BY_EVIDENCE.wide(raw.confidence))


def test_calibration_by_evidence_goes_to_json_and_back() -> None:
    assert Calibration.from_dict(BY_EVIDENCE.to_dict()) == BY_EVIDENCE
    assert Platt(1.0, 0.0).narrow == Platt(1.0, 0.0)
    with pytest.raises(ConfigurationError, match="by_evidence calibration"):
        Calibration.from_dict({"calibration_version": "1.0", "kind": "by_evidence", "wide": {}})
