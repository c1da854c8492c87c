"""`MLflowIngestor`: metrics of an MLflow SQLite database or file store."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ..core import (
    BaseIngestor,
    IngestionError,
    SchemaError,
    SignalSet,
    UnsupportedFormatError,
    ingestors,
)
from ._assemble import assemble
from ._table import Column, Table, counted

__all__ = ["MLflowIngestor", "is_run_folder"]

_MAGIC = b"SQLite format 3\0"
_LARGEST = np.finfo(np.float64).max
_QUERY = (
    "SELECT run_uuid, key, value, timestamp, step, is_nan FROM metrics "
    "ORDER BY run_uuid, key, step, timestamp"
)
_SHOWN = 5

Point = tuple[str, str, float, float, int]
"""Run, metric, value, milliseconds since the epoch, step."""


@ingestors.register("mlflow")
class MLflowIngestor(BaseIngestor):
    """Reads what MLflow stored: an SQLite file, or one run's folder of a file store.

    MLflow keeps a NaN as 0.0 with a mark, and an infinity as the largest
    float; both are given back as what they were. In a database of several
    runs, every series carries the name of its run.
    """

    def ingest(self, source: Any) -> SignalSet:
        """Read the path of a database, or of a run's folder (with ``meta.yaml``), whole.

        Raises
        ------
        SchemaError
            If the database is damaged or has no table of metrics.
        UnsupportedFormatError
            If it is no MLflow store, or no path.
        OSError
            If it cannot be opened or read.
        """
        if not isinstance(source, (str, os.PathLike)):
            raise UnsupportedFormatError(
                "an MLflow store is read by its path", value=type(source).__name__
            )
        path = Path(source)
        unread: list[str] = []
        points = _from_folder(path, unread) if path.is_dir() else _from_database(path)
        table = _table(str(path), list(points))
        table.unread += unread
        return assemble(table)

    def validate_schema(self, data: Any) -> bool:
        """Return whether `data` is the path of a database or of a run's folder."""
        if not isinstance(data, (str, os.PathLike)):
            return False
        path = Path(data)
        if path.is_dir():
            return is_run_folder(path)
        try:
            with _opened(path) as base:
                return _has_metrics(base)
        except (OSError, IngestionError, sqlite3.Error):
            return False

    def sniff(self, head: bytes, name: str) -> float:  # noqa: ARG002 - content decides
        """Return 1 for an SQLite file whose head speaks of MLflow's metrics, 0.1 for any other.

        The schema may begin anywhere in the file: `validate_schema` looks at it.
        """
        if not head.startswith(_MAGIC):
            return 0.0
        return 1.0 if b"latest_metrics" in head else 0.1


def is_run_folder(path: Path) -> bool:
    """Return whether a folder is one run of an MLflow file store."""
    return (path / "meta.yaml").is_file() and (path / "metrics").is_dir()


def _restored(value: float) -> float:
    return float(np.copysign(np.inf, value)) if abs(value) >= _LARGEST else value


def _opened(path: Path) -> closing[sqlite3.Connection]:
    """Open a database for reading only."""
    with path.open("rb") as file:  # so that a missing file is an OSError with its name
        if not file.read(len(_MAGIC)).startswith(_MAGIC):
            raise UnsupportedFormatError("no SQLite database", source=str(path))
    return closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True))


def _has_metrics(base: sqlite3.Connection) -> bool:
    found = base.execute(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('metrics', 'runs')"
    )
    return bool(found.fetchone()[0] == 2)


def _from_database(path: Path) -> Iterator[Point]:
    try:
        with _opened(path) as base:
            if not _has_metrics(base):
                raise UnsupportedFormatError(
                    "an SQLite database without the metrics of MLflow", source=str(path)
                )
            names = dict(base.execute("SELECT run_uuid, name FROM runs"))
            taken = list(names.values())
            # Two runs may bear one name: then their identifiers tell them apart.
            shown = {u: n if n and taken.count(n) == 1 else u for u, n in names.items()}
            for run, key, value, time, step, is_nan in base.execute(_QUERY):
                number = np.nan if is_nan else _restored(float(value))
                name = shown.get(run, run) if len(names) > 1 else ""
                yield name, key, number, float(time), _step(step)
    except IngestionError:
        raise
    except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
        raise SchemaError(f"no readable table of metrics: {error}", source=str(path)) from error


def _from_folder(path: Path, unread: list[str]) -> Iterator[Point]:
    if not is_run_folder(path):
        raise UnsupportedFormatError("no run of an MLflow file store", source=str(path))
    root = path / "metrics"
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            file = Path(folder, name)
            key = file.relative_to(root).as_posix()
            bad: list[int] = []
            for line, text in enumerate(_lines(file), 1):
                parts = text.split()
                if not parts:
                    continue
                try:
                    time, value = float(parts[0]), float(parts[1])
                    step = _step(parts[2]) if len(parts) > 2 else 0
                except (ValueError, IndexError):
                    bad.append(line)
                    continue
                yield "", key, _restored(value), time, step
            if bad:
                shown = ", ".join(map(str, bad[:_SHOWN]))
                unread.append(
                    f"{file}: {counted(len(bad), 'line')} that are no 'time value step', "
                    f"first on line {shown}"
                )


def _step(given: Any) -> int:
    """Return a step; ValueError where it does not fit 64 bits."""
    step = int(given)
    if not -(1 << 63) <= step < 1 << 63:
        raise ValueError(f"a step beyond 64 bits: {step}")
    return step


def _lines(file: Path) -> Iterable[str]:
    with file.open(encoding="utf-8", errors="replace") as opened:
        yield from opened


def _table(name: str, points: list[Point]) -> Table:
    """Return the points as a table in long form."""
    runs, keys, values, times, steps = zip(*points, strict=True) if points else [()] * 5
    columns = {
        "key": Column(_texts(keys)),
        "value": Column(np.array(values, np.float64)),
        "timestamp": Column(np.array(times, np.float64)),
        "step": Column(np.array(steps, np.int64)),
    }
    roles = {
        "long_name": "key",
        "long_value": "value",
        "timestamp": "timestamp",
        "step": "step",
    }
    if any(runs):
        columns["run"] = Column(_texts(runs))
        roles["run"] = "run"
    return Table(name, len(points), columns, metadata={"format": "mlflow"}, roles=roles)


def _texts(cells: Iterable[str]) -> Any:
    held = list(cells)
    out = np.empty(len(held), dtype=object)
    out[:] = held
    return out
