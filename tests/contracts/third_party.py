"""A detector as somebody else would write it: `detect` alone, against the contract."""

from __future__ import annotations

from typing import Any

from ml_systems_debugger import BaseDetector, DetectionResult, register_failure_mode


class LoudLossDetector(BaseDetector):
    """Losses above a hundred thousand."""

    failure_mode = register_failure_mode("example:loud_loss")

    def get_required_signals(self) -> list[str]:
        return ["loss"]

    def detect(self, signals: Any, context: Any = None) -> DetectionResult:
        loud = [
            s for s in signals
            if s.name == "loss" and not isinstance(s.value, str) and 1e5 < s.value < float("inf")
        ]  # fmt: skip
        loud.sort(key=lambda s: (s.step, s.metadata.get("segment", 0), s.value))
        return DetectionResult(
            self.failure_mode, bool(loud), 0.9 if loud else 0.0, detector_name=self.name,
            onset_step=loud[0].step if loud else None,
            message=f"a loss of {loud[0].value:.3g}" if loud else "",
            contributing_signals=loud[:10],
        )  # fmt: skip
