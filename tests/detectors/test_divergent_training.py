"""Divergent training: what is found, where it began, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from ml_systems_debugger import diagnose
from ml_systems_debugger.core import (
    ConfigurationError,
    EventKind,
    Outcome,
    Series,
    SeriesKey,
    Severity,
    SignalSet,
)
from ml_systems_debugger.detectors import DivergentTrainingDetector

DETECTOR = DivergentTrainingDetector()


def falling(size=1000, noise=0.05, seed=0, start=2.0, floor=0.3):
    rng = np.random.default_rng(seed)
    decay = np.exp(-np.arange(size) / (size / 5))
    return floor + (start - floor) * decay + noise * rng.normal(size=size)


def loss(values, every=1, **key):
    steps = np.arange(len(values)) * every
    return SignalSet([Series(SeriesKey("loss", **key), steps, np.asarray(values, float))])


def test_a_jump_is_high_from_its_very_step():
    values = falling()
    values[600:] += 5.0
    found = DETECTOR.detect(loss(values))
    assert found.severity is Severity.HIGH
    assert found.onset_step == 600
    assert found.evidence["onset_low"] == 599
    assert found.evidence["rule"] == "jump"
    assert found.judged == ("loss",)


def test_the_onset_is_a_step_and_not_an_index():
    values = falling()
    values[600:] += 5.0
    assert DETECTOR.detect(loss(values, every=100)).onset_step == 60_000


@pytest.mark.parametrize("onset", [1, 2, 5])
def test_an_explosion_in_the_first_steps_that_then_wanders(onset):
    rng = np.random.default_rng(onset)
    values = falling(3000)
    values[onset:] = 30.0 * np.exp(0.3 * rng.normal(size=3000 - onset))
    found = DETECTOR.detect(loss(values))
    assert found.severity is Severity.HIGH
    assert found.onset_step == onset


def test_a_slow_climb_back_above_the_start():
    values = falling(2000)
    values[1000:] += np.linspace(0, 6, 1000)
    found = DETECTOR.detect(loss(values))
    assert found.severity is Severity.HIGH
    assert 950 <= found.onset_step <= 1150
    assert found.evidence["onset_low"] <= found.onset_step <= found.evidence["onset_high"]


def test_a_fall_back_to_chance():
    values = falling(1000)
    values[500:] = 2.0 + 0.05 * np.random.default_rng(1).normal(size=500)
    found = DETECTOR.detect(loss(values))
    assert (found.severity, found.onset_step) == (Severity.HIGH, 500)
    assert found.evidence["lost_gain"] == pytest.approx(1.0, abs=0.1)


def test_bursts_that_always_come_down_again():
    values = falling(1200, noise=0.02)
    for at in range(500, 1200, 60):
        values[at : at + 25] *= np.linspace(3, 40, 25)
    found = DETECTOR.detect(loss(values))
    assert found.severity is Severity.HIGH
    assert found.evidence["rule"] == "bursts"


def test_growth_that_ends_in_nan():
    values = falling(300)
    values[200:208] = 2.0 * 4.0 ** np.arange(8)
    values[208:] = np.nan
    found = DETECTOR.detect(loss(values))
    assert found.severity is Severity.HIGH
    assert found.evidence["first_non_finite_step"] == 208
    assert 200 <= found.onset_step <= 201


def test_what_recovers_is_medium_and_has_an_end():
    values = falling(2000)
    values[600:700] += 8.0
    found = DETECTOR.detect(loss(values))
    assert found.severity is Severity.MEDIUM
    assert found.onset_step == 600
    assert 700 <= found.end_step <= 900
    assert found.evidence["recovered"] is True


def test_the_alarm_comes_early_and_is_taken_down_when_it_recovers():
    values = falling(2000)
    values[600:700] += 30.0
    whole, state = loss(values), DETECTOR.init()
    events = [e for at in range(2000) for e in DETECTOR.update(state, whole.between(at, at + 1))]
    assert events[0].kind is EventKind.OPEN
    assert {e.kind for e in events[1:-1]} <= {EventKind.EXTEND}
    assert events[-1].kind is EventKind.CLOSE
    assert {e.finding.onset_step for e in events} == {600}
    assert min(e.step for e in events if e.finding.severity is Severity.HIGH) <= 632
    assert events[-1].finding.severity is Severity.MEDIUM


def test_a_history_that_breaks_off_in_a_blow_up_is_medium():
    values = falling(500)
    values[490:] *= 1000
    found = DETECTOR.detect(loss(values))
    assert (found.severity, found.onset_step) == (Severity.MEDIUM, 490)
    assert found.evidence["rule"] == "breaks_off"


def test_a_loss_that_falls_again_after_the_last_look_counts_as_recovered():
    values = falling(1000)
    values[600:960] += 8.0
    assert DETECTOR.detect(loss(values)).severity is Severity.MEDIUM


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e12])
def test_units_do_not_matter(scale):
    values = falling()
    values[600:] += 5.0
    found = DETECTOR.detect(loss(values * scale))
    assert (found.severity, found.onset_step) == (Severity.HIGH, 600)
    assert not DETECTOR.detect(loss(falling() * scale)).detected


def test_a_loss_below_zero():
    values = falling() - 3.0
    assert not DETECTOR.detect(loss(values)).detected
    values[600:] += 6.0
    assert DETECTOR.detect(loss(values)).onset_step == 600


def test_at_most_two_of_two_hundred_noisy_falling_losses_alarm():
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(50, 1000))
        values = falling(size, 0.05, seed, start=1.0, floor=0.1)
        alarms += DETECTOR.detect(loss(values)).detected
    assert alarms <= 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda v, r: np.where(r.random(len(v)) < 0.005, 100.0, v),  # outliers
        lambda v, r: v + 0.3 * np.sin(np.arange(len(v)) / 40),  # a cyclic schedule
        lambda v, r: v - 0.1 * ((np.arange(len(v)) % 100) / 100),  # saw-toothed epochs
        lambda v, r: np.concatenate([np.full(200, 2.0), v[:-200]]),  # a long warm-up
        lambda v, r: 0.3 + 0.02 * r.standard_t(3, size=len(v)),  # converged from the start
        lambda v, r: v + 0.1 * np.abs(r.standard_t(2, size=len(v))),  # heavy tails
    ],
)
def test_healthy_habits_are_left_alone(spoil):
    for seed in range(20):
        values = spoil(falling(2000, seed=seed), np.random.default_rng(seed))
        assert not DETECTOR.detect(loss(values)).detected


def test_a_held_out_loss_counts_only_where_there_is_no_other():
    rising = falling()
    rising[600:] += 5.0
    held_out = loss(rising, split="val")
    assert DETECTOR.detect(held_out).onset_step == 600
    both = held_out.with_series(loss(falling()).series)
    assert not DETECTOR.detect(both).detected


def test_overfitting_is_something_else():
    overfitted = falling()
    overfitted[600:] += np.linspace(0, 0.9, 400)
    both = loss(overfitted, split="val").with_series(loss(falling()).series)
    assert not DETECTOR.detect(both).detected


def test_what_the_learning_rate_did_is_told():
    values = falling()
    values[600:] += 5.0
    rate = np.where(np.arange(1000) < 599, 1e-3, 0.05)
    signals = loss(values).with_series([Series(SeriesKey("lr"), np.arange(1000), rate)])
    evidence = DETECTOR.detect(signals).evidence
    assert evidence["lr_jump"] == pytest.approx(50.0)
    assert evidence["lr_is_constant"] is False
    assert evidence["lr_at_onset"] == pytest.approx(0.05)


def test_replicas_and_restarts_are_judged_apart():
    bad = falling()
    bad[600:] += 5.0
    parts = [loss(falling(seed=i), replica_id=i).series[0] for i in (0, 2)]
    found = DETECTOR.detect(SignalSet([*parts, loss(bad, replica_id=1).series[0]]))
    assert [f.replica_id for f in found.findings] == [1]
    restarted = SignalSet([loss(falling()).series[0], loss(bad, segment=1).series[0]])
    (finding,) = DETECTOR.detect(restarted).findings
    assert "restart 1" in finding.evidence["series"]


def test_few_values_are_insufficient_and_none_not_applicable():
    short = DETECTOR.detect(loss([2.0] * 10))
    assert short.outcome is Outcome.INSUFFICIENT
    assert "10 finite values" in short.reason
    other = SignalSet([Series(SeriesKey("grad_norm"), np.arange(50), np.ones(50))])
    assert DETECTOR.detect(other).outcome is Outcome.NOT_APPLICABLE
    assert DETECTOR.detect(loss([np.nan] * 50)).outcome is Outcome.INSUFFICIENT


@pytest.mark.parametrize("name", ["lost_gain", "rise", "start_rise", "sigmas", "persistence"])
def test_parameters_are_checked(name):
    with pytest.raises(ConfigurationError, match=name):
        DivergentTrainingDetector(**{name: -1.0})
    with pytest.raises(ConfigurationError, match="min_points"):
        DivergentTrainingDetector(min_points=2)


def test_a_loss_that_the_first_updates_threw_and_that_never_came_back_below_its_start():
    values = 2.4 + 0.05 * np.random.default_rng(0).normal(size=400)
    values[:8] = 2.3, 3e4, 5e3, 36.0, 190.0, 1500.0, 23.0, 9.0
    (one,) = DETECTOR.detect(loss(values)).findings
    assert (one.severity, one.evidence["rule"]) == (Severity.MEDIUM, "thrown")
    assert one.onset_step == 1
    assert one.evidence["onset_low"] == 0


def test_a_loss_that_learns_after_a_blow_up_in_the_first_updates_is_healthy():
    values = falling()
    values[1:8] = 3e3, 5e2, 36.0, 19.0, 15.0, 12.0, 9.0
    assert not DETECTOR.detect(loss(values)).detected


@pytest.mark.parametrize(("peak", "straight"), [(2.0, True), (6.0, False)])
def test_a_fall_straight_back_to_guessing_is_told(peak, straight):
    values = falling()
    values[600:] = 2.0 + 0.02 * np.random.default_rng(1).normal(size=400)
    values[600:602] = peak
    (one,) = DETECTOR.detect(loss(values)).findings
    assert one.onset_step == 600
    assert one.evidence.get("to_start", False) is straight


def test_the_cause_of_a_fall_straight_back_to_guessing_is_no_change_of_data():
    values = falling()
    values[600:] = 2.0 + 0.02 * np.random.default_rng(1).normal(size=400)
    causes = diagnose(loss(values)).attributions
    assert str(causes[0].cause) == "dead_activations"
