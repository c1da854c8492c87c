"""How far two distributions lie apart: of histograms, and of samples."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core import divergence as _divergence
from .._core import two_histograms, two_samples
from ..core.errors import ConfigurationError
from ._series import Floats, floats
from .histogram import bin_counts, quantile_cuts

__all__ = [
    "SampleDivergences",
    "compare_samples",
    "js_divergence",
    "kl_divergence",
    "ks_p_value",
    "ks_statistic",
    "psi",
    "total_variation",
    "wasserstein",
]

_KL, _JS, _PSI, _TV = range(4)
_LEAST_SUM = 2.0**-1022  # below it numbers have lost their digits


def _found(p: npt.ArrayLike, q: npt.ArrayLike, kind: int) -> tuple[float, Floats, Floats]:
    a, b = floats(p), floats(q)
    value, p_sum, q_sum = _divergence(a, b, kind)
    for name, total in (("p", p_sum), ("q", q_sum)):
        if not total >= _LEAST_SUM:
            raise ValueError(f"{name}: something must be in it, its sum is {total!r}")
    return value, a, b


def _null_bias(p: Floats, q: Floats) -> float:
    """Return (bins - 1) (1/n + 1/m), bins that are empty in both not counted."""
    occupied = int(np.count_nonzero((p > 0) | (q > 0)))
    return (occupied - 1) * (1.0 / float(p.sum()) + 1.0 / float(q.sum()))


def _unit(base: float | None) -> float:
    if base is None:
        return 1.0
    if not base > 1:
        raise ConfigurationError(f"base is above 1, got {base!r}")
    return log(base)


def kl_divergence(
    p: npt.ArrayLike, q: npt.ArrayLike, *, base: float | None = None, debias: bool = False
) -> float:
    """Return the Kullback-Leibler divergence, the sum of ``p log(p / q)``.

    Parameters
    ----------
    p, q : float64 [bins]
        Counts or probabilities, of any sums; each is scaled to 1.
    base : float, optional
        Of the logarithm; nats by default.
    debias : bool
        Subtract what two samples of one distribution show on average,
        ``(bins - 1) / 2 * (1 / n + 1 / m)``; `p` and `q` are counts then, and the
        result may be negative.

    Returns
    -------
    float
        A bin empty in `p` adds nothing; one empty in `q` alone makes it infinite.

    Raises
    ------
    ValueError
        If lengths differ, a value is negative or not finite, or a side is empty.

    Examples
    --------
    >>> round(kl_divergence([1, 1], [1, 3]), 6)
    0.143841
    >>> kl_divergence([1, 1], [2, 0])
    inf
    """
    value, a, b = _found(p, q, _KL)
    return (value - (0.5 * _null_bias(a, b) if debias else 0.0)) / _unit(base)


def js_divergence(
    p: npt.ArrayLike, q: npt.ArrayLike, *, base: float | None = None, debias: bool = False
) -> float:
    """Return the Jensen-Shannon divergence: half of KL(p, m) + KL(q, m), m their mean.

    At most log 2 (1 with ``base=2``); its square root is a metric. Empty bins
    are no trouble. `debias` subtracts ``(bins - 1) / 8 * (1 / n + 1 / m)`` nats.
    Parameters and errors as for `kl_divergence`.

    Examples
    --------
    >>> js_divergence([1, 0], [0, 1], base=2)
    1.0
    """
    value, a, b = _found(p, q, _JS)
    return (value - (0.125 * _null_bias(a, b) if debias else 0.0)) / _unit(base)


def psi(p: npt.ArrayLike, q: npt.ArrayLike, *, floor: float = 0.0, debias: bool = False) -> float:
    """Return the population stability index, the sum of ``(p - q) log(p / q)``.

    Parameters
    ----------
    p, q : float64 [bins]
        Counts or probabilities of the same bins, as `bin_counts` over the
        `quantile_cuts` of the reference; each is scaled to 1.
    floor : float
        Shares below it are taken as it (1e-4 is usual). With 0, a bin that is
        empty on one side alone makes the index infinite.
    debias : bool
        Subtract ``(bins - 1) * (1 / n + 1 / m)``; `p` and `q` are counts then.

    Raises
    ------
    ValueError
        As for `kl_divergence`.

    Examples
    --------
    >>> round(psi([25, 25, 25, 25], [20, 30, 30, 20]), 6)
    0.040547
    """
    if not 0 <= floor < 1:
        raise ConfigurationError(f"floor lies in [0, 1), got {floor!r}")
    value, a, b = _found(p, q, _PSI)
    if floor > 0:
        used = (a > 0) | (b > 0)
        x, y = (np.maximum(each[used] / each.sum(), floor) for each in (a, b))
        value = float(((x - y) * np.log(x / y)).sum())
    return value - (_null_bias(a, b) if debias else 0.0)


def total_variation(p: npt.ArrayLike, q: npt.ArrayLike, *, debias: bool = False) -> float:
    """Return half the sum of ``abs(p - q)``: the largest difference in any event's probability.

    `debias` subtracts its expectation for two samples of the pooled
    distribution, bins taken as normal. Parameters and errors as for
    `kl_divergence`.

    Examples
    --------
    >>> total_variation([1, 1], [1, 3])
    0.25
    """
    value, a, b = _found(p, q, _TV)
    if debias:
        pooled = (a + b) / (a.sum() + b.sum())
        scale = sqrt((1.0 / float(a.sum()) + 1.0 / float(b.sum())) / (2.0 * np.pi))
        value -= scale * float(np.sqrt(pooled * (1.0 - pooled)).sum())
    return value


def _sorted(x: npt.ArrayLike, name: str) -> Floats:
    values = floats(x).ravel()
    values = values[np.isfinite(values)]
    if not len(values):
        raise ValueError(f"{name}: at least one finite value is needed")
    return np.sort(values)


def ks_statistic(x: npt.ArrayLike, y: npt.ArrayLike, places: npt.ArrayLike | None = None) -> float:
    """Return the Kolmogorov-Smirnov distance: the largest between two distribution functions.

    Parameters
    ----------
    x, y : float64
        Two samples, of which NaN and the infinities are left out; or, with
        `places`, counts of the same bins.
    places : float64 [bins], optional
        Where the bins lie, ascending.

    Raises
    ------
    ValueError
        If a side is empty or lengths differ.

    Examples
    --------
    >>> ks_statistic([1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 5.0, 6.0])
    0.5
    """
    return _distances(x, y, places)[0]


def wasserstein(x: npt.ArrayLike, y: npt.ArrayLike, places: npt.ArrayLike | None = None) -> float:
    """Return the Wasserstein-1 distance: the area between two distribution functions.

    In the unit of the values. Parameters and errors as for `ks_statistic`.

    Examples
    --------
    >>> wasserstein([0.0, 1.0], [5.0, 6.0])
    5.0
    """
    return _distances(x, y, places)[1]


def _distances(
    x: npt.ArrayLike, y: npt.ArrayLike, places: npt.ArrayLike | None
) -> tuple[float, float]:
    if places is None:
        ks, area = two_samples(_sorted(x, "x"), _sorted(y, "y"))
    else:
        at = floats(places)
        if at.ndim == 1 and not (np.diff(at) > 0).all():
            raise ValueError("places: ascending numbers are needed")
        _, p, q = _found(x, y, _TV)
        ks, area = two_histograms(p, q, at)
    return ks, area


def ks_p_value(statistic: float, n: int, m: int) -> float:
    """Return how probable a KS distance of at least `statistic` is for samples of `n` and `m`.

    The asymptotic law with Stephens' correction for small samples
    (JRSS B 32, 1970); for samples without ties.

    Examples
    --------
    >>> round(ks_p_value(0.2, 100, 100), 3)
    0.031
    """
    if n < 1 or m < 1:
        raise ConfigurationError(f"n and m are at least 1, got {n!r} and {m!r}")
    root = sqrt(n * m / (n + m))
    t = (root + 0.12 + 0.11 / root) * statistic
    if t < 0.2:
        return 1.0
    terms = (2.0 * (-1) ** (k - 1) * exp(-2.0 * (k * t) ** 2) for k in range(1, 101))
    return float(min(max(sum(terms), 0.0), 1.0))


@dataclass(frozen=True, slots=True)
class SampleDivergences:
    """All distances between two samples; see `compare_samples`."""

    kl: float
    js: float
    psi: float
    total_variation: float
    ks: float
    wasserstein: float
    n: int
    m: int


def compare_samples(
    reference: npt.ArrayLike, sample: npt.ArrayLike, bins: int = 20, *, debias: bool = True
) -> SampleDivergences:
    """Return the distances between two samples.

    Parameters
    ----------
    reference, sample : array
        KL, JS, PSI and total variation are of the counts in `bins` equally full
        bins of the reference, with bins of their own for NaN, -infinity and
        +infinity; half a count is added to a bin that is empty on one side, so
        that all are finite. KS and Wasserstein are of the finite values.
    debias : bool
        Subtract what two samples of one distribution show on average.

    Raises
    ------
    ValueError
        If a side has no finite value.

    Examples
    --------
    >>> import numpy as np
    >>> a, b = np.random.default_rng(0).standard_normal((2, 10_000))
    >>> found = compare_samples(a, b + 0.5)
    >>> 0.2 < found.psi < 0.3, 0.15 < found.ks < 0.25
    (True, True)
    """
    x, y = floats(reference).ravel(), floats(sample).ravel()
    sorted_x, sorted_y = _sorted(x, "reference"), _sorted(y, "sample")
    cuts = quantile_cuts(sorted_x, bins)
    p, q = (bin_counts(each, cuts).astype(np.float64) for each in (x, y))
    for mine, other in ((p, q), (q, p)):
        mine[(mine == 0) & (other > 0)] = 0.5
    ks, area = two_samples(sorted_x, sorted_y)
    options: dict[str, Any] = {"debias": debias}
    return SampleDivergences(
        kl_divergence(p, q, **options), js_divergence(p, q, **options), psi(p, q, **options),
        total_variation(p, q, **options), ks, area, len(x), len(y),
    )  # fmt: skip
