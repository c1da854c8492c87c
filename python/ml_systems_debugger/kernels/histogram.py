"""`histogram` and `bin_counts`: exact counts of every element of an array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core import bin_counts as _bin_counts
from ..core.errors import ConfigurationError
from ._series import Floats, floats
from .tensor_stats import tensor_stats

__all__ = ["Histogram", "bin_counts", "histogram", "quantile_cuts"]

Counts = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts of an array: `counts` uint64 [bins] between `edges` float64 [bins + 1].

    What is in no bin has counts of its own: `underflow` and `overflow` (finite
    values beyond the edges), `nan`, `posinf`, `neginf`. Histograms with equal
    edges add up: counts of parts are counts of the whole.
    """

    counts: Counts
    edges: Floats
    underflow: int
    overflow: int
    nan: int
    posinf: int
    neginf: int

    @property
    def size(self) -> int:
        """Elements counted, wherever."""
        beside = self.underflow + self.overflow + self.nan + self.posinf + self.neginf
        return int(self.counts.sum()) + beside

    def __add__(self, other: Histogram) -> Histogram:
        if not np.array_equal(self.edges, other.edges):
            raise ValueError("histograms of different edges do not add up")
        return Histogram(
            self.counts + other.counts, self.edges,
            self.underflow + other.underflow, self.overflow + other.overflow,
            self.nan + other.nan, self.posinf + other.posinf, self.neginf + other.neginf,
        )  # fmt: skip


def bin_counts(x: Any, cuts: npt.ArrayLike, *, dtype: str | None = None) -> Counts:
    """Count every element of `x` into the bins between `cuts`.

    Parameters
    ----------
    x : array
        Anything the kernels take; raw bytes with `dtype`.
    cuts : float64 [k]
        Finite and ascending; none for one bin.

    Returns
    -------
    uint64 [k + 4]
        Counts of the k + 1 bins: below the first cut, from each cut to below
        the next, from the last cut on; then of NaN, -infinity and +infinity.
        Exact, so counts of parts add up to those of the whole.

    Raises
    ------
    ValueError
        If `cuts` are not as said, or `x` is nothing that the kernels take.

    Examples
    --------
    >>> bin_counts([0.5, 1.0, 7.0, float("nan")], [0.0, 1.0]).tolist()
    [0, 1, 2, 1, 0, 0]
    """
    return _bin_counts(_array(x), floats(cuts), dtype)


def quantile_cuts(reference: npt.ArrayLike, bins: int) -> Floats:
    """Return cuts that give `bins` equally full bins of the finite values of `reference`.

    Fewer where values are tied: a bin that ties would leave empty is joined
    with its neighbour. For `bin_counts` of a reference and of what is compared.

    Examples
    --------
    >>> quantile_cuts([1.0, 2.0, 3.0, 4.0], 2)
    array([3.])
    """
    if bins < 1:
        raise ConfigurationError(f"bins is at least 1, got {bins!r}")
    values = floats(reference).ravel()
    values = np.sort(values[np.isfinite(values)])
    if not len(values):
        return np.empty(0)
    ranks = np.arange(1, bins) * len(values) // bins
    cuts: Floats = np.unique(values[ranks])
    # Nothing lies below the smallest value: as a cut it would make an empty bin.
    above: Floats = cuts[cuts > values[0]]
    return above


def histogram(
    x: Any,
    bins: int | npt.ArrayLike = 64,
    range: tuple[float, float] | None = None,  # noqa: A002 - the name NumPy gave it
    *,
    dtype: str | None = None,
) -> Histogram:
    """Return the histogram of an array, equal to `numpy.histogram` bin for bin.

    Bins are half-open, the last one closed; elements are compared with the
    edges themselves. Edges have the precision that NumPy gives them: that of a
    NumPy array of floats, else float64.

    Parameters
    ----------
    x : array
        Anything the kernels take, counted as a whole; raw bytes with `dtype`.
    bins : int or ascending float64 [bins + 1]
        How many of equal width, or their edges.
    range : (float, float), optional
        Of the bins, where `bins` is a count; by default from the smallest to
        the largest finite value.

    Raises
    ------
    ValueError
        If bins or range make no sense.

    Examples
    --------
    >>> found = histogram([1.0, 2.0, 2.5, 9.0, float("nan")], bins=2, range=(1, 3))
    >>> found.counts.tolist(), found.overflow, found.nan
    ([1, 2], 1, 1)
    """
    x = _array(x)
    if isinstance(bins, (int, np.integer)):
        kind = np.empty(0, x.dtype if _is_float(x) else np.float64)
        if range is None:
            stats = tensor_stats(x, dtype=dtype)
            range = (stats.min, stats.max) if np.isfinite(stats.min) else (0.0, 1.0)  # noqa: A001
        edges = np.histogram_bin_edges(kind, int(bins), range).astype(np.float64)
    else:
        edges = floats(bins)
        if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
            raise ValueError("bins: a count, or at least two ascending edges, is needed")
    if not (np.diff(edges) > 0).all():
        raise ValueError(
            f"bins: {len(edges) - 1} bins over {edges[0]!r} to {edges[-1]!r} are too narrow for "
            f"the precision of the values"
        )
    cuts = edges.copy()
    cuts[-1] = np.nextafter(cuts[-1], np.inf)  # the last bin is closed
    found = _bin_counts(x, cuts, dtype)
    outer = found[[0, -4, -3, -2, -1]].tolist()
    return Histogram(found[1:-4], edges, outer[0], outer[1], outer[2], outer[4], outer[3])


def _array(x: Any) -> Any:
    return np.asarray(x, dtype=np.float64) if isinstance(x, (list, tuple)) else x


def _is_float(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"
