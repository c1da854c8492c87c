"""Runs judged part by part: the report is that of the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import (
    BaseDetector,
    DebugReport,
    DetectionResult,
    MLSystemsDebugger,
    SignalSet,
    UnsupportedFormatError,
)
from ml_systems_debugger.ingestion import open_source, read_pieces
from ml_systems_debugger.monitoring import Follower, Session, diagnose_pieces

REAL_RUNS = Path(__file__).parents[3] / "shared" / "real-runs"


def told(report: Any) -> list[str]:
    """What a report says, without the time it was made and how its input was held."""
    terms = report.to_dict()
    return [
        *sorted(json.dumps(one, sort_keys=True) for one in terms["detections"]),
        *sorted(json.dumps(one, sort_keys=True) for one in terms["skipped"]),
        json.dumps(terms["attributions"]), terms["status"], *terms["unread"],
    ]  # fmt: skip


def csv_of(**columns: Any) -> bytes:
    rows = zip(*(np.asarray(c).tolist() for c in columns.values()), strict=True)
    lines = [",".join(columns), *(",".join(map(repr, row)) for row in rows)]
    return ("\n".join(lines) + "\n").encode()


def runs() -> dict[str, bytes]:
    rng = np.random.default_rng(3)
    steps = np.arange(2000)
    loss = 2 / (1 + steps / 100) + rng.normal(0, 0.02, 2000)
    nan, jump = loss.copy(), np.full(2000, 1e-3)
    nan[1500:] = np.nan
    jump[1200:] = 1e-1
    norm = np.exp(rng.normal(0, 0.2, 2000))
    grown = norm.copy()
    grown[1400:] *= 500
    return {
        "healthy": csv_of(step=steps, loss=loss, grad_norm=norm),
        "nan": csv_of(step=steps, loss=nan, grad_norm=norm),
        "jump": csv_of(step=steps, loss=loss + (steps > 1200), lr=jump),
        "exploding": csv_of(step=steps, loss=loss, grad_norm=grown),
    }


@pytest.mark.parametrize("name", ["healthy", "nan", "jump", "exploding"])
@pytest.mark.parametrize("size", [700, 9001])
def test_pieces_give_the_report_of_the_whole(name: str, size: int) -> None:
    data = runs()[name]
    session = Session()
    for piece in read_pieces(data, piece_bytes=size):
        session.update(piece)
    whole = MLSystemsDebugger().debug(data)
    assert told(session.report()) == told(whole)
    assert session.report().metadata["measurements"] == whole.metadata["measurements"]
    assert session.report().metadata["last_step"] == whole.metadata["last_step"]


def test_pieces_from_a_file_in_one_call(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_bytes(runs()["nan"])
    seen: list[SignalSet] = []
    report = diagnose_pieces(path, on_progress=seen.append)
    assert told(report) == told(MLSystemsDebugger().debug(path))
    assert sum(map(len, seen)) == 4000
    with pytest.raises(UnsupportedFormatError, match="whole"):
        diagnose_pieces(b'{"loss": [1.0, 2.0]}')


class _Broken(BaseDetector):
    failure_mode = "test:broken"
    required_signals = ("loss",)

    def detect(self, signals: Any, context: Any = None) -> DetectionResult:
        raise ZeroDivisionError("a third party's mistake")


class _Unasked(_Broken):
    def get_required_signals(self) -> list[str]:
        raise ZeroDivisionError("does not even know what it needs")


def judged(debugger: MLSystemsDebugger, run: SignalSet) -> DebugReport:
    session = Session(debugger)
    session.update(run)
    return session.report()


@pytest.mark.parametrize("broken", [_Broken, _Unasked])
def test_a_check_that_fails_is_told_and_nothing_else_suffers(broken: type[BaseDetector]) -> None:
    debugger, run = MLSystemsDebugger().add_detector(broken()), open_source(runs()["nan"])
    with pytest.warns(UserWarning, match="left out"):
        report = judged(debugger, run)
    assert [r.detector_name for r in report.failed_checks] == [broken.name]
    assert report.failures[0].onset_step == 1500


def test_a_follower_tells_a_fault_with_the_step_that_closes_it(tmp_path: Path) -> None:
    data = runs()["nan"]
    lines = data.splitlines(keepends=True)
    path = tmp_path / "run.csv"
    follower = Follower(path)
    assert follower.poll() == []
    told_at: list[int] = []
    with path.open("ab") as job:
        for number, line in enumerate(lines, -1):  # the header is no step
            job.write(line)
            job.flush()
            if follower.poll():
                told_at.append(number)
    assert told_at[0] == 1501, "the step behind the one that is not finite closes it"
    assert follower.last_step == 1998
    interim = follower.report(unread=["the last line"])
    assert interim.unread == ("the last line",)
    assert told(follower.finish())[:-1] == told(MLSystemsDebugger().debug(path))


def test_a_part_that_cannot_be_read_is_not_healthy(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    good = b"".join(b'{"step": %d, "loss": %g}\n' % (s, 2 / (s + 1)) for s in range(400))
    path.write_bytes(good + b"{not json}\n")
    follower = Follower(path)
    follower.poll()
    report = follower.finish()
    assert report.status.value != "healthy"
    assert "line 401" in report.unread[0]


@pytest.mark.skipif(not REAL_RUNS.is_dir(), reason=f"no real runs at {REAL_RUNS}")
def test_real_runs_in_pieces_get_the_same_report() -> None:
    debugger = MLSystemsDebugger()
    compared = 0
    for path in sorted((REAL_RUNS / "outcomes").glob("*.csv*"))[::6]:
        session = Session(debugger)
        for piece in read_pieces(path, piece_bytes=3001):
            session.update(piece)
        assert told(session.report()) == told(debugger.debug(path)), path
        compared += 1
    assert compared >= 10
