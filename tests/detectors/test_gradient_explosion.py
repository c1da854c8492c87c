"""Exploding gradients: growth that stays or breaks, per layer and replica."""

from __future__ import annotations

import numpy as np
import pytest

from ml_systems_debugger.core import (
    ConfigurationError,
    Outcome,
    Series,
    SeriesKey,
    SeriesKind,
    Severity,
    SignalSet,
)
from ml_systems_debugger.detectors import GradientExplosionDetector

DETECTOR = GradientExplosionDetector()
SIZE = 800


def norms(seed=0, spread=0.3, size=SIZE):
    rng = np.random.default_rng(seed)
    return np.exp(spread * rng.normal(size=size)) * (1 + 4 * np.exp(-np.arange(size) / 50))


def signals(values, name="grad_norm", **key):
    values = np.asarray(values, float)
    return SignalSet([Series(SeriesKey(name, **key), np.arange(len(values)), values)])


def falling(size=SIZE):
    rng = np.random.default_rng(9)
    return 0.3 + 2 * np.exp(-np.arange(size) / 150) + 0.03 * rng.normal(size=size)


def test_growth_that_stays_is_high_from_its_very_step():
    values = norms()
    values[500:] *= 300
    found = DETECTOR.detect(signals(values))
    assert (found.severity, found.onset_step) == (Severity.HIGH, 500)
    assert found.evidence["ratio"] == pytest.approx(300, rel=0.5)
    assert found.evidence["baseline"] == pytest.approx(1.0, rel=0.5)
    assert found.evidence["onset_low"] == 499


def test_the_middle_of_a_run_counts_although_its_end_is_calm():
    values = norms()
    values[300:450] *= 300
    found = DETECTOR.detect(signals(values))
    assert found.severity is Severity.MEDIUM
    assert found.onset_step == 300
    assert 450 <= found.end_step <= 520


def test_slow_growth_far_beyond_the_first_half():
    values = norms(size=2000) * np.exp(np.clip(np.arange(2000) / 1000 - 1, 0, None) * np.log(1e4))
    found = DETECTOR.detect(signals(values))
    assert found.severity is Severity.HIGH
    assert found.evidence["rule"] in ("growth", "jump")
    assert 900 <= found.onset_step <= 1500


def test_growth_that_ends_in_a_non_finite_norm_is_critical():
    values = norms()
    values[500:506] = 3.0 * 5.0 ** np.arange(1, 7)
    values[506:] = np.nan
    found = DETECTOR.detect(signals(values))
    assert found.severity is Severity.CRITICAL
    assert 500 <= found.onset_step <= 501
    assert found.evidence["first_non_finite_step"] == 506


def test_a_history_that_breaks_off_in_an_explosion_is_medium():
    values = norms()
    values[-10:] *= 1e4
    found = DETECTOR.detect(signals(values))
    assert (found.severity, found.onset_step) == (Severity.MEDIUM, SIZE - 10)
    assert found.evidence["rule"] == "breaks_off"


def test_an_explosion_is_high_although_the_first_norms_were_large():
    values = norms()
    values[:20] = 8.0
    values[500:] *= 60
    assert DETECTOR.detect(signals(values)).severity is Severity.HIGH


def test_a_skipped_mixed_precision_step_is_no_explosion():
    values = norms()
    values[[3, 4, 300]] = np.inf
    assert not DETECTOR.detect(signals(values)).detected


def test_outliers_are_no_explosion():
    for seed in range(20):
        values = norms(seed)
        values[np.random.default_rng(seed).integers(SIZE, size=5)] *= 500
        assert not DETECTOR.detect(signals(values)).detected


def test_heavy_tails_of_a_recurrent_network_are_no_explosion():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert not DETECTOR.detect(signals(np.exp(rng.standard_t(3, size=3000)))).detected


def test_an_explosion_that_leaves_the_loss_alone_is_medium_at_most():
    values = norms()
    values[500:] *= 40
    both = signals(values).with_series(signals(falling(), "loss").series)
    found = DETECTOR.detect(both)
    assert found.severity is Severity.MEDIUM
    assert found.evidence["loss_suffers"] is False
    hurt = falling()
    hurt[500:] += 5
    both = signals(values).with_series(signals(hurt, "loss").series)
    assert DETECTOR.detect(both).severity is Severity.HIGH


def test_the_layer_and_the_replica_are_named():
    parts = [
        signals(norms(10 * rank + at), layer=f"block.{at}", replica_id=rank).series[0]
        for rank in range(2)
        for at in range(4)
    ]
    bad = norms(99)
    bad[400:] *= 1000
    parts[6] = signals(bad, layer="block.2", replica_id=1).series[0]
    found = DETECTOR.detect(SignalSet(parts))
    assert (found.layer, found.replica_id, found.onset_step) == ("block.2", 1, 400)
    assert len(found.findings) == 1


def test_arrays_are_judged_by_their_norms():
    rng = np.random.default_rng(0)
    arrays = np.empty(60, dtype=object)
    for at in range(60):
        arrays[at] = rng.normal(size=50).astype(np.float32) * (1e4 if at >= 40 else 1)
    key = SeriesKey("gradient", layer="fc.weight", kind=SeriesKind.ARRAY)
    found = DETECTOR.detect(SignalSet([Series(key, np.arange(60), arrays)]))
    assert (found.severity, found.onset_step, found.layer) == (Severity.HIGH, 40, "fc.weight")


def test_a_norm_given_beside_the_array_is_judged_once():
    rng = np.random.default_rng(0)
    arrays = np.empty(60, dtype=object)
    for at in range(60):
        arrays[at] = rng.normal(size=50) * (1e4 if at >= 40 else 1)
    given = np.array([float(np.linalg.norm(a)) for a in arrays])
    key = SeriesKey("gradient", layer="fc", kind=SeriesKind.ARRAY)
    both = SignalSet(
        [
            Series(key, np.arange(60), arrays),
            Series(SeriesKey("grad_norm", layer="fc"), np.arange(60), given),
        ]
    )
    assert len(DETECTOR.detect(both).findings) == 1


def test_few_values_are_insufficient():
    found = DETECTOR.detect(signals([1.0, 1e9, 1e9]))
    assert found.outcome is Outcome.INSUFFICIENT


@pytest.mark.parametrize("name", ["ratio", "early_ratio", "over_highest"])
def test_parameters_are_checked(name):
    with pytest.raises(ConfigurationError, match=name):
        GradientExplosionDetector(**{name: 1.0})
