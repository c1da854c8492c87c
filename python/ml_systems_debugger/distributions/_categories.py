"""A categorical feature: counts of its categories, and what changed between two of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import SchemaError
from ..kernels import (
    Thresholds,
    homogeneity,
    two_proportions_p_value,
)
from ..kernels.significance import js_distance
from ._columns import Array

__all__ = ["CategoryComparison", "CategoryFeature", "compare_categories"]

_TRACKED = 10_000
_SAVED = 2_000
_SHOWN = 5


class CategoryFeature:
    """Counts of categories, at most ten thousand of them; the rest is counted together."""

    kind = "categorical"

    def __init__(self) -> None:
        self.count = self.missing = self.other = 0
        self.counts: Counter[str] = Counter()

    def add(self, values: Array, *_: Any) -> None:
        """Take the next rows: words, or None."""
        found = Counter(values.tolist())
        self.missing += found.pop(None, 0)
        self.count += len(values)
        for word, n in found.items():
            if word in self.counts or len(self.counts) < _TRACKED:
                self.counts[word] += n
            else:
                self.other += n

    def facts(self) -> dict[str, Any]:
        """Return what is worth showing."""
        top = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
        return {
            "count": self.count,
            "missing": self.missing / self.count if self.count else 0.0,
            "distinct": len(self.counts),
            "top": {word: n / self.count for word, n in top},
        }

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms; rare categories beyond two thousand are counted together."""
        kept = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:_SAVED]
        rest = sum(self.counts.values()) - sum(n for _, n in kept)
        return {
            "type": self.kind, "count": self.count, "missing": self.missing,
            "other": self.other + rest, "categories": dict(kept),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, terms: dict[str, Any], name: str) -> CategoryFeature:
        """Return the feature that `to_dict` wrote."""
        try:
            found = cls()
            found.count, found.missing = int(terms["count"]), int(terms["missing"])
            found.other = int(terms["other"])
            found.counts = Counter({str(k): int(n) for k, n in terms["categories"].items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SchemaError(f"not a profile of categories: {error!r}", column=name) from error
        return found


@dataclass(frozen=True, slots=True)
class CategoryComparison:
    """As `NumberComparison`, for categories."""

    p_value: float
    decisive_p: float
    effect: float
    kind: str
    statistic: float
    details: dict[str, Any]


def compare_categories(
    reference: CategoryFeature, serving: CategoryFeature, thresholds: Thresholds
) -> CategoryComparison:
    """Compare two sides: all categories at once, those never seen before, the missing.

    The first by Pearson's chi-square and the debiased Jensen-Shannon distance.
    Of rows with categories unseen in the reference as many are expected as it
    has categories seen once (Good and Turing's estimate, Biometrika 40, 1953);
    what goes beyond is judged.
    """
    words = sorted(reference.counts.keys() | serving.counts.keys())
    p = np.array([reference.counts[w] for w in words] + [reference.other], np.float64)
    q = np.array([serving.counts[w] for w in words] + [serving.other], np.float64)
    looks: list[tuple[str, float, float, bool, dict[str, Any]]] = []
    change = abs(serving.missing / serving.count - reference.missing / reference.count)
    p_missing = two_proportions_p_value(
        reference.missing, reference.count, serving.missing, serving.count
    )
    looks.append(("nulls", p_missing, change, change >= thresholds.share, {}))
    statistic = 0.0
    if p.sum() and q.sum():
        statistic, _, p_all = homogeneity(p, q)
        effect = js_distance(p, q)
        one = np.count_nonzero(q) == 1 < np.count_nonzero(p)
        kind = "constant" if one else "shape"
        looks.append((kind, p_all, effect, effect >= thresholds.effect, _moved(words, p, q)))
        looks.append(_unseen(reference, serving, thresholds))
    weight = len(looks)
    best = max(looks, key=lambda look: (look[3], look[0] in ("constant", "new_category"), look[2]))
    return CategoryComparison(
        min(1.0, weight * min(look[1] for look in looks)),
        min(1.0, weight * min((look[1] for look in looks if look[3]), default=1.0)),
        best[2], best[0], statistic, best[4],
    )  # fmt: skip


def _unseen(
    reference: CategoryFeature, serving: CategoryFeature, thresholds: Thresholds
) -> tuple[str, float, float, bool, dict[str, Any]]:
    known = sum(reference.counts.values()) + reference.other
    unseen = {w: n for w, n in serving.counts.items() if w not in reference.counts}
    rows = sum(unseen.values())
    # With categories beyond those tracked, any may have been among them.
    once = sum(1 for n in reference.counts.values() if n == 1) + reference.other
    share, expected = rows / serving.count, once / known
    p = two_proportions_p_value(once, known, rows, serving.count) if share > expected else 1.0
    effect = max(share - expected, 0.0)
    top = sorted(unseen.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
    details = {"categories": [word for word, _ in top], "share": share}
    return "new_category", p, effect, effect >= min(thresholds.share, 0.01), details


def _moved(words: list[str], p: Any, q: Any) -> dict[str, Any]:
    gained = q / q.sum() - p / p.sum()
    if not words:
        return {}
    at = int(np.argmax(np.abs(gained[:-1])))
    return {"category": words[at], "change": float(gained[at])}
