"""Times per step of two real jobs beside this repository: one straggler, and none."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_systems_debugger import DetectionResult
from ml_systems_debugger.detectors import StragglerEffectDetector
from ml_systems_debugger.ingestion import open_source

NAMES = {"batch_time_norm": "step_time", "worker": "replica_id", "time": "step"}


@pytest.fixture
def found(real_runs: Path, request: pytest.FixtureRequest) -> DetectionResult:
    path = real_runs / "stragglers" / f"alibaba_job_{request.param}.csv"
    if not path.is_file():
        pytest.skip(f"no such real run: {path}")
    return StragglerEffectDetector().detect(open_source(path, mapping=NAMES))


@pytest.mark.parametrize("found", [1], indirect=True)
def test_the_straggler_is_named_with_its_beginning_and_end(found: DetectionResult) -> None:
    (finding,) = found.findings
    assert finding.replica_id == 6
    assert 1800 <= (finding.onset_step or 0) <= 1830
    assert 1930 <= (finding.end_step or 0) <= 1960
    assert finding.severity >= "medium"


@pytest.mark.parametrize("found", [2], indirect=True)
def test_stable_differences_are_no_straggler(found: DetectionResult) -> None:
    assert not found.detected
    assert found.judged == ("step_time",)
