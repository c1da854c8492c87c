"""``mlsd ingest``, ``compare``, ``inspect`` of runs, and what narrows a diagnosis."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from ml_systems_debugger.cli import main
from ml_systems_debugger.ingestion import open_source

REAL = Path(__file__).parents[2].parent / "shared" / "real-runs" / "stragglers"


def call(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(main, [str(w) for w in words])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = []
    for step in range(200):
        for worker in range(2):
            row = {"t": step, "worker": worker, "train/loss": 2 / (step + 1), "learning_rate": 1e-3}
            if step % 50 == 0:
                row["eval_loss"] = math.nan if step == 150 else 1.0
            if step == 7:
                row["grad_norm/fc.weight"] = math.inf
            rows.append(row)
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_what_is_written_reads_back_the_same(run: Path, tmp_path: Path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    out = tmp_path / f"out.{form}"
    call("ingest", run, "--map", "t=step,worker=replica_id", "--format", form, "--output", out)
    before = open_source(run, mapping={"t": "step", "worker": "replica_id"})
    after = open_source(out)
    assert {str(s.key) for s in after.series} == {str(s.key) for s in before.series}
    written = {str(s.key): s for s in after.series}
    for one in before.series:
        again = written[str(one.key)]
        assert again.steps.tolist() == one.steps.tolist()
        assert repr(again.values.tolist()) == repr(one.values.tolist())
    assert not list(tmp_path.glob(".*"))


def test_narrowed_by_name_and_step(run: Path) -> None:
    out = call(
        "ingest", run, "--map", "t=step,worker=replica_id", "--metrics", "l*", "--since", 198
    )
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["step"] for row in rows] == [198, 198, 199, 199]
    assert set(rows[0]) == {"step", "replica_id", "train_loss", "lr"}


def test_a_mapping_that_is_none_is_said(run: Path) -> None:
    assert "'worker' is not COLUMN=NAME" in call("diagnose", run, "--map", "worker", code=2)
    assert "mapped twice" in call("diagnose", run, "--map", "t=step,t=epoch", code=2)


def test_runs_side_by_side(tmp_path: Path) -> None:
    for name, at, by in (("a", 900, 0.0), ("b", 40, 1e-9), ("c", 60, 0.5)):
        rows = ["step,loss,lr"]
        rows += [f"{i},{1 / (i + 1) + (by if i >= at else 0)!r},0.1" for i in range(100)]
        (tmp_path / f"{name}.csv").write_text("\n".join(rows), encoding="utf-8")
    a, b, c = (tmp_path / f"{name}.csv" for name in "abc")
    assert "has the values of" in call("compare", a, a)
    assert "parts from" in call("compare", a, b, code=1)
    told = json.loads(call("compare", a, b, c, "--format", "json", code=1))
    first, second = told["runs"]
    assert first["first"]["parts_at"] == 40
    assert first["first"]["parts_for_good_at"] is None
    assert (second["first"]["quantity"], second["first"]["parts_for_good_at"]) == ("loss", 60)
    assert "at least two runs" in call("compare", a, code=2)


def test_what_is_not_compared_is_not_the_same(tmp_path: Path) -> None:
    def write(name: str, text: str) -> Path:
        path = tmp_path / f"{name}.csv"
        path.write_text("step,loss\n" + text, encoding="utf-8")
        return path

    a = write("a", "0,1\n1,2\n")
    assert "nothing was compared" in call("compare", a, write("b", "10,5\n11,6\n"), code=3)
    assert "1 values have no counterpart" in call("compare", a, write("c", "0,1\n"), code=1)
    twice, other = write("d", "0,1\n0,2\n"), write("e", "0,1\n0,9\n")
    assert "parts from" in call("compare", twice, other, code=1)


FORMATS = REAL.parent / "formats"


@pytest.mark.skipif(not FORMATS.is_dir(), reason="the real runs are not here")
def test_real_runs_read_back_as_they_were(tmp_path: Path) -> None:
    for path in sorted(p for p in FORMATS.rglob("*") if p.is_file() and p.suffix != ".md"):
        out = tmp_path / "out.jsonl"
        CliRunner().invoke(main, ["ingest", str(path), "--output", str(out)])
        before = {
            s.key: s for s in open_source(path).series if s.kind.value in ("scalar", "digest")
        }
        after = {s.key: s for s in open_source(out).series}
        for key, one in before.items():
            assert key in after, f"{path.name}: {key}"
            assert repr(after[key].values.tolist()) == repr(one.values.tolist()), path.name


def test_inspect_tells_a_run_from_a_checkpoint(run: Path, tmp_path: Path) -> None:
    import numpy as np

    out = call("inspect", run)
    assert "a run of" in out
    terms = json.loads(call("inspect", run, "--format", "json"))
    told = {row["series"]: row for row in terms["series"]}
    held = next(row for name, row in told.items() if "eval" in name or "val" in name)
    assert held["nonfinite"] >= 1
    np.save(tmp_path / "w.npy", np.zeros(3))
    assert "npy" in call("inspect", tmp_path / "w.npy")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real runs are not here")
def test_a_straggler_through_a_mapping() -> None:
    given = ["--map", "batch_time_norm=step_time,worker=replica_id,time=step", "--format", "json"]
    told = json.loads(call("diagnose", REAL / "alibaba_job_1.csv", *given, "--fail-on", "never"))
    finding = next(d for d in told["detections"] if d["detected"])["findings"][0]
    assert finding["replica_id"] == 6
    assert 1800 <= finding["onset_step"] <= 1830
    assert 1930 <= finding["end_step"] <= 1970
    told = json.loads(call("diagnose", REAL / "alibaba_job_2.csv", *given))
    assert told["status"] == "healthy"


def test_a_folder_of_runs_is_written_with_the_name_of_each(tmp_path: Path) -> None:
    for name, loss in (("a", 1.5), ("b", 2.5)):
        (tmp_path / name).mkdir()
        rows = "".join(f"{s},{loss}\n" for s in range(5))
        (tmp_path / name / "metrics.csv").write_text("step,loss\n" + rows, encoding="utf-8")
    rows_out = [json.loads(line) for line in call("ingest", tmp_path).splitlines()]
    assert {(row["run"], row["loss"]) for row in rows_out} == {
        ("a/metrics.csv", 1.5),
        ("b/metrics.csv", 2.5),
    }
    assert len(rows_out) == 10
    terms = json.loads(call("inspect", tmp_path, "--format", "json"))
    assert [one["series"][0]["count"] for one in terms] == [5, 5]


def test_inspect_takes_what_narrows_a_run(run: Path) -> None:
    words = ("inspect", run, "--format", "json", "--map", "t=step,worker=replica_id")
    terms = json.loads(call(*words, "--metrics", "loss", "--since", 190))
    assert {one["steps"] for one in terms["series"]} == {"190-199"}
    assert {one["series"] for one in terms["series"]} == {"loss [replica 0]", "loss [replica 1]"}
