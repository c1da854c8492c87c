"""A vector feature, such as an embedding: its norms, its directions, its coordinates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import SchemaError
from ..kernels import NumberSample, Thresholds, compare_numbers
from ._categories import CategoryComparison
from ._columns import Array
from ._rows import RowSampler

__all__ = ["VectorFeature", "compare_vectors"]

_ROWS = 2048
_DIRECTIONS = 16
_POINTS = 513

Floats = npt.NDArray[np.float64]


class VectorFeature:
    """A sample of at most 2,048 rows of vectors, and how many rows were missing or not finite."""

    kind = "embedding"

    def __init__(self) -> None:
        self.count = self.missing = self.infinite = 0
        self.width: int | None = None
        self._sampler = RowSampler(_ROWS)
        self._sample: npt.NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._saved: dict[str, Any] | None = None

    def add(self, values: Array, *_: Any) -> None:
        """Take the next rows [n, d]."""
        if self.width is None:
            self.width = values.shape[1]
            self._sample = np.empty((0, self.width), np.float32)
        elif values.shape[1] != self.width:
            raise SchemaError(f"vectors of {self.width} numbers, then of {values.shape[1]}")
        stay, new = self._sampler.add(len(values))
        self._sample = np.concatenate([self._sample[stay], values[new]])
        self.count += len(values)
        lost = np.isnan(values).any(axis=1)
        self.missing += int(lost.sum())
        self.infinite += int((np.isinf(values).any(axis=1) & ~lost).sum())

    def looks(self) -> dict[str, Any]:
        """Return norms and projections [<= 2048] sorted, and mean and deviation per coordinate."""
        if self._saved is not None:
            return self._saved
        rows = self._sample[np.isfinite(self._sample).all(axis=1)].astype(np.float64)
        width = self.width or 0
        # Random directions: the sliced Wasserstein distance (Rabin et al., SSVM 2011).
        directions = np.random.default_rng(width).normal(size=(width, _DIRECTIONS))
        directions /= np.linalg.norm(directions, axis=0) if width else 1.0
        projected = rows @ directions
        lines = {"norm": np.sort(np.linalg.norm(rows, axis=1))}
        lines |= {f"direction_{k}": np.sort(projected[:, k]) for k in range(_DIRECTIONS)}
        return {
            "rows": len(rows), "lines": lines,
            "mean": rows.mean(axis=0) if len(rows) else np.zeros(width),
            "std": rows.std(axis=0) if len(rows) else np.zeros(width),
        }  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """Return what is worth showing."""
        norms = self.looks()["lines"]["norm"]
        found: dict[str, Any] = {
            "count": self.count,
            "missing": self.missing / self.count if self.count else 0.0,
            "width": self.width,
        }
        if len(norms):
            found["median_norm"] = float(np.median(norms))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms."""
        looks = self.looks()
        thin = {}
        for name, line in looks["lines"].items():
            at = np.linspace(0, len(line) - 1, min(len(line), _POINTS)).round().astype(np.int64)
            thin[name] = line[at].tolist()
        return {
            "type": self.kind, "count": self.count, "missing": self.missing,
            "infinite": self.infinite, "width": self.width, "rows": looks["rows"],
            "lines": thin, "mean": looks["mean"].tolist(), "std": looks["std"].tolist(),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, terms: dict[str, Any], name: str) -> VectorFeature:
        """Return the feature that `to_dict` wrote."""
        try:
            found = cls()
            found.count, found.missing = int(terms["count"]), int(terms["missing"])
            found.infinite, found.width = int(terms["infinite"]), terms["width"]
            found._saved = {
                "rows": int(terms["rows"]),
                "lines": {k: np.array(v, np.float64) for k, v in terms["lines"].items()},
                "mean": np.array(terms["mean"], np.float64),
                "std": np.array(terms["std"], np.float64),
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SchemaError(f"not a profile of vectors: {error!r}", column=name) from error
        return found


def compare_vectors(
    reference: VectorFeature, serving: VectorFeature, thresholds: Thresholds
) -> CategoryComparison:
    """Compare norms and random directions as numbers, and every coordinate's mean by z."""
    a, b = reference.looks(), serving.looks()
    looks = []
    for name, line in a["lines"].items():
        sides = [
            NumberSample(x, side.count, side.missing, side.infinite, None, rows)
            for x, side, rows in (
                (line, reference, a["rows"]),
                (b["lines"][name], serving, b["rows"]),
            )
        ]
        found = compare_numbers(sides[0], sides[1], thresholds)
        looks.append((found.decisive_p, found.p_value, found.effect, found.kind, name))
    if a["rows"] > 1 and b["rows"] > 1:
        looks.append(_coordinates(a, b, thresholds))
    weight = len(looks)
    best = min(looks, key=lambda look: (look[0], -look[2]))
    return CategoryComparison(
        min(1.0, weight * min(look[1] for look in looks)), min(1.0, weight * best[0]),
        best[2], best[3], best[2], {"where": best[4]},
    )  # fmt: skip


def _coordinates(
    a: dict[str, Any], b: dict[str, Any], thresholds: Thresholds
) -> tuple[float, float, float, str, str]:
    noise = np.sqrt(a["std"] ** 2 / a["rows"] + b["std"] ** 2 / b["rows"])
    gaps = np.abs(a["mean"] - b["mean"])
    z = np.divide(gaps, noise, out=np.where(gaps > 0, np.inf, 0.0), where=noise > 0)
    at = int(np.argmax(z))
    p = min(1.0, len(z) * math.erfc(min(float(z[at]), 38.0) / math.sqrt(2)))
    effect = float(gaps[at] / a["std"][at]) if a["std"][at] > 0 else math.inf * (gaps[at] > 0)
    effect = 0.0 if math.isnan(effect) else effect
    large = effect >= thresholds.effect
    return (p if large else 1.0), p, effect, "shift", f"coordinate_{at}"
