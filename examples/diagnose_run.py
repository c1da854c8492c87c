"""A verdict on a recorded run: what failed, where it began, why, what to do.

Run it as ``python examples/diagnose_run.py``.
"""

from __future__ import annotations

from pathlib import Path

import ml_systems_debugger as mlsd

RUNS = Path(__file__).parent / "runs"

report = mlsd.diagnose(RUNS / "lr_jump" / "metrics.csv")
print(f"status: {report.status}")
for failure in report.failures:
    print(f"{failure.severity} {failure.failure_mode} from step {failure.onset_step}")
best = report.attributions[0]
print(f"most likely: {best.cause} ({best.confidence:.0%})")
print(f"do: {best.remediation_hints[0]}")
