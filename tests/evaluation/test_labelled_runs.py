"""Judging reports by labels."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from ml_systems_debugger.cli import main
from ml_systems_debugger.core import (
    ConfigurationError,
    DebugReport,
    DetectionResult,
    Finding,
    Severity,
)
from ml_systems_debugger.evaluation import Label, evaluate, judge, read_labels


def report(*fired: tuple[str, str, int]) -> DebugReport:
    """Make a report with detections of (mode, severity, onset)."""
    return DebugReport(
        0.0,
        [
            DetectionResult.of_findings(mode, mode, [Finding(mode, Severity(word), 0.9, onset)])
            for mode, word, onset in fired
        ],
    )


DIVERGED = Label("a", "diverged", frozenset({"divergent_training", "exploding_gradients"}), 100)
HEALTHY = Label("b", "healthy", frozenset())


def test_an_accepted_mode_is_right_and_its_onset_is_compared():
    found = judge(report(("exploding_gradients", "critical", 103)), DIVERGED)
    assert found.right
    assert found.onset_error == 3


def test_a_lower_severity_or_another_mode_is_a_miss():
    assert not judge(report(("divergent_training", "medium", 100)), DIVERGED).right
    assert not judge(report(("nan_detected", "critical", 100)), DIVERGED).right
    assert judge(report(("divergent_training", "medium", 100)), DIVERGED, Severity.MEDIUM).right


def test_a_healthy_run_is_right_without_an_alarm():
    assert judge(report(), HEALTHY).right
    assert judge(report(("loss_plateau", "medium", 0)), HEALTHY).right
    wrong = judge(report(("loss_plateau", "high", 0)), HEALTHY)
    assert not wrong.right
    assert wrong.found == {"loss_plateau": "high"}


def write(folder, labels):
    path = folder / "labels.json"
    path.write_text(json.dumps(labels), encoding="utf-8")
    return path


def test_labels_are_read_with_their_modes(tmp_path):
    path = write(
        tmp_path,
        {"a": {"outcome": "stuck"}, "b": {"outcome": "spiky", "accepted": ["loss_spike"]}},
    )
    stuck, spiky = read_labels(path)
    assert stuck.accepted == {"loss_plateau", "divergent_training"}
    assert spiky.accepted == {"loss_spike"}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "an object of run names"),
        ({"a": {}}, "'a' has no outcome"),
        ({"a": {"outcome": "odd"}}, "'odd', which is none of"),
        ({"a": {"outcome": "stuck", "onset_step": "3"}}, "onset_step is an int, got '3'"),
        ({"a": {"outcome": "x", "accepted": ["los_spike"]}}, "unknown failure mode 'los_spike'"),
    ],
)
def test_bad_labels_name_the_run_and_the_value(tmp_path, labels, message):
    path = write(tmp_path, labels)
    with pytest.raises(ConfigurationError, match=message):
        read_labels(path)


def test_a_file_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"labels\.json"):
        read_labels(path)


@pytest.fixture
def runs(tmp_path):
    """Make a folder with one healthy run, one that diverges, and labels for three."""
    lines = ["step,loss", *(f"{i},{2.0 * 0.99**i + 0.1}" for i in range(200))]
    (tmp_path / "good.csv").write_text("\n".join(lines), encoding="utf-8")
    worse = [*lines[:120], *(f"{i},{50.0 + i % 7}" for i in range(119, 200))]
    (tmp_path / "bad.v1.csv").write_text("\n".join(worse), encoding="utf-8")
    labels = {
        "good": {"outcome": "healthy"},
        "bad.v1": {"outcome": "diverged", "onset_step": 119},
        "gone": {"outcome": "stuck"},
    }
    write(tmp_path, labels)
    return tmp_path


def test_a_folder_is_evaluated(runs):
    found = evaluate(runs, read_labels(runs / "labels.json"))
    assert found.missing == ("gone",)
    assert found.outcomes == ("diverged", "healthy")
    assert not found.missed
    assert not found.false_alarms
    counts = found.summary("diverged")
    assert (counts["runs"], counts["right"], counts["onset_error_max"]) == (1, 1, 0)
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_command_prints_a_table_and_json(runs):
    shown = CliRunner().invoke(main, ["evaluate", str(runs), "--at-least", "high"])
    assert shown.exit_code == 3, shown.output  # a run without a file
    assert "diverged" in shown.output
    assert "no file: gone" in shown.output
    told = CliRunner().invoke(main, ["evaluate", str(runs), "--format", "json"])
    assert json.loads(told.output)["outcomes"]["healthy"]["right"] == 1


def test_the_command_names_a_bad_labels_file(runs):
    bad = write(runs, {"good": {}})
    shown = CliRunner().invoke(main, ["evaluate", str(runs), "--labels", str(bad)])
    assert shown.exit_code == 2
    assert "'good' has no outcome" in shown.output
