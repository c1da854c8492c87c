"""A numeric feature: exact counts of all rows, a sample for the rest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import SchemaError
from ..kernels import NumberSample, bin_counts, quantile_cuts, tensor_stats
from ._columns import Array

__all__ = ["NumberFeature"]

BINS = 32
_POINTS = 513  # order statistics in a saved profile


class NumberFeature:
    """What is known of the numbers of one feature on one side.

    Counts of rows, of missing and infinite ones, extremes and moments are exact;
    so are the counts between the `cuts`, which are quantiles of the reference.

    Parameters
    ----------
    kind : str
        ``numeric``, or ``text`` where the numbers are lengths.
    cuts : float64 [k], optional
        The reference's; taken from the first rows where there are none.
    """

    def __init__(self, kind: str = "numeric", cuts: npt.NDArray[np.float64] | None = None) -> None:
        self.kind = kind
        self.cuts = cuts
        self.count = self.missing = self.infinite = 0
        self.mean = self.deviations = 0.0
        self.min, self.max = math.inf, -math.inf
        self.counts = np.zeros(0 if cuts is None else len(cuts) + 1, np.uint64)
        self.sample: npt.NDArray[np.float64] = np.empty(0)
        self.stands_for: int | None = None

    def add(self, values: Array, stay: npt.NDArray[np.int64], new: npt.NDArray[np.int64]) -> None:
        """Take the next rows; `stay` and `new` say which are kept, see `RowSampler.add`."""
        self.sample = np.concatenate([self.sample[stay], values[new].astype(np.float64)])
        self.count += len(values)
        if not len(values):
            return
        stats = tensor_stats(values)
        self.missing += stats.nan
        self.infinite += stats.posinf + stats.neginf
        finite = stats.size - stats.nan - stats.posinf - stats.neginf
        if self.cuts is None:
            kept = self.sample[np.isfinite(self.sample)]
            if not len(kept):
                return  # nothing to place a cut by yet; these rows held no number
            self.cuts = quantile_cuts(kept, BINS)
            self.counts = np.zeros(len(self.cuts) + 1, np.uint64)
        if not finite:
            return
        self.counts += bin_counts(values, self.cuts)[:-3]
        before = int(self.counts.sum()) - finite
        gap = stats.mean - self.mean
        total = before + finite
        # Chan, Golub and LeVeque's pairwise update (1979).
        self.deviations += stats.std**2 * finite + gap * gap * before * finite / total
        self.mean += gap * finite / total
        self.min, self.max = min(self.min, stats.min), max(self.max, stats.max)

    def side(self) -> NumberSample:
        """Return what a comparison takes."""
        finite = np.sort(self.sample[np.isfinite(self.sample)])
        counts = self.counts if self.cuts is not None else None
        return NumberSample(
            finite, self.count, self.missing, self.infinite, counts, self.stands_for
        )

    def facts(self, of_sample: dict[str, float] | None = None) -> dict[str, float]:
        """Return what is worth showing: exact where it can be.

        Parameters
        ----------
        of_sample : dict, optional
            What ``side().facts()`` is, where a comparison has found it already.
        """
        found = self.side().facts() if of_sample is None else dict(of_sample)
        finite = self.count - self.missing - self.infinite
        if finite:
            found |= {
                "min": self.min, "max": self.max, "mean": self.mean,
                "std": math.sqrt(max(self.deviations, 0.0) / finite),
            }  # fmt: skip
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms: a few kilobytes."""
        finite = np.sort(self.sample[np.isfinite(self.sample)])
        size = self.stands_for or len(finite)
        if len(finite) > _POINTS:
            # Real values, not interpolated ones: a grid that they lie on stays visible.
            finite = finite[np.linspace(0, len(finite) - 1, _POINTS).round().astype(np.int64)]
        has = self.count > self.missing + self.infinite
        return {
            "type": self.kind, "count": self.count, "missing": self.missing,
            "infinite": self.infinite, "mean": self.mean if has else None,
            "deviations": self.deviations, "min": self.min if has else None,
            "max": self.max if has else None, "values": finite.tolist(), "stands_for": size,
            "cuts": [] if self.cuts is None else self.cuts.tolist(),
            "counts": self.counts.tolist(),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, terms: dict[str, Any], name: str) -> NumberFeature:
        """Return the feature that `to_dict` wrote."""
        try:
            counts = np.array(terms["counts"], np.uint64)
            cuts = np.array(terms["cuts"], np.float64)
            found = cls(terms["type"], cuts if len(counts) else None)
            found.count, found.missing = int(terms["count"]), int(terms["missing"])
            found.infinite = int(terms["infinite"])
            if terms["mean"] is not None:
                found.mean, found.deviations = float(terms["mean"]), float(terms["deviations"])
                found.min, found.max = float(terms["min"]), float(terms["max"])
            found.counts = counts
            found.sample = np.array(terms["values"], np.float64)
            found.stands_for = int(terms["stands_for"])
        except (KeyError, TypeError, ValueError) as error:
            raise SchemaError(f"not a profile of numbers: {error!r}", column=name) from error
        if len(counts) and len(counts) != len(cuts) + 1:
            raise SchemaError(
                f"{len(cuts)} cuts make {len(cuts) + 1} bins, not {len(counts)}", column=name
            )
        return found
