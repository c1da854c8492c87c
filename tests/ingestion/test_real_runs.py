"""Files that other people's jobs wrote, read whole."""

from __future__ import annotations

import csv
import gzip
import math
from collections import Counter
from pathlib import Path

import pytest

from ml_systems_debugger.core import canonical
from ml_systems_debugger.ingestion import open_source

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "real-runs"
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real runs at {REAL}")


def cells_of(path: Path) -> Counter[tuple[str, int, float]]:
    """Every non-empty cell as (column, step, value), by the csv module."""
    opener = gzip.open if path.suffix == ".gz" else open
    found: Counter[tuple[str, int, float]] = Counter()
    with opener(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            name = next(n for n in row if canonical(n).name == "step")
            step = int(float(row.pop(name)))
            for column, cell in row.items():
                if cell != "":
                    value = float(cell)
                    found[column, step, math.pi if math.isnan(value) else value] += 1
    return found


def series_of(path: Path) -> Counter[tuple[str, int, float]]:
    signals = open_source(path)
    assert signals.unread == ()
    return Counter(
        (one.source_name or one.name, step, math.pi if math.isnan(value) else value)
        for one in signals.series
        for step, value in zip(one.steps.tolist(), one.values.tolist(), strict=True)
    )


def some(pattern: str, count: int) -> list[Path]:
    found = sorted(REAL.glob(pattern))
    return found[:: max(1, len(found) // count)]


@pytest.mark.parametrize(
    "path",
    [
        *some("formats/lightning/*.csv", 9),
        *some("formats/tensorboard/*/*.csv", 9),
        *some("outcomes/algoperf-*.csv", 12),
        *some("outcomes/deepobs-*.csv.gz", 4),
    ],
    ids=lambda path: path.name,
)
def test_every_cell_of_a_csv_is_a_measurement(path: Path) -> None:
    expected = cells_of(path)
    assert expected
    assert series_of(path) == expected


def test_the_columns_of_a_lightning_file_mean_what_they_say() -> None:
    signals = open_source(REAL / "formats/lightning/metrics.csv")
    counts = {(s.source_name or s.name): (s.name, s.key.split, len(s)) for s in signals.series}
    assert counts["train_loss_step"] == ("loss", "train", 2814)
    assert counts["val_loss"] == ("loss", "val", 10)
    assert counts["train_loss_epoch"] == ("train_loss_epoch", None, 10)


def test_loss_per_step_and_per_evaluation_are_two_series() -> None:
    for path in some("outcomes/algoperf-*.csv", 5):
        losses = open_source(path).select("loss")
        assert [one.key.split for one in losses] == [None, "test", "train", "val"]
        assert len(losses[0]) != len(losses[2])


def test_megatron() -> None:
    signals = open_source(next((REAL / "formats/megatron").glob("*.gz")))
    assert signals.unread == ()
    (scale,) = signals.select("loss_scale")
    assert scale.steps.tolist() == [1, 2, 3, 4]
    assert scale.values.tolist() == [2.0**32, 2.0**31, 2.0**30, 2.0**29]
    (time,) = signals.select("step_time")
    assert time.values.tolist() == pytest.approx([150.8917, 123.8963, 124.3622, 122.224])
    assert signals.select("skipped_step")[0].values.tolist() == [1.0] * 4
    # Four steps of seven quantities and of eleven timers, three timers of the start.
    timers = [one for one in signals.series if one.name.startswith("timer_ms/")]
    assert sorted(len(one) for one in timers) == [1] * 3 + [4] * 11
    assert sum(len(s) for s in signals.select()) == 4 * 7 + 4 * 11 + 3
    (events,) = signals.select("log_event", kind=None)
    assert any("TIME LIMIT" in text for text in events.values)


@pytest.mark.parametrize("path", some("formats/nanogpt/*.txt", 9), ids=lambda p: p.name)
def test_nanogpt(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line.startswith("step:")]
    expected = [
        (int(line.split("/")[0][5:]), float(line.split("val_loss:")[1].split()[0]))
        for line in lines if "val_loss:" in line
    ]  # fmt: skip
    signals = open_source(path)
    assert signals.unread == ()
    (loss,) = signals.select("val_loss")
    assert list(zip(loss.steps.tolist(), loss.values.tolist(), strict=True)) == expected
    (average,) = signals.select("step_avg")
    assert len(average) == len(set(lines))


def test_workers_with_a_mapping() -> None:
    path = REAL / "stragglers/alibaba_job_1.csv"
    mapping = {"batch_time_norm": "step_time", "worker": "replica_id", "time": "step"}
    signals = open_source(path, mapping=mapping)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    times = signals.select("step_time")
    assert {one.key.replica_id for one in times} == {int(row["worker"]) for row in rows}
    assert sum(map(len, times)) == len(rows)
