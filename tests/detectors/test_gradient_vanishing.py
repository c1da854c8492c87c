"""Vanishing gradients: fading before the loss is learnt, and convergence left alone."""

from __future__ import annotations

import numpy as np
import pytest

from ml_systems_debugger.core import (
    ConfigurationError,
    Outcome,
    Series,
    SeriesKey,
    Severity,
    SignalSet,
)
from ml_systems_debugger.detectors import GradientVanishingDetector

DETECTOR = GradientVanishingDetector()
SIZE = 600


def norms(seed=0):
    return np.exp(0.3 * np.random.default_rng(seed).normal(size=SIZE))


def one(values, name="grad_norm", **key):
    return Series(SeriesKey(name, **key), np.arange(len(values)), np.asarray(values, float))


STUCK = one(2.3 + 0.02 * np.random.default_rng(1).normal(size=SIZE), "loss")
LEARNT = one(0.05 + 2.3 * np.exp(-np.arange(SIZE) / 60), "loss")


def test_fading_while_the_loss_is_stuck_is_high():
    values = norms()
    values[200:] *= 1e-6
    found = DETECTOR.detect(SignalSet([one(values), STUCK]))
    assert (found.severity, found.onset_step) == (Severity.HIGH, 200)
    assert found.evidence["ratio"] == pytest.approx(1e-6, rel=1.0)
    assert found.evidence["loss_progress"] == pytest.approx(0, abs=0.05)


def test_slow_fading_has_its_onset_where_it_began():
    values = norms() * np.exp(-np.clip(np.arange(SIZE) - 200, 0, 100) / 100 * np.log(1e7))
    found = DETECTOR.detect(SignalSet([one(values), STUCK]))
    assert found.severity is Severity.HIGH
    assert 190 <= found.onset_step <= 240


def test_small_gradients_of_a_converged_run_are_healthy():
    values = norms() * np.exp(-np.arange(SIZE) / 40)
    assert not DETECTOR.detect(SignalSet([one(values), LEARNT])).detected


def test_without_a_loss_it_is_medium_unless_exactly_zero():
    values = norms()
    values[200:] *= 1e-6
    assert DETECTOR.detect(SignalSet([one(values)])).severity is Severity.MEDIUM
    values[200:] = 0.0
    found = DETECTOR.detect(SignalSet([one(values)]))
    assert (found.severity, found.onset_step) == (Severity.HIGH, 200)
    assert found.evidence["zeros"] == SIZE - 200


def test_a_zero_now_and_then_is_nothing():
    values = norms()
    values[::7] = 0.0
    assert not DETECTOR.detect(SignalSet([one(values), STUCK])).detected


def test_norms_that_fade_towards_the_input():
    layers = [one(norms(at) * 10.0 ** (at - 7), layer=f"layer.{at}") for at in range(8)]
    found = DETECTOR.detect(SignalSet([*layers, STUCK]))
    assert (found.severity, found.layer) == (Severity.HIGH, "layer.0")
    assert found.evidence["rule"] == "layers"
    assert found.evidence["layer_ratio"] < 1e-3
    # What else learns excuses a faint gradient of the first layer, but not next to none.
    assert DETECTOR.detect(SignalSet([*layers, LEARNT])).severity is Severity.MEDIUM
    milder = [one(norms(at) * 4.0 ** (at - 7), layer=f"layer.{at}") for at in range(8)]
    assert DETECTOR.detect(SignalSet([*milder, STUCK])).severity is Severity.HIGH
    assert not DETECTOR.detect(SignalSet([*milder, LEARNT])).detected


def test_layers_of_usual_sizes_are_healthy():
    layers = [one(norms(at) * 10.0 ** ((at % 3) - 1), layer=f"layer.{at}") for at in range(8)]
    assert not DETECTOR.detect(SignalSet([*layers, STUCK])).detected


def test_few_values_are_insufficient():
    assert DETECTOR.detect(SignalSet([one([1.0] * 5)])).outcome is Outcome.INSUFFICIENT


@pytest.mark.parametrize("name", ["ratio", "layer_ratio"])
def test_parameters_are_checked(name):
    with pytest.raises(ConfigurationError, match=name):
        GradientVanishingDetector(**{name: 0.9})


@pytest.mark.parametrize("zeros", [15, 16, 17])
def test_sixteen_exact_zeros_are_enough_in_a_short_run(zeros):
    values = norms()[: 60 + zeros]
    values[60:] = 0.0
    stuck = one(np.full(len(values), 2.3) + 0.01 * norms(3)[: len(values)], "loss")
    found = DETECTOR.detect(
        SignalSet([one(values, layer="fc"), one(norms()[: len(values)]), stuck])
    )
    assert found.detected is (zeros >= 16)
    if found.detected:
        assert (found.layer, found.onset_step) == ("fc", 60)


def test_sixteen_zeros_of_a_long_run_are_too_few():
    values = norms()
    values[584:] = 0.0
    assert not DETECTOR.detect(SignalSet([one(values, layer="fc"), one(norms()), STUCK])).detected
