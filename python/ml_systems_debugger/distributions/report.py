"""`SkewReport`: what differs between two tables of features."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core import Severity, freeze, to_jsonable
from ..core.frozen import FrozenDict

__all__ = ["SCHEMA_VERSION", "FeatureComparison", "SkewReport"]

SCHEMA_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class FeatureComparison:
    """One feature on both sides.

    Parameters
    ----------
    name, type : str
        Type is numeric, categorical, text or embedding.
    skewed : bool
        Sure and large; see `compare_distributions`.
    kind : str
        The change that explains it best; ``none`` where the feature is the same,
        ``insufficient_data`` where it could not be judged.
    severity : Severity, optional
        None where it is not skewed.
    effect_size : float
        In the unit of the kind: robust scales, or a share of rows.
    p_value : float, optional
        Of all looks at this feature together, before the correction over features.
    statistic : float
        Kolmogorov-Smirnov's distance of numbers, Pearson's chi-square of categories.
    reference, serving : mapping
        Count, missing share, and what describes the values.
    details : mapping
        Numbers of the kind: ``factor``, ``offset``, ``value``, ``step``, ``with``.
    """

    name: str
    type: str
    skewed: bool
    kind: str
    severity: Severity | None = None
    effect_size: float = 0.0
    p_value: float | None = None
    statistic: float = 0.0
    reference: Mapping[str, Any] = field(default_factory=FrozenDict)
    serving: Mapping[str, Any] = field(default_factory=FrozenDict)
    details: Mapping[str, Any] = field(default_factory=FrozenDict)

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("reference", "serving", "details"):
            put(self, name, freeze(getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms."""
        terms = {
            "name": self.name, "type": self.type, "skewed": self.skewed, "kind": self.kind,
            "severity": None if self.severity is None else self.severity.value,
            "effect_size": self.effect_size, "p_value": self.p_value,
            "statistic": self.statistic, "reference": dict(self.reference),
            "serving": dict(self.serving),
        }  # fmt: skip
        if self.details:
            terms["details"] = dict(self.details)
        found: dict[str, Any] = to_jsonable(terms)
        return found

    def __str__(self) -> str:
        if not self.skewed:
            return f"{self.name}: {self.kind.replace('_', ' ') if self.kind != 'none' else 'same'}"
        told = [f"{self.name}: {self.kind.replace('_', ' ')}{_told(self.details)}"]
        if math.isfinite(self.effect_size) and self.p_value is not None:
            told.append(f"effect {self.effect_size:.3g}, p {self.p_value:.1e}")
        sides = [_side(side) for side in (self.reference, self.serving)]
        if all(sides):
            told.append(f"{sides[0]} -> {sides[1]}")
        return "; ".join(told)


@dataclass(frozen=True, slots=True)
class SkewReport:
    """All features of two tables.

    Parameters
    ----------
    features : tuple of FeatureComparison
        The skewed ones first, worst first.
    metadata : mapping
        Rows on both sides, parameters, features that could not be judged.
    """

    features: tuple[FeatureComparison, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=FrozenDict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        object.__setattr__(self, "metadata", freeze(self.metadata))

    @property
    def skewed(self) -> tuple[FeatureComparison, ...]:
        """The features that differ."""
        return tuple(one for one in self.features if one.skewed)

    @property
    def status(self) -> str:
        """``skewed``, ``same``, or ``insufficient_data`` where nothing could be judged."""
        if self.skewed:
            return "skewed"
        judged = any(one.kind != "insufficient_data" for one in self.features)
        return "same" if judged else "insufficient_data"

    @property
    def worst_severity(self) -> Severity | None:
        """Severity of the worst feature, or None."""
        found = [one.severity for one in self.features if one.severity is not None]
        return max(found, key=lambda severity: severity.rank, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms."""
        return {
            "schema_version": SCHEMA_VERSION,
            "status": self.status,
            "features": [one.to_dict() for one in self.features],
            "metadata": to_jsonable(self.metadata),
        }

    def to_json(self, indent: int | None = 2) -> str:
        """Return the report as strict JSON (no NaN token)."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)


def _told(details: Mapping[str, Any]) -> str:
    words = []
    for key, value in details.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        if isinstance(value, (list, tuple)):
            shown = ", ".join(repr(v) for v in value)
        words.append(f"{key} {shown}")
    return f" ({', '.join(words)})" if words else ""


def _side(side: Mapping[str, Any]) -> str:
    if "median" in side:
        told = f"median {side['median']:.4g}"
        if "iqr" in side:
            told += f" (iqr {side['iqr']:.3g})"
    elif "median_norm" in side:
        told = f"median norm {side['median_norm']:.4g}"
    elif "top" in side:
        told = ", ".join(f"{word} {share:.0%}" for word, share in list(side["top"].items())[:3])
    else:
        told = f"{side.get('count', 0)} rows"
    if side.get("missing"):
        told += f", {side['missing']:.1%} missing"
    return told
