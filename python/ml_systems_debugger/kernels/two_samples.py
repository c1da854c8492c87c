"""Two samples of one numeric feature: how far apart, how surely, in which way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ._change_kinds import kind_of, new_value, rounded_to
from .divergence import ks_p_value, ks_statistic
from .robust_scale import clipped_distance, robust_scale
from .significance import homogeneity, js_distance, two_proportions_p_value

__all__ = ["NumberComparison", "NumberSample", "Thresholds", "compare_numbers"]

Floats = npt.NDArray[np.float64]

_CERTAIN = 1e-300  # of what cannot happen by chance


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What is large, apart from what is sure.

    Parameters
    ----------
    effect : float
        W1 over the reference's robust scale, or the Jensen-Shannon distance
        (base 2, its null bias and two of its standard deviations subtracted).
    share : float
        Change of the share of rows that are missing, or that hold one value.
    nonfinite : float
        Change of the share of rows that are infinite.
    """

    effect: float = 0.1
    share: float = 0.02
    nonfinite: float = 0.001


@dataclass(frozen=True, slots=True, eq=False)
class NumberSample:
    """One side: a sample of the values, with what is known of all rows.

    Parameters
    ----------
    values : float64 [k]
        The finite values of the sample, ascending.
    count : int
        All rows, the missing ones too.
    missing, infinite : int
        Of all rows.
    counts : uint64 [bins], optional
        Exact counts of all finite values in bins that both sides share.
    stands_for : int, optional
        How many values `values` are evenly spaced order statistics of, where
        they are a profile rather than the sample itself.
    """

    values: Floats
    count: int
    missing: int = 0
    infinite: int = 0
    counts: npt.NDArray[np.uint64] | None = None
    stands_for: int | None = None

    @property
    def size(self) -> int:
        """Number of values that the sample speaks for."""
        return self.stands_for or len(self.values)

    @classmethod
    def of(cls, values: npt.ArrayLike) -> NumberSample:
        """Return the sample that is all of `values`; NaN counts as missing."""
        given = np.asarray(values, np.float64).ravel()
        finite = np.isfinite(given)
        missing = int(np.isnan(given).sum())
        kept = np.sort(given[finite])
        return cls(kept, len(given), missing, len(given) - len(kept) - missing)

    def facts(self) -> dict[str, float]:
        """Return what is worth showing of this side."""
        shares: dict[str, float] = {"count": self.count}
        shares["missing"] = self.missing / self.count if self.count else 0.0
        if self.infinite:
            shares["infinite"] = self.infinite / self.count
        if not len(self.values):
            return shares
        low, middle, high = np.quantile(self.values, (0.25, 0.5, 0.75)).tolist()
        return shares | {
            "median": middle, "iqr": high - low,
            "min": float(self.values[0]), "max": float(self.values[-1]),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class NumberComparison:
    """What two samples say of one feature.

    ``p_value`` is of all looks together (Bonferroni); ``decisive_p`` of those
    alone whose effect is large, 1 where none is: what a correction over many
    features takes. ``details`` holds the numbers of the kind (``factor``,
    ``value``, ``step``, ...).
    """

    p_value: float
    decisive_p: float
    effect: float
    kind: str
    statistic: float
    reference: dict[str, float]
    serving: dict[str, float]
    details: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Look:
    kind: str
    p_value: float
    effect: float
    large: bool
    details: dict[str, float] = field(default_factory=dict)


def compare_numbers(
    reference: NumberSample, serving: NumberSample, thresholds: Thresholds | None = None
) -> NumberComparison:
    """Compare two samples of one feature.

    Looked at, each with a p-value and an effect of its own: the finite values
    (Kolmogorov-Smirnov of the samples, Pearson's chi-square of the exact
    counts where there are any; W1 over the robust scale IQR / 1.349, clipped
    at 20 scales, and the debiased Jensen-Shannon distance), the missing share,
    the infinite share, a single value that took rows from the others (clipping,
    a filled-in default), and a grid that only the serving side lies on.

    Raises
    ------
    ValueError
        If a side has no rows.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = (NumberSample.of(x) for x in (rng.normal(size=5000), rng.normal(1, 1, 5000)))
    >>> found = compare_numbers(a, b)
    >>> found.kind, round(found.effect, 1), found.decisive_p < 1e-9
    ('shift', 1.0, True)
    """
    limits = thresholds or Thresholds()
    for name, side in (("reference", reference), ("serving", serving)):
        if not side.count:
            raise ValueError(f"{name}: at least one row is needed")
    looks = list(_looks(reference, serving, limits))
    weight = len(looks)
    best = max(looks, key=lambda look: (look.large, _rank(look)))
    decisive = min((look.p_value for look in looks if look.large), default=1.0)
    return NumberComparison(
        min(1.0, weight * min(look.p_value for look in looks)), min(1.0, weight * decisive),
        best.effect, best.kind, _distance(reference, serving),
        reference.facts(), serving.facts(), best.details,
    )  # fmt: skip


# The closest name first: a filled-in default also moves the mean, a grid makes repeated values.
_ORDER = ("constant", "nulls", "nonfinite", "rounding", "clipped", "default_value")


def _rank(look: _Look) -> float:
    # Of two large looks the one that names the cause more closely; else the surer.
    if look.kind in _ORDER:
        return 1.0 + len(_ORDER) - _ORDER.index(look.kind)
    return 0.5


def _distance(reference: NumberSample, serving: NumberSample) -> float:
    if not len(reference.values) or not len(serving.values):
        return 0.0
    return ks_statistic(reference.values, serving.values)


def _looks(r: NumberSample, s: NumberSample, limits: Thresholds) -> Iterator[_Look]:
    for kind, a, b, least in (
        ("nulls", r.missing, s.missing, limits.share),
        ("nonfinite", r.infinite, s.infinite, limits.nonfinite),
    ):
        change = abs(b / s.count - a / r.count)
        p = two_proportions_p_value(a, r.count, b, s.count)
        yield _Look(kind, p, change, change >= least)
    if len(r.values) and len(s.values):
        scale = robust_scale(r.values)
        yield _distribution(r, s, scale, limits)
        yield from _structure(r.values, s.values, scale, limits)


def _distribution(r: NumberSample, s: NumberSample, scale: float, limits: Thresholds) -> _Look:
    """Look at the finite values as a whole."""
    # Order statistics know the distribution function to half of their spacing.
    blur = sum(0.5 / len(x.values) for x in (r, s) if x.size > len(x.values))
    distance = max(ks_statistic(r.values, s.values) - blur, 0.0)
    p = ks_p_value(distance, r.size, s.size)
    apart = 0.0
    if r.counts is not None and s.counts is not None and len(r.counts) > 1:
        p = min(1.0, 2 * min(p, homogeneity(r.counts, s.counts)[2]))
        apart = js_distance(r.counts, s.counts)
    effect = _effect(r.values, s.values, scale)
    kind, details = kind_of(r.values, s.values, scale)
    if apart >= limits.effect > effect:
        details = {**details, "js_distance": apart}
    return _Look(kind, p, max(effect, apart), max(effect, apart) >= limits.effect, details)


def _structure(r: Floats, s: Floats, scale: float, limits: Thresholds) -> Iterator[_Look]:
    """Look for what a broken pipeline leaves: one value in place of many, a grid."""
    value = new_value(r, s, scale)
    if value is not None:
        p = two_proportions_p_value(
            value.reference * len(r), len(r), value.serving * len(s), len(s)
        )
        # Every distinct value had its chance to be the one.
        p = min(1.0, p * value.candidates)
        gained = value.serving - value.reference
        details = {"value": value.value, "share": value.serving}
        yield _Look(value.kind, p, gained, gained >= limits.share, details)
    grid = rounded_to(r, s)
    if grid is not None:
        step, on_it = grid
        p = max(on_it, 1e-9) ** min(len(s), 1000)
        effect = step / scale if scale else 0.0
        yield _Look("rounding", max(p, _CERTAIN), effect, effect >= 0.01, {"step": step})


def _effect(r: Floats, s: Floats, scale: float) -> float:
    if scale == 0.0:  # the reference is one value: any other is infinitely far, in its terms
        return 0.0 if r[0] == s[0] and r[0] == s[-1] else math.inf
    return clipped_distance(r, s, scale)
