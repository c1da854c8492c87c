"""A detector of your own, written as `detect` alone.

It fires where the held-out accuracy falls well below the best it has been.
Written this way it sees the whole history at once; `own_fold_detector.py` shows
the form that needs bounded memory and runs live.

    python examples/own_detector.py
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import ml_systems_debugger as mlsd
from ml_systems_debugger.core import (
    BaseDetector,
    Context,
    DetectionResult,
    Finding,
    Severity,
    Signal,
    SignalSet,
    check_fraction,
    register_failure_mode,
)

REGRESSION = register_failure_mode("acme:accuracy_regression")


class AccuracyRegression(BaseDetector):
    """Held-out accuracy that falls by more than `max_drop` below its best.

    Parameters
    ----------
    max_drop : float
        Fall below the best value so far, from 0 to 1.
    """

    failure_mode = REGRESSION
    required_signals = ("accuracy",)

    def __init__(self, max_drop: float = 0.1) -> None:
        check_fraction(max_drop=max_drop)
        self.max_drop = max_drop

    def detect(
        self,
        signals: SignalSet | Sequence[Signal],
        context: Context | None = None,  # noqa: ARG002
    ) -> DetectionResult:
        """Judge every held-out accuracy series."""
        findings = []
        for series in SignalSet.of(signals).select("accuracy", held_out=True):
            best = np.maximum.accumulate(series.values)
            low = np.flatnonzero(series.values < best - self.max_drop)
            if not low.size:
                continue
            at = int(low[0])
            step = int(series.steps[at])
            findings.append(
                Finding(
                    self.failure_mode,
                    Severity.HIGH,
                    0.9,
                    onset_step=step,
                    message=f"{series.key} fell to {series.values[at]:.3g} from {best[at]:.3g}",
                    evidence={"best": best[at], "value": series.values[at]},
                    finding_id=f"{self.name}:{series.key}:{step}",
                )
            )
        return DetectionResult.of_findings(self.failure_mode, self.name, findings)


def main() -> None:
    """Run it beside the built-in detectors."""
    debugger = mlsd.MLSystemsDebugger().add_detector(AccuracyRegression(max_drop=0.05))
    report = debugger.debug({"val_accuracy": [0.5, 0.7, 0.9, 0.91, 0.62, 0.6]})
    for failure in report.failures:
        print(f"{failure.detector_name}: {failure.message} (step {failure.onset_step})")


if __name__ == "__main__":
    main()
