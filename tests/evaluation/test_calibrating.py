"""Calibration is learnt from labelled runs, used through the configuration, and fed by people."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ml_systems_debugger import Configuration, ConfigurationError, MLSystemsDebugger
from ml_systems_debugger.cli import main
from ml_systems_debugger.evaluation import (
    Evaluation,
    Judgement,
    Label,
    learn,
    read_labels,
    record,
    reliability,
)


def judged(confidence: float, right: bool) -> Judgement:
    label = Label("r", "x", frozenset({"nan_detected"}), None, frozenset({"memory_leak"}))
    return Judgement(label, True, {}, None, "", "memory_leak", confidence, right)


def evaluation(seed: int, count: int) -> Evaluation:
    """Confidences that claim too much: of those that say p, p squared are right."""
    rng = np.random.default_rng(seed)
    said = rng.uniform(0.05, 0.95, count)
    right = rng.random(count) < said**2
    return Evaluation(tuple(judged(float(p), bool(r)) for p, r in zip(said, right, strict=True)))


@pytest.mark.parametrize("count", [150, 3000])
def test_what_is_learnt_holds_on_other_runs(count: int) -> None:
    learnt = learn(evaluation(0, count))
    others = evaluation(1, 4000)
    before, after = reliability(others), reliability(others, learnt)
    assert before is not None
    assert after is not None
    assert after.brier < before.brier
    assert after.ece < 0.6 * before.ece
    assert sum(n for _, _, n in after.bins) == 4000


def test_too_little_to_learn_from_is_said() -> None:
    with pytest.raises(ConfigurationError, match="at least 20"):
        learn(evaluation(0, 19))
    with pytest.raises(ConfigurationError, match="all 30 causes were right"):
        learn(Evaluation(tuple(judged(0.5, True) for _ in range(30))))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    labels = {}
    for k in range(24):
        loss = 2 * np.exp(-np.arange(200) / 50) + 0.3 + rng.normal(0, 0.02, 200)
        loss[120:] = np.nan
        lines = [f"{i},{v}" for i, v in enumerate(loss)]
        (tmp_path / f"r{k}.csv").write_text("step,loss\n" + "\n".join(lines), encoding="utf-8")
        causes = ["invalid_operation"] if k % 3 else ["memory_leak"]
        labels[f"r{k}"] = {"outcome": "nonfinite", "onset_step": 120, "causes": causes}
    (tmp_path / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    return tmp_path


def test_the_commands_from_runs_to_a_configuration(runs: Path) -> None:
    out = runs / "made" / "calibration.json"
    out.parent.mkdir()
    made = CliRunner().invoke(main, ["calibrate", str(runs), "--output", str(out)])
    assert made.exit_code == 0, made.output
    assert "24 causes: Brier" in made.output
    config = runs / "made" / "mlsd.toml"
    config.write_text('calibration = "calibration.json"\n', encoding="utf-8")
    raw = MLSystemsDebugger().debug(str(runs / "r1.csv")).attributions[0].confidence
    held = MLSystemsDebugger(config=str(config)).debug(str(runs / "r1.csv")).attributions[0]
    learnt = Configuration.of(str(config)).calibration
    assert learnt is not None
    assert held.confidence == pytest.approx(learnt(raw))
    both = CliRunner().invoke(
        main, ["evaluate", str(runs), "--config", str(config), "--format", "json"]
    )
    assert both.exit_code == 0, both.output
    told = json.loads(both.output)
    assert told["outcomes"]["nonfinite"]["onset_error_max"] == 0
    assert told["outcomes"]["nonfinite"]["causes"] == 24
    assert told["confidence"]["predictions"] == 24


def test_a_calibration_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mlsd.toml"
    path.write_text('calibration = "gone.json"\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"mlsd\.toml: calibration 'gone\.json': No such"):
        Configuration.of(str(path))


def test_feedback_is_kept_and_read(tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    record(labels, "a", "loss_plateau", confirmed=False)
    record(labels, "b", "nan_detected", confirmed=True, cause="memory_leak", onset_step=7)
    a, b = read_labels(labels)
    assert (a.healthy, a.dismissed) == (True, frozenset({"loss_plateau"}))
    assert (b.outcome, b.accepted, b.onset_step) == ("nan_detected", {"nan_detected"}, 7)
    assert b.causes == {"memory_leak"}
    record(labels, "b", "nan_detected", confirmed=False)
    assert read_labels(labels)[1].healthy
    with pytest.raises(ConfigurationError, match="unknown failure mode"):
        record(labels, "b", "bad_luck", confirmed=True)


def test_the_feedback_command(runs: Path) -> None:
    report = runs / "report.json"
    done = CliRunner().invoke(
        main, ["diagnose", str(runs / "r1.csv"), "--format", "json", "--output", str(report)]
    )
    assert done.exit_code == 1
    labels = runs / "mine.json"
    said = ["feedback", str(report), "--labels", str(labels)]
    told = CliRunner().invoke(main, [*said, "--confirm", "nan_detected", "--cause", "memory_leak"])
    assert told.exit_code == 0, told.output
    assert read_labels(labels)[0].name == "r1"
    assert read_labels(labels)[0].onset_step == 120
    odd = CliRunner().invoke(main, [*said, "--dismiss", "overfitting"])
    assert odd.exit_code == 2
    assert "it found no 'overfitting'" in odd.output
    nothing = CliRunner().invoke(main, said)
    assert nothing.exit_code == 2


def test_a_dismissed_mode_is_a_false_alarm_in_a_faulty_run() -> None:
    from ml_systems_debugger.core import DebugReport, DetectionResult, Finding, Severity
    from ml_systems_debugger.evaluation import judge

    fired = [
        DetectionResult.of_findings(
            "loss_plateau", "loss_plateau", [Finding("loss_plateau", Severity.HIGH, 0.9, 5)]
        )
    ]
    label = Label("a", "x", frozenset({"nan_detected"}), dismissed=frozenset({"loss_plateau"}))
    assert not judge(DebugReport(0.0, fired), label).right
