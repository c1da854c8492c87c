"""Found in review: detectors of one's own that are unusual, and histories at their bounds."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import ml_systems_debugger as mlsd
from ml_systems_debugger.core import (
    BaseDetector,
    DetectionResult,
    Series,
    SeriesKey,
    SignalSet,
)


@dataclasses.dataclass
class Plain(BaseDetector):
    """A plain dataclass: equal by value and therefore not hashable."""

    failure_mode = "loss_spike"
    limit: float = 1.0

    def detect(self, signals: Any, context: Any = None) -> DetectionResult:
        value = max(s.value for s in signals)
        return DetectionResult(
            self.failure_mode, np.bool_(value > self.limit), np.float32(0.5),
            {"max": np.float64(value), "all": np.arange(2)}, detector_name=self.name,
        )  # fmt: skip


def test_a_detector_that_is_not_hashable_takes_part() -> None:
    debugger = mlsd.MLSystemsDebugger([Plain(0.5), Plain(2.0), Plain(0.5)])
    report = debugger.debug({"loss": [1.0] * 30})
    assert [d.detected for d in report.detections] == [True, False]
    assert mlsd.DebugReport.from_json(report.to_json()).to_json() == report.to_json()


def test_more_findings_than_are_kept_are_the_same_for_every_cut() -> None:
    many, length = 1100, 40
    values = np.ones((many, length))
    values[np.arange(many), 39 - np.arange(many) * 20 // many] = np.nan  # later series, earlier
    signals = SignalSet(
        Series(SeriesKey(f"metric_{at:04d}"), np.arange(length), row)
        for at, row in enumerate(values)
    )
    detector = mlsd.NaNDetectionDetector()
    whole = detector.detect(signals)
    state = detector.init()
    for start in range(0, length, 7):
        detector.update(state, signals.between(start, start + 7))
    assert detector.conclude(state) == whole
    assert len(whole.findings) < many
    assert f"{many - len(whole.findings)} further occurrences are only counted" in whole.reason
