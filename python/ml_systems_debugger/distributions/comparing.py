"""`compare_distributions`: which features of two tables differ, how much, how surely, and how."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..core import Severity, check_count, check_fraction, check_positive
from ..kernels import (
    Thresholds,
    benjamini_hochberg,
    compare_numbers,
    get_num_threads,
)
from ._categories import CategoryFeature, compare_categories
from ._numbers import NumberFeature
from ._swapped import swapped
from ._vectors import VectorFeature, compare_vectors
from .profile import Feature, Profile
from .report import FeatureComparison, SkewReport

__all__ = ["compare_distributions"]

_SHARES = frozenset({"nulls", "nonfinite", "clipped", "default_value", "new_category"})
_HIGH_SHARE = 0.1
_LOW_STEP = 0.05


def compare_distributions(
    reference: Any,
    serving: Any,
    *,
    q: float = 0.01,
    effect: float = 0.1,
    high_effect: float = 0.5,
    min_rows: int = 50,
    categorical: Collection[str] = (),
) -> SkewReport:
    """Compare the features of two tables.

    Parameters
    ----------
    reference, serving : table
        A mapping of columns, an array, a frame, a path (CSV, Parquet, Arrow,
        npy, npz), an iterator of chunks of any of these, or a `Profile` (also
        as the path of a saved one).
    q : float
        False-discovery rate over the features (Benjamini and Hochberg).
    effect : float
        What counts as large, in robust standard deviations (W1 over IQR / 1.349)
        or as Jensen-Shannon distance less its null bias. Shares of rows, that
        are missing or turned into one value, count from 0.02.
    high_effect : float
        From here on the severity is high; of shares from 0.1.
    min_rows : int
        Rows on each side below which nothing is said.
    categorical : collection of str
        Features whose numbers are names of categories.

    Returns
    -------
    SkewReport
        A feature is skewed where it is both sure and large: significance alone
        flags a hundredth of a deviation at a million rows, size alone flags
        noise at three hundred.

    Raises
    ------
    SchemaError, UnsupportedFormatError, MissingDependencyError
        As `read_chunks`.
    ConfigurationError
        If a parameter makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> train = {"height_m": rng.normal(1.7, 0.1, 3000), "plan": rng.choice(["a", "b"], 3000)}
    >>> serve = {"height_m": rng.normal(170, 10, 3000), "plan": rng.choice(["a", "b"], 3000)}
    >>> report = compare_distributions(train, serve)
    >>> report.status, [(one.name, one.kind) for one in report.skewed]
    ('skewed', [('height_m', 'unit_change')])
    """
    check_fraction(q=q)
    check_positive(effect=effect, high_effect=high_effect)
    check_count(2, min_rows=min_rows)
    a = Profile.of(reference, categorical=categorical)
    b = Profile.of(serving, against=a, categorical=categorical)
    limits = Thresholds(effect=effect)
    shared = [name for name in a.features if name in b.features]
    judged: list[str] = []
    short: list[str] = []
    for name in shared:
        fewest = min(a.features[name].count, b.features[name].count)
        same = _retyped(a.features[name], b.features[name]) is None
        (judged if fewest >= min_rows and same else short).append(name)
    with ThreadPoolExecutor(get_num_threads()) as pool:
        found = list(
            pool.map(lambda name: _compare(a.features[name], b.features[name], limits), judged)
        )
    sure = benjamini_hochberg([one.decisive_p for one in found], q) if found else []
    rows = [
        _verdict(name, a.features[name], b.features[name], one, known, high_effect)
        for name, one, known in zip(judged, found, sure, strict=True)
    ]
    rows = swapped(rows, a, b, effect)
    rows += [_unjudged(name, a.features[name], b.features[name], min_rows) for name in short]
    if min(a.rows, b.rows) >= min_rows:
        rows += _one_sided(a, b)
    rows.sort(key=lambda one: (-_rank(one), one.name) if one.skewed else (1, ""))
    return SkewReport(
        tuple(rows),
        {
            "reference_rows": a.rows, "serving_rows": b.rows, "q": q, "effect": effect,
            "high_effect": high_effect, "min_rows": min_rows,
            "not_judged": [one.name for one in rows if one.kind == "insufficient_data"],
        },
    )  # fmt: skip


def _compare(a: Feature, b: Feature, limits: Thresholds) -> Any:
    if isinstance(a, NumberFeature) and isinstance(b, NumberFeature):
        return compare_numbers(a.side(), b.side(), limits)
    if isinstance(a, CategoryFeature) and isinstance(b, CategoryFeature):
        return compare_categories(a, b, limits)
    assert isinstance(a, VectorFeature)  # noqa: S101 - kinds are equal here
    assert isinstance(b, VectorFeature)  # noqa: S101
    return compare_vectors(a, b, limits)


def _retyped(a: Feature, b: Feature) -> dict[str, Any] | None:
    """Return what makes two features no features of one type; None where nothing does."""
    if a.kind != b.kind:
        return {"was": a.kind, "is": b.kind}
    if isinstance(a, VectorFeature) and isinstance(b, VectorFeature) and a.width != b.width:
        return {"reference_width": a.width, "serving_width": b.width}
    return None


def _verdict(
    name: str, a: Feature, b: Feature, found: Any, sure: bool, high_effect: float
) -> FeatureComparison:
    severity = _severity(found, high_effect) if sure else None
    if isinstance(a, NumberFeature) and isinstance(b, NumberFeature):
        sides = (a.facts(found.reference), b.facts(found.serving))
    else:
        sides = (a.facts(), b.facts())
    return FeatureComparison(
        name, a.kind, sure, found.kind if sure else "none", severity, found.effect,
        found.p_value, found.statistic, *sides, found.details if sure else {},
    )  # fmt: skip


def _severity(found: Any, high_effect: float) -> Severity:
    if found.kind == "constant":
        return Severity.HIGH
    if found.kind == "rounding":
        return Severity.LOW if found.effect < _LOW_STEP else Severity.MEDIUM
    least = _HIGH_SHARE if found.kind in _SHARES else high_effect
    return Severity.HIGH if found.effect >= least else Severity.MEDIUM


def _unjudged(name: str, a: Feature, b: Feature, min_rows: int) -> FeatureComparison:
    retyped = _retyped(a, b)
    if retyped and min(a.count, b.count) >= min_rows:
        return FeatureComparison(
            name, a.kind, True, "retyped", Severity.HIGH, 1.0, 0.0, 0.0, a.facts(), b.facts(),
            retyped,
        )  # fmt: skip
    return FeatureComparison(
        name, a.kind, False, "insufficient_data", reference=a.facts(), serving=b.facts()
    )


def _one_sided(a: Profile, b: Profile) -> Iterator[FeatureComparison]:
    """Yield features of one side: skewed where the model was trained on it and gets it not."""
    for name, one in a.features.items():
        if name not in b.features:
            yield FeatureComparison(
                name, one.kind, True, "missing_column", Severity.HIGH, 1.0, 0.0, 0.0, one.facts()
            )
    for name, one in b.features.items():
        if name not in a.features:
            yield FeatureComparison(name, one.kind, False, "added_column", serving=one.facts())


def _rank(one: FeatureComparison) -> float:
    rank = 0 if one.severity is None else one.severity.rank
    return rank * 1e9 + min(one.effect_size, 1e8)
