"""Runs that the loggers of training frameworks wrote, read back: every point equal.

TensorBoard, W&B, MLflow, the profiler and the flight recorder have theirs beside
the tests of their ingestors.
"""

from __future__ import annotations

import ast
import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ml_systems_debugger.core import Series
from ml_systems_debugger.ingestion import find_runs, open_source

WRITER = Path(__file__).with_name("write_runs.py")

Points = list[tuple[int, str]]


def written(factory: pytest.TempPathFactory, kind: str, *packages: str) -> Path:
    """Run a logger in a process of its own: frameworks warn, and warnings are errors here."""
    for package in packages:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    folder = factory.mktemp(kind)
    done = subprocess.run(
        [sys.executable, str(WRITER), kind, str(folder)], capture_output=True, text=True,
        timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def told(folder: Path, name: str, step: str = "step") -> Points:
    """Return what the logger was told of one quantity, as (step, repr)."""
    rows: list[dict[str, str]] = json.loads((folder / "told.json").read_text())
    return [(int(row[step]), repr(float(row[name]))) for row in rows if name in row]


def points(series: tuple[Series, ...]) -> Points:
    (one,) = series
    return [(s, repr(v)) for s, v in zip(one.steps.tolist(), one.values.tolist(), strict=True)]


def names_of(folder: Path) -> set[str]:
    rows: list[dict[str, Any]] = json.loads((folder / "told.json").read_text())
    return {name for row in rows for name in row}


@pytest.fixture(scope="module")
def hf_trainer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory, "hf_trainer", "transformers", "accelerate")


@pytest.mark.parametrize("filtered", ["hidden", "open"])
def test_trainer_state(hf_trainer: Path, filtered: str) -> None:
    folder = hf_trainer / filtered
    signals = open_source(folder / "trainer_state.json")
    assert signals.unread == ()
    names = names_of(folder) - {"step"}
    assert {one.source_name or one.name for one in signals.series} == names
    for name in names:
        found = tuple(s for s in signals.series if (s.source_name or s.name) == name)
        assert points(found) == told(folder, name), name
    values = {repr(v) for v in signals.select("loss", split=None)[0].values.tolist()}
    assert {"nan", "inf", "-inf", "1e-30"} <= values
    assert len(signals.select("loss", split="eval")[0]) == 3


def test_a_loss_that_the_trainer_hides_is_said(hf_trainer: Path) -> None:
    hidden = open_source(hf_trainer / "hidden" / "trainer_state.json")
    # One input holds an infinity: from that step on the gradients are NaN.
    norms = told(hf_trainer / "hidden", "grad_norm")
    first = next(step for step, value in norms if value == "nan")
    assert 1 <= first <= 12
    assert f"first at step {first}:" in str(hidden.metadata["not_trustworthy"])
    assert dict(told(hf_trainer / "hidden", "loss"))[first] == "0.0"
    shown = open_source(hf_trainer / "open" / "trainer_state.json")
    assert "not_trustworthy" not in shown.metadata
    assert dict(told(hf_trainer / "open", "loss"))[first] == "nan"


@pytest.mark.parametrize("filtered", ["hidden", "open"])
def test_what_the_trainer_prints(hf_trainer: Path, filtered: str) -> None:
    path = hf_trainer / filtered / "stdout.log"
    lines = [line for line in path.read_text().splitlines() if line.startswith("{")]
    printed = [ast.literal_eval(line) for line in lines]
    assert len(printed) == 12 + 3 + 1 + 6
    signals = open_source(path)
    assert signals.unread == ()
    for name in ("loss", "grad_norm", "learning_rate", "eval_loss", "train_loss"):
        expected = [repr(float(row[name])) for row in printed if name in row]
        found = [s for s in signals.series if (s.source_name or s.name) == name]
        assert [repr(v) for s in found for v in s.values.tolist()] == expected, name


@pytest.fixture(scope="module")
def lightning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory, "lightning", "lightning")


def test_lightning_logger(lightning: Path) -> None:
    folder = lightning / "logged"
    (path,) = find_runs(folder / "run")
    signals = open_source(path)
    assert signals.unread == ()
    assert points(signals.select("loss", split="train")) == told(folder, "train_loss_step")
    assert points(signals.select("val_loss")) == told(folder, "val_loss")
    assert points(signals.select("lr-Adam")) == told(folder, "lr-Adam")
    assert points(signals.select("epoch")) == told(folder, "epoch")
    kinds = [math.isnan(v) for v in signals.select("loss", split="train")[0].values.tolist()]
    assert kinds == [False, True, False, False, False, False]


def test_lightning_fit(lightning: Path) -> None:
    folder = lightning / "fitted"
    signals = open_source(next(folder.rglob("metrics.csv")))
    assert signals.unread == ()
    assert points(signals.select("train_loss")) == told(folder, "train_loss")
    assert points(signals.select("val_loss")) == [(3, "inf"), (7, "inf")]


def test_keras_logger(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = written(tmp_path_factory, "keras", "keras", "torch")
    signals = open_source(folder / "training.csv")
    assert signals.unread == ()
    names = names_of(folder) - {"epoch"}
    assert names == {"loss", "mae", "val_loss", "val_mae", "odd", "learning_rate"}
    for name in names:
        found = tuple(s for s in signals.series if (s.source_name or s.name) == name)
        assert points(found) == told(folder, name, "epoch"), name
    assert [v for _, v in told(folder, "odd", "epoch")] == [
        "0.5",
        "nan",
        "inf",
        "-inf",
        "1e-30",
        "3.0",
    ]
