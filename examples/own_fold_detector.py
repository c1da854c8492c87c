"""A detector of your own, written as a fold: `init`, `update`, `conclude`.

It counts consecutive steps whose loss is exactly the same to the last bit: a
sign that nothing is trained or that a metric is stuck. What it remembers is two
numbers per series, however long the run is, so it can watch a run live, be
saved with the checkpoint and go on after a restart.

    python examples/own_fold_detector.py
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ml_systems_debugger.core import (
    BaseDetector,
    Column,
    Context,
    DetectionResult,
    Event,
    Finding,
    FoldState,
    Outcome,
    Severity,
    Signal,
    SignalSet,
    check_count,
    register_failure_mode,
)

STUCK = register_failure_mode("acme:stuck_metric")


class StuckLoss(BaseDetector):
    """The same loss to the last bit, `min_repeats` times in a row.

    Parameters
    ----------
    min_repeats : int
        Length of a run of equal values that counts.
    """

    failure_mode = STUCK
    required_signals = ("loss",)
    version: ClassVar[int] = 1

    def __init__(self, min_repeats: int = 50) -> None:
        check_count(minimum=2, min_repeats=min_repeats)
        self.min_repeats = min_repeats

    def init(self, context: Context | None = None) -> FoldState:  # noqa: ARG002
        """Return a state with the last value of each series and how often it came."""
        columns = {
            "last": Column(np.float64, fill=np.nan),
            "repeats": Column(np.int64),
            "since": Column(np.int64),
        }
        return FoldState(self.name, self.version, columns)

    def update(self, state: FoldState, chunk: SignalSet) -> Sequence[Event]:
        """Fold closed steps in; equal runs that reach `min_repeats` open a finding."""
        for series in chunk.select("loss"):
            row = state.row(series.key)
            last, repeats, since = state["last"], state["repeats"], state["since"]
            for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
                if value == last[row]:
                    repeats[row] += 1
                else:
                    last[row], repeats[row], since[row] = value, 1, step
                if repeats[row] == self.min_repeats:
                    onset = int(since[row])
                    finding = Finding(
                        self.failure_mode,
                        Severity.MEDIUM,
                        0.8,
                        onset_step=onset,
                        message=f"{series.key} is {value:.6g} at every step since {onset}",
                        evidence={"value": value, "min_repeats": self.min_repeats},
                        finding_id=f"{self.name}:{series.key}:{onset}",
                    )
                    state.open(step, finding)
        return state.take_events()

    def conclude(self, state: FoldState) -> DetectionResult:
        """Return what was found so far."""
        if not state.keys:
            return DetectionResult(
                self.failure_mode, False, 0.0, detector_name=self.name,
                outcome=Outcome.NOT_APPLICABLE, reason="there is no loss",
            )  # fmt: skip
        return DetectionResult.of_findings(
            self.failure_mode, self.name, state.findings.values(), judged=("loss",)
        )


def main() -> None:
    """Watch a run step by step, stop, save, restore and go on."""
    detector = StuckLoss(min_repeats=20)
    losses = [1.0 / (step + 1) for step in range(100)] + [0.25] * 60
    state = detector.init()
    for step, loss in enumerate(losses[:110]):
        detector.update(state, SignalSet.of([Signal("loss", loss, step=step)]))
    state = detector.restore(state.to_bytes())  # as after a restarted job
    for step, loss in enumerate(losses[110:], start=110):
        for event in detector.update(state, SignalSet.of([Signal("loss", loss, step=step)])):
            print(f"step {event.step}: {event.kind.value}: {event.finding.message}")
    whole = detector.detect([Signal("loss", loss, step=at) for at, loss in enumerate(losses)])
    print(f"the same as judged at once: {whole == detector.conclude(state)}")


if __name__ == "__main__":
    main()
