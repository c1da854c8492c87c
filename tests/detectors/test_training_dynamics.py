"""Spikes, overfitting, learning rates, frozen layers, dead units, collapse, lost precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import (
    BaseDetector,
    DeadUnitsDetector,
    FeatureCollapseDetector,
    FrozenParametersDetector,
    LearningRateInstabilityDetector,
    LossSpikeDetector,
    MixedPrecisionInstabilityDetector,
    Outcome,
    OverfittingDetector,
    PrecisionLossDetector,
    Severity,
    SignalSet,
    diagnose,
)
from ml_systems_debugger.core import Series, canonical
from ml_systems_debugger.core import SeriesKey as Key


def run(**given: Any) -> SignalSet:
    """Make a run of series; a pair gives steps and values."""
    found = []
    for raw, held in given.items():
        name = canonical(raw.replace("__", "/"))
        steps, values = held if isinstance(held, tuple) else (np.arange(len(held)), held)
        key = Key(name.name, name.split, name.layer)
        found.append(Series(key, np.asarray(steps), np.asarray(values, np.float64)))
    return SignalSet(found)


def noise(seed: int, n: int) -> Any:
    return np.random.default_rng(seed).normal(size=n)


def falling(seed: int, n: int = 800, spread: float = 0.05) -> Any:
    return (2 * np.exp(-np.arange(n) / 150) + 1.0) * np.exp(spread * noise(seed, n))


# Loss spikes.


@pytest.mark.parametrize("size", [3.0, 10.0, 100.0])
def test_a_spike_is_found_at_its_step_and_ends(size: float) -> None:
    loss = falling(0)
    loss[600:604] *= size
    found = LossSpikeDetector().detect(run(loss=loss)).findings
    assert [(f.onset_step, f.end_step) for f in found] == [(600, 603)]
    assert found[0].severity is (Severity.HIGH if size > 5 else Severity.MEDIUM)


def test_a_rise_that_stays_is_no_spike() -> None:
    loss = falling(1)
    loss[500:] += 5
    assert not LossSpikeDetector().detect(run(loss=loss)).detected


N = 3000
SHAPES: dict[str, Any] = {
    "normal": lambda g: 0.1 * g.normal(size=N),
    "t3": lambda g: 0.1 * g.standard_t(3, N),
    "ar": lambda g: np.convolve(g.normal(size=N), 0.9 ** np.arange(60))[:N] * 0.05,
    "lognormal": lambda g: 1.5 * g.normal(size=N),  # a loss near zero
    "steps": lambda g: -0.5 * (np.arange(N) > 1500) + 0.05 * g.normal(size=N),
    "saw": lambda g: 0.2 * ((np.arange(N) % 100) / 100) + 0.03 * g.normal(size=N),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_healthy_losses_do_not_spike(kind: str) -> None:
    alarms = 0
    for seed in range(30):
        level = 2 * np.exp(-np.arange(N) / 400) + 0.5
        loss = level * np.exp(SHAPES[kind](np.random.default_rng(seed)))
        found = LossSpikeDetector().detect(run(loss=loss))
        alarms += found.detected and found.severity is not None and found.severity >= "medium"
    assert alarms <= 4  # of 30; of the heaviest tails one in sixteen is promised


def test_the_learning_rate_before_a_spike_is_told() -> None:
    loss, rate = falling(2), np.full(800, 1e-3)
    loss[600:605] *= 8
    rate[599:604] = 0.1
    found = LossSpikeDetector().detect(run(loss=loss, lr=rate))
    assert found.evidence["lr_jump"] == pytest.approx(100)


# Overfitting.


def held_out(values: Any, every: int = 50) -> Any:
    return np.arange(len(values)) * every, values


def test_learning_by_heart_is_found_at_the_best_evaluation() -> None:
    val = np.concatenate([np.linspace(2, 0.8, 8), np.linspace(0.85, 1.6, 10)])
    found = OverfittingDetector().detect(run(loss=falling(3, 900), val_loss=held_out(val)))
    assert found.severity is Severity.HIGH
    assert found.onset_step == 350
    assert found.evidence["training_fell"]
    assert (found.evidence["onset_low"], found.evidence["onset_high"]) == (300, 400)


@pytest.mark.parametrize(("falls", "severity"), [(0.0, "medium"), (0.1, "high")])
@pytest.mark.parametrize("scale", [1, 100])
def test_an_accuracy_that_holds_speaks_against_it(falls: float, severity: str, scale: int) -> None:
    val = np.concatenate([np.linspace(2, 0.8, 8), np.linspace(0.85, 1.6, 10)])
    accuracy = np.concatenate([np.linspace(0.5, 0.92, 8), np.linspace(0.92, 0.92 - falls, 10)])
    accuracy = scale * (accuracy + 0.002 * noise(1, 18))
    found = OverfittingDetector().detect(
        run(loss=falling(3, 900), val_loss=held_out(val), val_accuracy=held_out(accuracy))
    )
    assert str(found.severity) == severity
    assert ("against" in found.evidence) == (severity == "medium")
    assert found.judged == ("loss",)


def test_divergence_is_no_overfitting() -> None:
    loss = falling(4, 900)
    loss[450:] *= 4
    val = np.concatenate([np.linspace(2, 0.8, 9), np.full(9, 4.0)])
    assert not OverfittingDetector().detect(run(loss=loss, val_loss=held_out(val))).detected


def test_overfitting_of_a_training_loss_alone_says_what_is_lacking() -> None:
    found = OverfittingDetector().detect(run(loss=falling(3, 900)))
    assert found.outcome is Outcome.NOT_APPLICABLE
    assert found.reason == "no series of held-out loss is in the input"


def test_without_a_training_loss_it_is_medium() -> None:
    val = np.concatenate([np.linspace(2, 0.8, 8), np.linspace(0.85, 1.6, 10)])
    found = OverfittingDetector().detect(run(val_loss=held_out(val)))
    assert found.severity is Severity.MEDIUM


@pytest.mark.parametrize("seed", range(20))
def test_a_held_out_loss_that_converges_noisily_is_healthy(seed: int) -> None:
    val = 1.5 * np.exp(-np.arange(40) / 6) + 0.5 + 0.03 * noise(seed, 40)
    assert (
        not OverfittingDetector()
        .detect(run(loss=falling(seed, 2000), val_loss=held_out(val)))
        .detected
    )


def test_what_comes_down_again_is_taken_back() -> None:
    val = np.concatenate(
        [np.linspace(2, 0.8, 8), [0.9, 1.0, 1.1, 0.9, 0.7, 0.6, 0.55, 0.5, 0.5, 0.5]]
    )
    assert (
        not OverfittingDetector().detect(run(loss=falling(5, 900), val_loss=held_out(val))).detected
    )


# Learning rates.


def test_a_jump_of_the_rate_is_found_and_the_loss_makes_it_high() -> None:
    rate, loss = np.full(800, 1e-3), falling(6)
    rate[400:] = 0.1
    found = LearningRateInstabilityDetector().detect(run(lr=rate))
    assert (found.severity, found.onset_step) == (Severity.MEDIUM, 400)
    loss[401:] *= 3
    found = LearningRateInstabilityDetector().detect(run(lr=rate, loss=loss))
    assert found.severity is Severity.HIGH
    assert found.evidence["loss_rise"] == pytest.approx(3, rel=0.2)


@pytest.mark.parametrize("schedule", ["warmup", "cosine", "restarts", "cyclic", "steps"])
def test_schedules_are_normal(schedule: str) -> None:
    at = np.arange(1000)
    rates = {
        "warmup": np.minimum(1, (at + 1) / 100),
        "cosine": 0.5 * (1 + np.cos(np.pi * at / 1000)),
        "restarts": 0.01 + 0.5 * (1 + np.cos(np.pi * (at % 250) / 250)),
        "cyclic": 0.01 + np.abs(1 - 2 * ((at / 100) % 1)),
        "steps": 0.1 ** (at // 300),
    }
    assert not LearningRateInstabilityDetector().detect(run(lr=rates[schedule] * 1e-3)).detected


# Layers.


def layered(name: str, **layers: Any) -> dict[str, Any]:
    return {f"{name}__{layer}": values for layer, values in layers.items()}


def test_a_layer_that_stops_is_high_and_one_frozen_on_purpose_low() -> None:
    moving = np.exp(noise(0, 200)) * 1e-3
    stopped = moving.copy()
    stopped[120:] = 0
    found = FrozenParametersDetector().detect(
        run(**layered("update_ratio", a=moving, b=stopped, c=np.zeros(200)))
    )
    told = {f.layer: (f.severity, f.onset_step) for f in found.findings}
    assert told == {"b": (Severity.HIGH, 120), "c": (Severity.LOW, 0)}


def test_a_run_that_ends_with_a_rate_of_zero_is_healthy() -> None:
    ratio = np.full(200, 1e-3)
    ratio[150:] = 0
    signals = run(**layered("update_ratio", a=ratio, b=ratio), lr=(np.arange(200) < 150) * 1e-3)
    assert not FrozenParametersDetector().detect(signals).detected
    assert not PrecisionLossDetector().detect(signals).detected


def test_updates_that_are_lost_everywhere_are_lost_precision() -> None:
    ratio = np.full(200, 1e-3)
    ratio[150:] = 0
    signals = run(**layered("update_ratio", a=ratio, b=ratio, c=ratio), lr=np.full(200, 1e-5))
    found = PrecisionLossDetector().detect(signals)
    assert (found.severity, found.onset_step) == (Severity.HIGH, 150)
    assert not FrozenParametersDetector().detect(signals).detected


def test_units_that_die_are_told_from_sparse_ones() -> None:
    g = np.random.default_rng(0)
    sparse = np.clip(0.88 + 0.02 * g.normal(size=200), 0, 1)
    dying = np.clip(0.5 + 0.02 * g.normal(size=200), 0, 1)
    dying[90:] = 1.0
    found = DeadUnitsDetector().detect(
        run(**layered("activation_zero_fraction", a=sparse, b=dying))
    )
    assert [(f.layer, f.onset_step, f.severity) for f in found.findings] == [
        ("b", 90, Severity.HIGH)
    ]


def test_features_that_become_one_are_told_from_those_that_shrink() -> None:
    shrinking = np.linspace(1, 0.3, 200)
    collapsed = np.concatenate([np.ones(100), np.full(100, 0.002)])
    found = FeatureCollapseDetector().detect(
        run(**layered("activation_std", a=shrinking, b=collapsed))
    )
    assert [(f.layer, f.onset_step) for f in found.findings] == [("b", 100)]


# Mixed precision.


def test_skipped_steps_in_a_row_and_one_now_and_then() -> None:
    flags = np.zeros(1000)
    flags[:9] = 1  # the scaler looks for its level
    flags[200::200] = 1
    assert not MixedPrecisionInstabilityDetector().detect(run(skipped_step=flags)).detected
    flags[700:708] = 1
    found = MixedPrecisionInstabilityDetector().detect(run(skipped_step=flags))
    assert (found.severity, found.onset_step) == (Severity.MEDIUM, 700)
    flags[900:] = 1
    found = MixedPrecisionInstabilityDetector().detect(run(skipped_step=flags))
    assert found.severity is Severity.HIGH


def test_a_scale_that_collapses() -> None:
    scale = np.full(600, 65536.0)
    scale[400:] = np.maximum(65536.0 * 0.5 ** np.arange(1, 201), 2.0**-10)
    found = MixedPrecisionInstabilityDetector().detect(run(loss_scale=scale))
    assert found.onset_step == 400


@pytest.mark.parametrize(
    "detector",
    [
        LossSpikeDetector(), OverfittingDetector(), LearningRateInstabilityDetector(),
        FrozenParametersDetector(), DeadUnitsDetector(), FeatureCollapseDetector(),
        PrecisionLossDetector(), MixedPrecisionInstabilityDetector(),
    ],
    ids=lambda d: d.name,
)  # fmt: skip
def test_nothing_to_judge_is_said(detector: BaseDetector) -> None:
    assert detector.detect([]).outcome is Outcome.NOT_APPLICABLE


def test_one_fault_is_one_story_with_its_cause_first() -> None:
    rate, loss = np.full(800, 1e-3), falling(7)
    rate[400:] = 0.3
    loss[401:] = 30 * np.exp(0.1 * noise(8, 399))
    report = diagnose(run(lr=rate, loss=loss))
    assert str(report.attributions[0].cause) == "learning_rate_schedule_fault"
    assert len({a.story for a in report.attributions}) == 1


@pytest.mark.parametrize("cut", [1, 30, 31, 32])
def test_the_loss_beside_a_jump_does_not_depend_on_the_chunks(cut: int) -> None:
    steps = np.arange(60)
    rate, loss = np.where(steps < 31, 1e-3, 1.0), np.where(steps < 32, 1.0, 9.0)
    loss[25] = np.nan
    series = [
        Series(Key("lr"), steps, rate),
        Series(Key("loss", replica_id="0"), steps[:1], loss[:1]),  # it ends at once
        Series(Key("loss", replica_id="1"), steps, loss),
    ]
    detector = LearningRateInstabilityDetector()
    told = detector.detect(SignalSet(series)).to_dict()
    assert told["evidence"]["loss_rise"] == 9.0
    assert detector.detect(SignalSet(series[::-1])).to_dict() == told
    state = detector.init()
    for part in (SignalSet(series).between(None, cut), SignalSet(series).between(cut, None)):
        detector.update(state, part)
    assert detector.conclude(state).to_dict() == told


def resumed(before: Any, after: Any, back: int = 20) -> SignalSet:
    """Make a run that goes `back` steps and on with another schedule, as its next segment."""
    steps = np.arange(len(before))
    again = steps[-1] + 1 - back + np.arange(len(after))
    return SignalSet([Series(Key("lr"), steps, np.asarray(before)),
                      Series(Key("lr", segment=1), again, np.asarray(after))])  # fmt: skip


DECAYED = np.linspace(1e-3, 5e-4, 300)  # at its end, twice the rate is the greatest so far


@pytest.mark.parametrize("cut", [None, 150, 285, 305])
def test_a_resumed_schedule_that_gives_a_step_another_rate(cut: int | None) -> None:
    signals = resumed(DECAYED, np.full(100, 2e-3))
    detector = LearningRateInstabilityDetector()
    state = detector.init()
    for part in (signals.between(None, cut), signals.between(cut, None)) if cut else (signals,):
        detector.update(state, part)
    (one,) = detector.conclude(state).findings
    assert (one.severity, one.onset_step) == (Severity.MEDIUM, 280)
    assert one.evidence["same_step"] is True
    assert one.evidence["lr_before"] == pytest.approx(DECAYED[280], rel=1e-4)
    assert "before the restart" in one.message


@pytest.mark.parametrize("after", [DECAYED[280:], DECAYED[280:] / 10, np.full(100, 1e-3)])
def test_a_resumed_schedule_that_holds_is_lower_or_was_there_before(after: Any) -> None:
    assert not LearningRateInstabilityDetector().detect(resumed(DECAYED, after)).findings


def test_a_run_goes_on_after_a_restart_whatever_the_order_of_the_series() -> None:
    steps = np.arange(80)
    before = Series(Key("lr"), steps[:40], np.full(40, 1e-3))
    after = Series(Key("lr", segment=1), steps[40:], np.where(steps[40:] < 45, 1e-3, 1.0))
    detector = LearningRateInstabilityDetector()
    told = detector.detect(SignalSet([before, after])).to_dict()
    assert (told["onset_step"], told["evidence"]["after_restart"]) == (45, True)
    assert detector.detect(SignalSet([after, before])).to_dict() == told


def test_a_segment_that_goes_on_beside_the_next_one_says_nothing_of_it():
    """What came after the step of the restart is not inherited, in whatever pieces it comes."""
    rates = [10.0 if step >= 340 else 0.001 for step in range(400)]
    run = SignalSet(
        [Series(Key("lr", segment=at), range(first, 400), rates[first:])
         for at, first in enumerate((0, 206))]
    )  # fmt: skip
    detector = LearningRateInstabilityDetector()
    whole = detector.detect(run)
    state = detector.init()
    for start in range(0, 400, 50):
        detector.update(state, run.between(start, start + 50))
    assert {f.evidence["series"] for f in whole.findings} == {"lr", "lr (restart 1)"}
    assert detector.conclude(state).to_dict() == whole.to_dict()
