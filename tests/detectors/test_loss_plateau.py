"""Loss plateau: stuck at chance, and what is only flat."""

from __future__ import annotations

import numpy as np
import pytest

from ml_systems_debugger.core import (
    ConfigurationError,
    EventKind,
    Outcome,
    Series,
    SeriesKey,
    Severity,
    SignalSet,
)
from ml_systems_debugger.detectors import LossPlateauDetector

DETECTOR = LossPlateauDetector()


def one(values, name="accuracy", split="val", **key):
    if name == "loss":
        split = None
    steps = 10 * np.arange(len(values))
    return Series(SeriesKey(name, split, **key), steps, np.asarray(values, float))


def chance(classes=10, size=40, seed=0):
    return 1 / classes + 0.003 * np.random.default_rng(seed).normal(size=size)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_an_accuracy_at_chance_is_high_from_the_start(classes):
    found = DETECTOR.detect(SignalSet([one(chance(classes))]))
    assert (found.severity, found.onset_step) == (Severity.HIGH, 0)
    assert found.judged == ("accuracy",)


def test_percent_are_understood():
    found = DETECTOR.detect(SignalSet([one(100 * chance())]))
    assert found.severity is Severity.HIGH
    assert found.evidence["last"] == pytest.approx(0.1, abs=0.01)


def test_an_accuracy_that_falls_back_to_chance_has_its_onset_there():
    values = chance(size=60)
    values[2:25] = 0.7
    found = DETECTOR.detect(SignalSet([one(values)]))
    assert (found.severity, found.onset_step) == (Severity.HIGH, 250)
    assert found.evidence["was_better"] is True


def test_a_constant_prediction_of_the_largest_class():
    values = np.full(40, 0.1959)
    values[0] = 0.0831
    found = DETECTOR.detect(SignalSet([one(values)]))
    assert found.severity is Severity.HIGH
    assert found.evidence["constant"] is True


def test_the_number_of_classes_decides_where_it_is_known():
    signals = SignalSet([one(0.3 + 0.0 * chance())])
    assert DETECTOR.detect(signals, {"num_classes": 4}).confidence > 0.95
    noisy = SignalSet([one(0.3 + 0.01 * np.random.default_rng(0).normal(size=40))])
    assert DETECTOR.detect(noisy, {"num_classes": 1000}).severity is Severity.MEDIUM


def test_an_accuracy_that_converged_before_it_was_logged_is_medium_at_most():
    rng = np.random.default_rng(0)
    flat = one(0.45 + 0.01 * rng.normal(size=30))
    for count in (500, 30):  # a loss is logged at every step, or now and then
        fell = one(1.5 + 3 * np.exp(-np.arange(count) / (count / 15)), "loss")
        assert DETECTOR.detect(SignalSet([flat, fell])).severity is Severity.MEDIUM
    stuck = one(1.1 + 0.01 * rng.normal(size=500), "loss")
    assert DETECTOR.detect(SignalSet([flat, stuck])).severity is Severity.HIGH


@pytest.mark.parametrize(
    "values",
    [
        0.1 + 0.8 * (1 - np.exp(-np.arange(40) / 5)),
        0.001 + 0.02 * np.linspace(0, 1, 40),
        np.full(40, 0.97),
        0.85 + 0.005 * np.random.default_rng(0).normal(size=40),
        np.r_[np.full(15, 0.1), np.linspace(0.1, 0.7, 25)],
    ],
)
def test_learning_and_converged_accuracies_are_healthy(values):
    assert not DETECTOR.detect(SignalSet([one(values)])).detected


def test_a_slow_start_is_taken_back():
    values = np.r_[np.full(20, 0.1), np.linspace(0.1, 0.7, 40)]
    whole, state = SignalSet([one(values)]), DETECTOR.init()
    events = [
        e for at in range(0, 600, 10) for e in DETECTOR.update(state, whole.between(at, at + 10))
    ]
    assert [e.kind for e in events] == [EventKind.OPEN, EventKind.RETRACT]
    assert not DETECTOR.conclude(state).detected


def test_a_loss_that_never_moves_is_medium():
    rng = np.random.default_rng(0)
    found = DETECTOR.detect(SignalSet([one(2.3 + 0.05 * rng.normal(size=500), "loss")]))
    assert (found.severity, found.onset_step) == (Severity.MEDIUM, 0)


def noisy(seed, rate, fall=0.0):
    """A loss whose batches scatter by a fifth, beside its learning rate."""
    rng, at = np.random.default_rng(seed), np.arange(600)
    values = (1 - fall * at / 600) * np.exp(0.2 * rng.normal(size=600))
    return SignalSet([one(values, "loss"), one(np.full(600, rate), "lr")])


def test_a_noisy_loss_at_a_tiny_rate_is_flat():
    found = [DETECTOR.detect(noisy(seed, 1e-8)).severity for seed in range(40)]
    assert found.count(Severity.MEDIUM) >= 34


def test_a_noisy_loss_that_falls_at_a_tiny_rate_is_not_flat():
    found = [DETECTOR.detect(noisy(seed, 1e-8, fall=0.3)).detected for seed in range(40)]
    assert not any(found)


def test_where_noise_leaves_a_doubt_a_usual_rate_is_believed():
    sure = [DETECTOR.detect(noisy(seed, 1e-3)).detected for seed in range(40)]
    tiny = [DETECTOR.detect(noisy(seed, 1e-8)).detected for seed in range(40)]
    assert sum(sure) < sum(tiny)
    assert all(b for a, b in zip(sure, tiny, strict=True) if a)


def test_an_accuracy_that_rises_slowly_while_the_loss_falls_is_low():
    at = np.arange(500)
    accuracy = np.linspace(0.35, 0.42, 20) + 0.002 * np.random.default_rng(0).normal(size=20)
    falling = 2.0 + 2.5 * np.exp(-at / 60)
    signals = SignalSet([one(accuracy), one(falling, "loss")])
    assert DETECTOR.detect(signals).severity in (None, Severity.LOW)
    stands = SignalSet([one(np.full(20, 0.35) + 1e-4 * at[:20]), one(falling, "loss")])
    assert DETECTOR.detect(stands).severity is Severity.MEDIUM


def test_a_flat_loss_is_never_more_than_medium():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(100, 5000))
        fell = rng.random() < 0.5
        values = 1 + 0.02 * rng.normal(size=size) + fell * 3 * np.exp(-np.arange(size) / (size / 8))
        found = DETECTOR.detect(SignalSet([one(values, "loss")]))
        assert found.severity in (None, Severity.MEDIUM)


def test_a_converged_loss_is_healthy():
    values = (
        0.3 + 2 * np.exp(-np.arange(2000) / 100) + 0.02 * np.random.default_rng(0).normal(size=2000)
    )
    assert not DETECTOR.detect(SignalSet([one(values, "loss")])).detected


def test_after_a_restart_the_start_says_nothing():
    found = DETECTOR.detect(SignalSet([one(np.full(500, 0.3), "loss", segment=1)]))
    assert not found.detected


def test_a_history_that_begins_in_the_middle_says_nothing_of_the_start():
    values = np.full(500, 0.3) + 0.001 * np.random.default_rng(0).normal(size=500)
    resumed = Series(SeriesKey("loss"), 50_000 + np.arange(500), values)
    assert not DETECTOR.detect(SignalSet([resumed])).detected


def test_few_values_are_insufficient():
    found = DETECTOR.detect(SignalSet([one([0.1] * 4), one([2.3] * 30, "loss")]))
    assert found.outcome is Outcome.INSUFFICIENT


def test_parameters_are_checked():
    with pytest.raises(ConfigurationError, match="chance_factor"):
        LossPlateauDetector(chance_factor=0.5)
    with pytest.raises(ConfigurationError, match="flat"):
        LossPlateauDetector(flat=2.0)
