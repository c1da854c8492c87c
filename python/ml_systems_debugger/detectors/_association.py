"""How much one column tells of another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..kernels import quantile_cuts

__all__ = ["Association", "association", "shared_rows"]

_BINS = (32, 256)  # few rows, many
_MOST_CLASSES = 50
_LEAST_OF_A_CLASS = 10
_MOST_WORDS = 0.1  # distinct words per row beyond which a column is an identifier


@dataclass(frozen=True, slots=True)
class Association:
    """What share of the label a feature explains, and by which measure."""

    explained: float
    measure: str


def association(feature: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Association | None:
    """Compare a column [n] with labels [n]; None where nothing can be said.

    Labels with at most 50 distinct values are classes, others numbers.
    """
    known = ~(_missing(feature) | _missing(labels))
    x, y = feature[known], labels[known]
    if len(x) < 2 * _LEAST_OF_A_CLASS:
        return None
    classes, label_codes = np.unique(
        y.astype(str) if y.dtype.kind == "O" else y, return_inverse=True
    )
    if len(classes) < 2:
        return None
    numbers = x.dtype.kind in "fiub"
    if len(classes) <= _MOST_CLASSES:
        sizes = np.sort(np.bincount(label_codes))
        if sizes[-2] < _LEAST_OF_A_CLASS:
            return None  # nearly every row has one label: anything tells it
        codes = _codes(x, numbers)
        if codes is None:
            return None
        return Association(_entropy_share(codes, label_codes), "share of the label's entropy")
    if not numbers or y.dtype.kind not in "fiu":
        return None
    a, b = _ranks(x.astype(np.float64)), _ranks(y.astype(np.float64))
    power = math.sqrt(float(a @ a) * float(b @ b))
    return Association(abs(float(a @ b)) / power if power else 0.0, "rank correlation")


def shared_rows(train: npt.NDArray[Any], test: npt.NDArray[Any]) -> int:
    """Return how many rows of `test` [m, k] equal a row of `train` [n, k], byte for byte."""
    kind = np.result_type(train, test)
    seen = {row.tobytes() for row in np.ascontiguousarray(train, kind)}
    return sum(row.tobytes() in seen for row in np.ascontiguousarray(test, kind))


def _missing(x: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if x.dtype.kind == "f":
        return np.asarray(np.isnan(x), np.bool_)
    if x.dtype.kind == "O":
        return np.array([v is None or v != v for v in x.tolist()], np.bool_)
    return np.zeros(len(x), np.bool_)


def _codes(x: npt.NDArray[Any], numbers: bool) -> npt.NDArray[np.int64] | None:
    values, codes = np.unique(x.astype(str) if x.dtype.kind == "O" else x, return_inverse=True)
    # The bin in which one class ends and the next begins tells nothing: it has to be small.
    bins = min(max(len(x) // 10, _BINS[0]), _BINS[1])
    if len(values) <= bins:
        return codes.astype(np.int64)
    if numbers:
        cuts = quantile_cuts(x.astype(np.float64), bins)
        return np.searchsorted(cuts, x.astype(np.float64), "right").astype(np.int64)
    return codes.astype(np.int64) if len(values) <= _MOST_WORDS * len(x) else None


def _entropy_share(x: npt.NDArray[np.int64], y: npt.NDArray[np.intp]) -> float:
    table = np.zeros((int(x.max()) + 1, int(y.max()) + 1))
    np.add.at(table, (x, y), 1.0)
    n = table.sum()
    joint, rows, columns = table / n, table.sum(1) / n, table.sum(0) / n
    inside = joint > 0
    information = float((joint[inside] * np.log((joint / np.outer(rows, columns))[inside])).sum())
    entropy = -float((columns[columns > 0] * np.log(columns[columns > 0])).sum())
    r, c = int(np.count_nonzero(rows)), int(np.count_nonzero(columns))
    # Miller's bias, at most what the occupied cells can make of it: a feature that tells
    # everything occupies one cell a row.
    used = min((r - 1) * (c - 1), max(int(np.count_nonzero(table)) - r - c + 1, 0))
    explained = (information - used / (2 * float(n))) / entropy
    return min(max(explained, 0.0), 1.0)


def _ranks(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return centred ranks, ties at their mean."""
    _, codes, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = (ends - (counts - 1) / 2)[codes]
    return ranks - float(ranks.mean())
