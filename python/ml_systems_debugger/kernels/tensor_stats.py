"""Every statistic of a tensor in one pass, mergeable over blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core import (
    BLOCK,
    PIECE,
    TensorStats,
    combine_rows,
    measure_file,
    measure_spans,
    tensor_stats,
)
from .._core import tensor_stats_many as _many

__all__ = [
    "BLOCK",
    "PIECE",
    "ROW_DTYPE",
    "SPAN_DTYPE",
    "STATS_DTYPE",
    "TensorStats",
    "combine_rows",
    "measure_file",
    "measure_spans",
    "tensor_stats",
    "tensor_stats_many",
]

SPAN_DTYPE = np.dtype(
    [("offset", np.int64), ("count", np.int64), ("start", np.int64), ("dtype", np.int64)]
)
"""A span for `measure_spans`: byte offset into the buffer, number of elements
(at most `BLOCK`), byte place in the whole tensor, number of the dtype."""

ROW_DTYPE = np.dtype(
    [(name, np.uint64) for name in ("nan", "posinf", "neginf", "zero", "subnormal")]
    + [
        (name, np.float64)
        for name in (
            "min",
            "max",
            "abs_sum",
            "mean",
            "squares_scale",
            "squares_sum",
            "deviations_scale",
            "deviations_sum",
        )
    ]
    + [("first_nonfinite", np.int64), ("digest", np.uint64), ("count", np.int64)]
)
"""What `measure_spans` writes for a span; `first_nonfinite` is -1 for none."""

STATS_DTYPE = np.dtype(
    [(name, np.uint64) for name in ("size", "nan", "posinf", "neginf", "zero", "subnormal")]
    + [(name, np.float64) for name in ("min", "max", "absmax", "mean", "std", "l1", "l2")]
    + [("digest", np.uint64)]
)
"""One row of `tensor_stats_many`."""


def tensor_stats_many(
    xs: Sequence[Any], out: npt.NDArray[np.void] | None = None, *, digest: bool = False
) -> npt.NDArray[np.void]:
    """Return one row of statistics per tensor, all tensors in one call.

    Parameters
    ----------
    xs : sequence of arrays
        Of any shapes and mixed dtypes; the work is split evenly over threads
        whatever their sizes.
    out : structured array [len(xs)] of STATS_DTYPE, optional
        Written to instead of a new one.
    digest : bool
        Whether to fill the column ``digest`` too (zeros otherwise).

    Returns
    -------
    structured array [len(xs)] of STATS_DTYPE
        Statistics are over the finite values; NaN where there is none.
    """
    if out is None:
        out = np.zeros(len(xs), STATS_DTYPE)
    elif out.dtype != STATS_DTYPE or out.shape != (len(xs),) or not out.flags.c_contiguous:
        raise ValueError(
            f"out: a dense array of STATS_DTYPE of shape ({len(xs)},) is needed, "
            f"got {out.dtype} of shape {out.shape}"
        )
    _many(xs, out.view(np.uint8), digest=digest)
    return out
