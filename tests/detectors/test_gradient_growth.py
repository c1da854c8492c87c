from __future__ import annotations

import numpy as np

from ml_systems_debugger import Series, SeriesKey, SignalSet
from ml_systems_debugger.core import Severity
from ml_systems_debugger.detectors.gradient_explosion import GradientExplosionDetector

SIZE, ONSET = 400, 250
SINCE = np.maximum(np.arange(SIZE) - ONSET + 1.0, 1.0)


def norm(seed: int) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(0, 0.1, SIZE))


def found(*norms: np.ndarray, layers: bool = False):
    keys = [SeriesKey("grad_norm", layer=f"layer.{at}" if layers else None) for at in range(9)]
    series = [Series(k, np.arange(SIZE), v) for k, v in zip(keys, norms, strict=False)]
    return GradientExplosionDetector().detect(SignalSet(series))


def test_gradients_that_are_added_up_are_told_from_a_jump() -> None:
    for seed in range(5):
        summed = found(norm(seed) * SINCE**0.8)
        assert summed.findings[0].evidence["growth"] == "linear"
        assert abs((summed.onset_step or 0) - ONSET) <= 12
        jump = found(norm(seed) * np.where(SINCE > 1, 40.0, 1.0))
        assert jump.detected
        assert "growth" not in jump.findings[0].evidence
        exploding = found(norm(seed) * np.exp(0.04 * (SINCE - 1)))
        assert exploding.detected
        assert "growth" not in exploding.findings[0].evidence


def test_less_than_tenfold_growth_shows_as_a_sum() -> None:
    told = [found(norm(seed) * SINCE**0.5) for seed in range(10)]
    shown = [one for one in told if one.detected and "growth" in one.findings[0].evidence]
    assert len(shown) >= 9
    assert any(one.findings[0].evidence["rule"] == "sum" for one in shown)
    assert any(one.severity is Severity.MEDIUM for one in shown)


def test_norms_that_grow_over_the_whole_run_are_healthy() -> None:
    at = np.arange(SIZE)
    for seed in range(10):
        assert not found(norm(seed) * (1 + at) ** 0.35).detected
        assert not found(norm(seed) * np.exp(at / 200)).detected


def test_one_layer_of_many_does_not_show_a_sum() -> None:
    grown = [norm(seed) * SINCE**0.5 for seed in range(4)]
    calm = [norm(seed) for seed in range(4, 8)]
    assert not found(norm(0) * SINCE**0.4, *calm, layers=True).detected
    assert found(*grown, *calm, layers=True).findings[0].evidence["growth"] == "linear"
