from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ml_systems_debugger import MLSystemsDebugger, diagnose
from ml_systems_debugger.core import BaseDetector, ConfigurationError, detectors
from ml_systems_debugger.core.sensitivity import COUNT, DISTANCE, RATIO, RISK, SHARE, SLACK
from ml_systems_debugger.detectors.loss_spike import LossSpikeDetector

WITHOUT = {"collective_fault", "inf_detection", "job_crash", "nan_detection"}  # facts, no threshold


def test_scales_lean_the_right_way() -> None:
    assert DISTANCE.at(6.0, 2.0) == 3.0
    assert RATIO.at(100.0, 2.0) == pytest.approx(10.0)
    assert RATIO.at(1e-3, 3.0) == pytest.approx(0.1)  # a norm that fell to less than this
    assert SHARE.at(0.9, 2.0) == pytest.approx(0.81)
    assert SLACK.within(1.0).at(1.3, 0.01) == pytest.approx(1.0026, abs=1e-4)
    assert RISK.at(0.6, 2.0) == 1.0
    assert COUNT.at(5, 0.7) == 8
    assert COUNT.within(2).at(5, 20.0) == 2


@pytest.mark.parametrize("name", detectors.names)
@pytest.mark.parametrize("sensitivity", [0.05, 0.5, 2.0, 20.0])
def test_every_threshold_of_every_detector_follows(name: str, sensitivity: float) -> None:
    one = detectors.items()[name]()
    moved = one.at_sensitivity(sensitivity)
    if name in WITHOUT:
        assert moved is one
        return
    known = {field.name for field in dataclasses.fields(one)}
    assert set(one.sensitivity_scales) <= known
    assert moved != one
    assert one.at_sensitivity(1.0) is one


def test_parameters_that_are_set_stay() -> None:
    one = LossSpikeDetector(sigmas=20.0).at_sensitivity(2.0)
    assert (one.sigmas, one.ratio) == (20.0, pytest.approx(1.5**0.5))
    given = {"sensitivity": 2.0, "detectors": {"loss_spike": {"sigmas": 20.0}}}
    (spikes,) = (d for d in MLSystemsDebugger(config=given).detectors if d.name == "loss_spike")
    assert spikes == one
    assert MLSystemsDebugger([LossSpikeDetector(sigmas=20.0)], sensitivity=2.0).detectors == (one,)


@pytest.mark.parametrize("wrong", [0.0, -1, 21, float("nan"), "much", None])
def test_a_sensitivity_is_a_number_above_0(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="sensitivity"):
        MLSystemsDebugger(config={"sensitivity": wrong})
    with pytest.raises(ConfigurationError, match="sensitivity"):
        LossSpikeDetector().at_sensitivity(wrong)  # type: ignore[arg-type]


def test_the_argument_stands_above_the_configuration() -> None:
    debugger = MLSystemsDebugger(config={"sensitivity": 2.0}, sensitivity=0.5)
    assert debugger.config.sensitivity == 0.5


def test_more_is_found_at_a_higher_sensitivity() -> None:
    g = np.random.default_rng(3)
    norm = np.exp(g.normal(0, 0.1, 300))
    norm[200:] *= 6.0
    found = [bool(diagnose({"grad_norm": norm}, sensitivity=s).failures) for s in (0.5, 1.0, 2.0)]
    assert found == [False, False, True]


def test_a_detector_of_ones_own_is_left_alone() -> None:
    class Mine(BaseDetector):
        failure_mode = "loss_spike"
        required_signals = ("loss",)

        def detect(self, signals: object, context: object = None) -> object:  # type: ignore[override]
            raise NotImplementedError

    mine = Mine()
    assert MLSystemsDebugger([mine], sensitivity=3.0).detectors == (mine,)
