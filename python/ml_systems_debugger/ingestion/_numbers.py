"""Cells of text as float64: what is a number, what is nothing, what is neither."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Cells", "is_number", "parse_cells", "parse_number", "with_odd_cells"]

_NOT_LOGGED = frozenset({"", "na", "n/a", "null", "none", "<na>", "-", "--"})
_WORDS = {
    "true": 1.0,
    "false": 0.0,
    # What the C runtime of Windows printed for years.
    "1.#inf": math.inf,
    "-1.#inf": -math.inf,
    "1.#qnan": math.nan,
    "-1.#ind": math.nan,
}
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?([eE][-+]?\d+)?")

Cells = tuple[npt.NDArray[np.float64], "npt.NDArray[np.int64] | None", list[tuple[int, str]]]
"""Values, the positions they stand at (None for every one), and the bad cells."""


def parse_number(text: str) -> float | None:
    """Return `text` as a float, or None where it says "not logged".

    ``nan``, ``inf``, ``Infinity`` with either sign and in any case are floats;
    an empty cell, ``null``, ``None``, ``NA`` and a dash are not logged.

    Raises
    ------
    ValueError
        For any other text.

    Examples
    --------
    >>> parse_number(" 1e-3 "), parse_number("-Infinity"), parse_number("")
    (0.001, -inf, None)
    """
    stripped = text.strip()
    if "_" not in stripped:  # float() takes 1_000 for a thousand; no logger writes that
        try:
            return float(stripped)
        except ValueError:
            pass
    folded = stripped.lower()
    if folded in _NOT_LOGGED:
        return None
    if folded in _WORDS:
        return _WORDS[folded]
    if _THOUSANDS.fullmatch(stripped):
        return float(stripped.replace(",", ""))
    raise ValueError(f"{text!r} is no number")


def is_number(text: str) -> bool:
    """Return whether `text` is a number; an empty cell is none."""
    try:
        return parse_number(text) is not None
    except ValueError:
        return False


def parse_cells(cells: Sequence[str]) -> Cells:
    """Parse one column of text.

    Returns
    -------
    values : float64 [m]
    rows : int64 [m] or None
        Where in `cells` the values stand; None where every cell has one.
    bad : list of (int, str)
        Position and text of the cells that are neither a number nor empty.
    """
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return _parse_sparse(cells)
    if any("_" in cell for cell in cells):
        return _parse_each(cells)
    return values, None, []


def _parse_sparse(cells: Sequence[str]) -> Cells:
    rows = [at for at, cell in enumerate(cells) if cell]
    try:
        values = np.fromiter((float(cells[at]) for at in rows), np.float64, len(rows))
    except ValueError:
        return _parse_each(cells)
    if any("_" in cells[at] for at in rows):
        return _parse_each(cells)
    return values, np.array(rows, np.int64), []


def _parse_each(cells: Sequence[str]) -> Cells:
    rows: list[int] = []
    values: list[float] = []
    bad: list[tuple[int, str]] = []
    for at, cell in enumerate(cells):
        try:
            value = parse_number(cell)
        except ValueError:
            bad.append((at, cell))
            continue
        if value is not None:
            rows.append(at)
            values.append(value)
    every = len(rows) == len(cells)
    return np.array(values, np.float64), None if every else np.array(rows, np.int64), bad


def with_odd_cells(
    values: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64] | None,
    odd: Sequence[tuple[int, str]],
) -> Cells:
    """Add to natively parsed numbers the cells that were left over: words and the unreadable.

    Parameters
    ----------
    values, rows : float64 [m], int64 [m] or None
        As `parse_cells` returns them; `rows` must not be None where there are odd cells.
    odd : sequence of (int, str)
        Row and text.
    """
    if not odd or rows is None:
        return values, rows, []
    more_rows: list[int] = []
    more: list[float] = []
    bad: list[tuple[int, str]] = []
    for row, text in odd:
        try:
            value = parse_number(text)
        except ValueError:
            bad.append((row, text))
            continue
        if value is not None:
            more_rows.append(row)
            more.append(value)
    if more:
        rows = np.concatenate([rows, np.array(more_rows, np.int64)])
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        values = np.concatenate([values, np.array(more)])[order]
    return values, rows, bad
