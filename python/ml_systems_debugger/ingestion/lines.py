"""The lines of a metrics file where steps stand: what an annotation points at."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from ..core import canonical

__all__ = ["lines_of_steps"]

MAX_BYTES = 1 << 30
_DELIMITERS = ",\t;"


def lines_of_steps(path: str | os.PathLike[str], steps: Iterable[int]) -> dict[int, int]:
    """Return the line, from 1, where each step first stands in a CSV or JSONL file.

    Parameters
    ----------
    path : path
    steps : iterable of int

    Returns
    -------
    dict
        By step. Steps that are not found, files of other kinds, files beyond 1 GB and those
        that cannot be read any more are left out: a place is a service, not a result.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "m.csv"
    >>> _ = file.write_text("step,loss" + chr(10) + "10,2.5" + chr(10) + "20,nan" + chr(10))
    >>> lines_of_steps(file, [20, 30])
    {20: 3}
    """
    wanted = set(steps)
    found: dict[int, int] = {}
    if not wanted:
        return found
    try:
        place = Path(path)
        if not place.is_file() or place.stat().st_size > MAX_BYTES:
            return found
        with place.open(encoding="utf-8", errors="replace", newline="") as file:
            for step, line in _steps(file):
                if step in wanted:
                    wanted.remove(step)
                    found[step] = line
                    if not wanted:
                        break
    except (OSError, csv.Error):
        return found
    return found


def _steps(file: TextIO) -> Iterator[tuple[int, int]]:
    before = 0
    first = ""
    for first in file:
        if first.strip():
            break
        before += 1
    if first.lstrip().startswith("{"):
        return _of_json(chain([first], file), before)
    return _of_csv(first, file, before)


def _of_json(lines: Iterable[str], before: int) -> Iterator[tuple[int, int]]:
    key: str | None = None
    for number, line in enumerate(lines, before + 1):
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(row, dict):
            continue
        if key is None or key not in row:
            key = next((k for k in row if canonical(k).name == "step"), None)
        step = _whole(row.get(key)) if key is not None else None
        if step is not None:
            yield step, number


def _of_csv(first: str, file: TextIO, before: int) -> Iterator[tuple[int, int]]:
    delimiter = max(_DELIMITERS, key=first.count)
    header = next(csv.reader([first], delimiter=delimiter), [])
    at = next((i for i, name in enumerate(header) if canonical(name).name == "step"), None)
    if at is None:
        return
    reader = csv.reader(file, delimiter=delimiter)
    end = 0
    for row in reader:
        # A quoted cell may hold line ends: the row begins after the one before it.
        line, end = before + 2 + end, reader.line_num
        if at < len(row) and (step := _whole(row[at])) is not None:
            yield step, line


def _whole(value: Any) -> int | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() else None
