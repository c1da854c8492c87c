"""MLflow stores: NaN and infinities restored, runs kept apart, damage named."""

from __future__ import annotations

import math
import os
import sqlite3
import warnings
from pathlib import Path

import pytest

from ml_systems_debugger.core import SchemaError, UnsupportedFormatError
from ml_systems_debugger.ingestion import MLflowIngestor, find_runs, open_source

LARGEST = 1.7976931348623157e308


def database(path: Path, rows: list[tuple[object, ...]], runs: dict[str, str]) -> Path:
    # The tables as MLflow's own migrations leave them, as far as metrics go.
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE runs (run_uuid VARCHAR(32) NOT NULL PRIMARY KEY, name VARCHAR)")
        base.execute("CREATE TABLE latest_metrics (key VARCHAR(250), value FLOAT)")
        base.execute(
            "CREATE TABLE metrics (key VARCHAR(250) NOT NULL, value FLOAT NOT NULL, "
            "timestamp BIGINT NOT NULL, run_uuid VARCHAR(32) NOT NULL, step BIGINT NOT NULL, "
            "is_nan BOOLEAN NOT NULL)"
        )
        base.executemany("INSERT INTO runs VALUES (?, ?)", runs.items())
        base.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", rows)
    base.close()
    return path


def test_nan_and_infinities_are_what_they_were(tmp_path: Path) -> None:
    rows = [
        ("train/loss", 0.5, 1_700_000_000_000, "a", 10, 0),
        ("train/loss", 0.0, 1_700_000_001_000, "a", 20, 1),
        ("train/loss", LARGEST, 1_700_000_002_000, "a", 30, 0),
        ("train/loss", -LARGEST, 1_700_000_003_000, "a", 40, 0),
        ("lr", 0.0, 1_700_000_003_000, "a", 40, 0),
    ]
    signals = open_source(database(tmp_path / "mlflow.db", rows, {"a": "first"}))
    (loss,) = signals.select("loss", split="train")
    assert loss.steps.tolist() == [10, 20, 30, 40]
    assert loss.values[0] == 0.5
    assert math.isnan(loss.values[1])
    assert loss.values[2:].tolist() == [math.inf, -math.inf]
    assert loss.timestamps is not None
    assert loss.timestamps.tolist() == [1.7e9, 1.7e9 + 1, 1.7e9 + 2, 1.7e9 + 3]
    assert signals.select("lr")[0].values.tolist() == [0.0]
    assert loss.key.run is None


def test_several_runs_are_kept_apart(tmp_path: Path) -> None:
    rows = [("loss", float(i), 1, run, i, 0) for run in "abc" for i in range(3)]
    runs = {"a": "one", "b": "two", "c": "two"}
    signals = open_source(database(tmp_path / "m.db", rows, runs))
    assert sorted(str(one.key.run) for one in signals.series) == ["b", "c", "one"]
    assert find_runs(tmp_path) == [tmp_path / "m.db"]


def file_store(root: Path) -> Path:
    run = root / "mlruns" / "0" / "abc"
    (run / "metrics" / "train").mkdir(parents=True)
    (run / "params").mkdir()
    (run / "meta.yaml").write_text("run_name: x\n")
    (run / "metrics" / "train" / "loss").write_text(
        "1700000000000 0.5 1\n1700000001000 nan 2\n1700000002000 inf 3\n"
    )
    (run / "metrics" / "lr").write_text("1700000000000 0.1 1\nbroken\n1700000001000 0.2 2\n")
    return run


def test_a_file_store(tmp_path: Path) -> None:
    run = file_store(tmp_path)
    assert find_runs(tmp_path) == [run]
    signals = open_source(run)
    (loss,) = signals.select("loss", split="train")
    assert loss.steps.tolist() == [1, 2, 3]
    assert math.isnan(loss.values[1])
    assert loss.values[2] == math.inf
    assert signals.select("lr")[0].values.tolist() == [0.1, 0.2]
    (said,) = signals.unread
    assert "lr: 1 line" in said
    assert "line 2" in said


def test_a_database_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE x (y)")
    base.close()
    with pytest.raises(UnsupportedFormatError, match=r"other\.db: .*SQLite"):
        open_source(path)
    assert find_runs(tmp_path) == []


def test_a_damaged_database(tmp_path: Path) -> None:
    rows = [("loss", float(i), 1, "a", i, 0) for i in range(2000)]
    path = database(tmp_path / "m.db", rows, {"a": "x"})
    data = bytearray(path.read_bytes())
    data[8192:] = os.urandom(len(data) - 8192)
    path.write_bytes(bytes(data))
    with pytest.raises(SchemaError, match=r"m\.db: no readable table of metrics"):
        open_source(path)


def test_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError):
        MLflowIngestor().ingest(b"SQLite format 3\0")
    with pytest.raises(UnsupportedFormatError):
        MLflowIngestor().ingest(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no\.db"):
        MLflowIngestor().ingest(tmp_path / "no.db")


@pytest.mark.parametrize("store", ["file", "sqlite"])
def test_round_trip_with_mlflow(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        tracking = pytest.importorskip("mlflow.tracking", reason="mlflow is not installed")
        if store == "sqlite":
            pytest.importorskip("mlflow.store.tracking.sqlalchemy_store")
            target = f"sqlite:///{tmp_path}/mlflow.db"
        else:
            monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
            target = (tmp_path / "mlruns").as_uri()
        client = tracking.MlflowClient(target)
        run = client.create_run(client.create_experiment("e", str(tmp_path / "artifacts")))
        values = [0.5, math.nan, math.inf, -math.inf, 1e-30, 3.0]
        for step, value in enumerate(values):
            client.log_metric(run.info.run_id, "train/loss", value, 1_700_000_000_000, step)
    (path,) = find_runs(tmp_path)
    (loss,) = open_source(path).select("loss", split="train")
    assert loss.steps.tolist() == list(range(6))
    assert list(map(repr, loss.values.tolist())) == list(map(repr, values))


def test_a_step_beyond_64_bits_is_named(tmp_path: Path) -> None:
    # Found by fuzzing.
    run = tmp_path / "0" / ("a" * 32)
    (run / "metrics").mkdir(parents=True)
    (run / "meta.yaml").write_text(f"run_id: {'a' * 32}\n")
    (run / "metrics" / "loss").write_text(f"1700000000000 0.5 1\n1700000001000 0.4 {10**30}\n")
    signals = open_source(run)
    assert signals.select("loss")[0].steps.tolist() == [1]
    (said,) = signals.unread
    assert "line 2" in said
