from __future__ import annotations

import numpy as np
import pytest

from ml_systems_debugger import Series, SeriesKey, SignalSet
from ml_systems_debugger.core import BaseDetector, Severity
from ml_systems_debugger.detectors._noise_tail import BLOCK, TAIL, admit, grow, reach
from ml_systems_debugger.detectors.divergent_training import DivergentTrainingDetector
from ml_systems_debugger.detectors.loss_spike import LossSpikeDetector


def found(detector: BaseDetector, name: str, values: np.ndarray):
    return detector.detect(SignalSet([Series(SeriesKey(name), np.arange(len(values)), values)]))


def test_only_the_largest_are_kept() -> None:
    tail = np.zeros(TAIL)
    admit(tail, np.arange(100.0))
    assert tail.tolist() == list(range(84, 100))


def test_tails_do_not_depend_on_how_a_history_is_cut() -> None:
    z = np.random.default_rng(0).standard_t(3, 1000)
    whole, parts = np.zeros((2, TAIL)), np.zeros((2, TAIL))
    block = np.full(BLOCK, np.nan)
    grow(whole, np.full(BLOCK, np.nan), z, 8.0)
    for piece in np.array_split(z, 37):
        grow(parts, block, piece, 8.0)
    assert np.array_equal(whole, parts)


def test_a_level_that_moves_is_no_noise() -> None:
    z = np.random.default_rng(0).normal(size=640)
    still, steep = np.zeros((2, TAIL)), np.zeros((2, TAIL))
    grow(still, np.full(BLOCK, np.nan), z, 8.0)
    falls = np.concatenate([np.linspace(0, -30, BLOCK), z])
    grow(steep, np.full(BLOCK, np.nan), falls, 8.0)
    assert np.array_equal(still, steep)


@pytest.mark.parametrize("law", ["normal", "t3"])
def test_noise_passes_its_own_line_in_few_runs(law: str) -> None:
    beyond = 0
    for seed in range(200):
        g = np.random.default_rng(seed)
        z = g.normal(size=2000) if law == "normal" else g.standard_t(3, 2000)
        tails = np.zeros((2, TAIL))
        grow(tails, np.full(BLOCK, np.nan), z[:1000], np.inf)
        beyond += bool(z[1000:].max() > reach(tails, 0.01))
    assert beyond <= 12  # one in a hundred is asked for; a tail of 16 values is a rough guess


def test_heavy_tails_reach_further() -> None:
    g, lines = np.random.default_rng(1), []
    for z in (g.normal(size=5000), g.standard_t(3, 5000)):
        tails = np.zeros((2, TAIL))
        grow(tails, np.full(BLOCK, np.nan), z, np.inf)
        lines.append(reach(tails, 0.01))
    assert lines[0] < 10 < 30 < lines[1]


@pytest.mark.parametrize(("factor", "least"), [(3.0, 25), (5.0, 33), (10.0, 38)])
def test_spikes_over_normal_noise_are_found(factor: float, least: int) -> None:
    hits = 0
    for seed in range(40):
        loss = 2 * np.exp(np.random.default_rng(seed).normal(0, 0.08, 2000))
        loss[1400] *= factor
        hits += bool(found(LossSpikeDetector(), "loss", loss).detected)
    assert hits >= least


def test_a_spike_after_a_steep_descent_is_found() -> None:
    g = np.random.default_rng(2)
    loss = np.exp(-np.arange(400) / 60) * np.exp(g.normal(0, 0.05, 400)) + 0.02
    loss[300] *= 1000
    assert found(LossSpikeDetector(), "loss", loss).onset_step == 300


def test_a_level_that_changes_at_once_is_medium() -> None:
    g = np.random.default_rng(4)
    loss = 2.3 + 2.4 * np.exp(-np.arange(600) / 60) + g.normal(0, 0.1, 600)
    loss[350:] += 0.9
    told = found(DivergentTrainingDetector(), "loss", loss)
    assert (told.severity, told.onset_step) == (Severity.MEDIUM, 350)
    assert told.findings[0].evidence["rule"] == "shift"
    loss[350:] -= 0.9
    loss[350:] += np.linspace(0, 0.5, 250)  # a slow climb by as little is none
    assert not found(DivergentTrainingDetector(), "loss", loss).detected
