from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ml_systems_debugger import MLSystemsDebugger
from ml_systems_debugger.cli import main
from ml_systems_debugger.core import ConfigurationError
from ml_systems_debugger.evaluation import learn_baselines, read_labels

RUNS = 12


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Write healthy runs whose gradient norms rise fifteenfold, as they do in this house."""
    runs = tmp_path / "runs"
    runs.mkdir()
    for seed in range(RUNS):
        g = np.random.default_rng(seed)
        norm = np.exp(g.normal(0, 0.1, 200))
        norm[120:] *= 15.0
        rows = [json.dumps({"step": at, "grad_norm": float(v)}) for at, v in enumerate(norm)]
        (runs / f"run{seed}.jsonl").write_text("\n".join(rows))
    labels = {f"run{seed}": {"outcome": "healthy"} for seed in range(RUNS)}
    (runs / "labels.json").write_text(json.dumps(labels))
    return runs


def test_what_is_usual_alarms_no_more(history: Path) -> None:
    usual = learn_baselines(history, read_labels(history / "labels.json"))
    assert usual is not None
    assert set(usual.sensitivities) == {"gradient_explosion"}
    assert usual.alarms["gradient_explosion"] == (RUNS, 0)
    assert usual.sensitivities["gradient_explosion"] < 1


def test_the_file_that_calibrate_writes_is_taken(history: Path, tmp_path: Path) -> None:
    out = tmp_path / "calibration.json"
    done = CliRunner().invoke(main, ["calibrate", str(history), "--output", str(out)])
    assert done.exit_code == 0, done.output
    assert "gradient_explosion" in done.output
    config = tmp_path / "mlsd.toml"
    config.write_text('calibration = "calibration.json"\n')
    before = MLSystemsDebugger().debug(history / "run3.jsonl")
    after = MLSystemsDebugger(config=config).debug(history / "run3.jsonl")
    assert before.failures
    assert not after.failures
    (explosion,) = (
        d for d in MLSystemsDebugger(config=config).detectors if d.name == "gradient_explosion"
    )
    assert explosion.ratio > 15  # type: ignore[attr-defined]


def test_few_healthy_runs_teach_nothing(history: Path) -> None:
    assert learn_baselines(history, read_labels(history / "labels.json")[:9]) is None


@pytest.mark.parametrize("wrong", [{"nobody": 1.0}, {"loss_spike": 0}, {"loss_spike": "x"}, 3])
def test_wrong_sensitivities_are_named(wrong: object, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    terms = {"calibration_version": "1.0", "kind": "identity", "sensitivities": wrong}
    path.write_text(json.dumps(terms))
    with pytest.raises(ConfigurationError, match=r"calibration\.json: sensitivities"):
        MLSystemsDebugger(config={"calibration": str(path)})
