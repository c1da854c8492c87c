"""Every example runs and says what it promises; the recorded runs tell their story."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path

import pytest

import ml_systems_debugger as mlsd

EXAMPLES = Path(__file__).parents[1] / "examples"
RUNS = EXAMPLES / "runs"


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("diagnose_run.py", "most likely: learning_rate"),
        ("own_detector.py", "accuracy_regression: val_accuracy fell to 0.62 from 0.91 (step 4)"),
        ("own_fold_detector.py", "the same as judged at once: True"),
        ("own_ingestor.py", "line 2: expected step|key:value;key:value (got '1|loss=0.9')"),
    ],
)
def test_it_runs(name: str, said: str) -> None:
    done = run(name)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_ci_stops_at_the_fault_and_goes_on_without(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    faulty = run("in_ci.py", str(RUNS / "lr_jump" / "metrics.csv"), str(report))
    assert (faulty.returncode, report.is_file()) == (1, True)
    assert run("in_ci.py", str(RUNS / "healthy" / "metrics.csv")).returncode == 0
    assert run("in_ci.py", str(tmp_path / "missing.csv")).returncode == 2


def test_no_example_is_left_out() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for file in EXAMPLES.glob("*.py"):
        assert f"`{file.name}`" in listed
    for file in RUNS.glob("*/*"):
        assert file.stat().st_size < 300_000


def test_the_fault_is_found_where_it_was_planted() -> None:
    report = mlsd.diagnose(RUNS / "lr_jump" / "metrics.csv")
    onsets = {d.failure_mode.value: d.onset_step for d in report.failures}  # type: ignore[union-attr]
    assert onsets["nan_detected"] == 723
    assert onsets["inf_detected"] == 722
    assert 700 <= onsets["exploding_gradients"] <= 721
    assert report.attributions[0].cause in (
        "learning_rate_schedule_fault",
        "learning_rate_too_high",
    )


def test_the_healthy_twin_is_healthy() -> None:
    assert mlsd.diagnose(RUNS / "healthy" / "metrics.csv").status == "healthy"


def test_recording_again_tells_the_same_story(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="recording needs torch")
    pytest.importorskip("sklearn", reason="recording needs scikit-learn")
    done = run("record_run.py", "--to", str(tmp_path), "--steps", "760")
    assert done.returncode == 0, done.stderr

    def rows(folder: Path, name: str) -> list[dict[str, str]]:
        with (folder / name / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    for name in ("lr_jump", "healthy"):
        made, kept = rows(tmp_path, name), rows(RUNS, name)
        assert [row["lr"] for row in made] == [row["lr"] for row in kept[:760]]
        for at in (0, 1, 2):
            assert float(made[at]["loss"]) == pytest.approx(float(kept[at]["loss"]), rel=1e-3)
    assert math.isnan(float(rows(tmp_path, "lr_jump")[-1]["loss"]))
    assert math.isfinite(float(rows(tmp_path, "healthy")[-1]["loss"]))
