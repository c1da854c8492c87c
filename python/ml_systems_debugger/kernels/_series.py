"""What the folds over series share: arrays in, states, checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._core import FOLD_EVENT, MAX_WINDOW
from ..core.errors import ConfigurationError
from ..core.parameters import check_count

__all__ = [
    "EVENT_DTYPE",
    "Events",
    "Floats",
    "check_batches",
    "column_state",
    "floats",
    "int_steps",
]

Floats = npt.NDArray[np.float64]
Events = npt.NDArray[np.void]

EVENT_DTYPE: np.dtype[np.void] = FOLD_EVENT
"""One row per run or alarm: ``series`` (column), ``step`` (when it was decided), ``first`` and
``last`` step, ``peak_step``, ``count`` (values in it), ``direction`` (1 up, -1 down),
``statistic`` (the largest z, or the CUSUM) and ``value`` (the measurement there)."""


def floats(values: npt.ArrayLike) -> Floats:
    """Return `values` as float64, without a copy where they are."""
    return np.asarray(values, dtype=np.float64)


def int_steps(steps: npt.ArrayLike | None) -> npt.NDArray[np.int64] | None:
    """Return `steps` as contiguous int64, without a copy where they are."""
    return None if steps is None else np.ascontiguousarray(steps, dtype=np.int64)


def column_state(series: int, width: int) -> Floats:
    """Return the fresh state of `series` series: zeros."""
    if series < 0:
        raise ValueError(f"series is a count, got {series!r}")
    return np.zeros((series, width))


def check_batches(window: int, batch: int) -> None:
    """Raise unless `window` and `batch` are what the kernels take."""
    check_count(2, window=window)
    check_count(1, batch=batch)
    if window > MAX_WINDOW:
        raise ConfigurationError(f"window is at most {MAX_WINDOW}, got {window!r}")
    if batch > window:
        raise ConfigurationError(f"batch is at most window ({window}), got {batch!r}")


def decay_of(alpha: float | None, span: float | None) -> float:
    """Return the weight of the newest value, from itself or from a span of values."""
    if (alpha is None) == (span is None):
        raise ConfigurationError(f"give one of alpha and span, got {alpha!r} and {span!r}")
    found: Any = alpha if span is None else 2.0 / (span + 1.0)
    if not 0 < found <= 1:
        raise ConfigurationError(f"alpha lies in (0, 1] and span is at least 1, got {found!r}")
    return float(found)
