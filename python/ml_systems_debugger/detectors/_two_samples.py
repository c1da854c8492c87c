"""Two samples of one feature: how far apart, how surely, in which way."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..kernels import ks_p_value, ks_statistic, wasserstein

__all__ = ["Comparison", "benjamini_hochberg", "compare"]

Floats = npt.NDArray[np.float64]

_FAR = 20.0  # robust scales beyond which a value counts as this far: one outlier is no skew
_GRID = np.linspace(0.05, 0.95, 19)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two samples say of one feature."""

    p_value: float
    effect: float
    kind: str
    statistic: float
    reference: dict[str, float]
    serving: dict[str, float]


def compare(reference: Floats, serving: Floats) -> Comparison:
    """Compare two samples [n] and [m]; NaN counts as missing.

    The p-value is the smaller of the two-sample Kolmogorov-Smirnov test's
    (asymptotic, with Stephens' correction) and of the two-proportion z-test
    for missing values, doubled for having looked twice. The effect is
    Wasserstein's W1 over the reference's robust scale (IQR / 1.349), or the
    change of the missing share where that is larger.
    """
    r, s = np.sort(reference[np.isfinite(reference)]), np.sort(serving[np.isfinite(serving)])
    missing = 1 - len(r) / len(reference), 1 - len(s) / len(serving)
    p_missing = _proportions_p(missing[0], len(reference), missing[1], len(serving))
    facts = _facts(r, missing[0]), _facts(s, missing[1])
    if not len(r) or not len(s):
        return Comparison(p_missing, abs(missing[1] - missing[0]), "nulls", 0.0, *facts)
    distance = ks_statistic(r, s)
    p = min(1.0, 2 * min(ks_p_value(distance, len(r), len(s)), p_missing))
    scale = _scale(r)
    effect = _effect(r, s, scale)
    null_effect = abs(missing[1] - missing[0])
    kind = "nulls" if null_effect > effect else _kind(r, s, scale)
    return Comparison(p, max(effect, null_effect), kind, distance, *facts)


def benjamini_hochberg(p_values: list[float], q: float) -> list[bool]:
    """Return which hypotheses are rejected at false-discovery rate `q` (JRSS B 57, 1995)."""
    order = np.argsort(p_values)
    passed = 0
    for rank, at in enumerate(order, 1):
        if p_values[at] <= q * rank / len(p_values):
            passed = rank
    kept = set(order[:passed].tolist())
    return [i in kept for i in range(len(p_values))]


def _facts(x: Floats, missing: float) -> dict[str, float]:
    if not len(x):
        return {"count": 0, "missing": missing}
    low, middle, high = np.quantile(x, (0.25, 0.5, 0.75))
    return {
        "count": len(x), "missing": missing, "median": float(middle), "iqr": float(high - low),
        "min": float(x[0]), "max": float(x[-1]),
    }  # fmt: skip


def _scale(x: Floats) -> float:
    low, high = np.quantile(x, (0.25, 0.75))
    if high > low:
        return float(high - low) / 1.349
    spread = float(np.std(x))
    return spread if spread > 0 else 0.0


def _proportions_p(a: float, n: int, b: int | float, m: int) -> float:
    pooled = (a * n + b * m) / (n + m)
    if pooled in (0.0, 1.0):
        return 1.0
    z = abs(a - b) / math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return math.erfc(z / math.sqrt(2))


def _effect(r: Floats, s: Floats, scale: float) -> float:
    if scale == 0.0:  # the reference is one value: any other is infinitely far, in its terms
        return 0.0 if r[0] == s[0] and r[0] == s[-1] else math.inf
    middle = float(np.median(r))
    near = (np.clip((x - middle) / scale, -_FAR, _FAR) for x in (r, s))
    return float(wasserstein(*near))


def _kind(r: Floats, s: Floats, scale: float) -> str:
    """Name the change: constant, unit_change, shift, scale, range or shape."""
    if s[0] == s[-1] and r[0] != r[-1]:
        return "constant"
    if scale == 0.0:
        return "no_longer_constant" if s[0] != s[-1] else "shift"
    a, b = np.quantile(r, _GRID), np.quantile(s, _GRID)
    usable = np.abs(a) > 0.2 * scale
    # Around zero a factor is a change of spread; away from it, of unit.
    if usable.sum() >= 8 and abs(float(np.median(r))) > scale:
        ratio = b[usable] / a[usable]
        factor = float(np.median(ratio))
        steady = np.abs(ratio / factor - 1).max() < 0.15 if factor else False
        if steady and (factor > 1.8 or 0 < factor < 0.55):
            return "unit_change"
    widths = _scale(s) / scale
    moved = abs(float(np.median(s)) - float(np.median(r))) / scale
    if not 0.75 < widths < 1.33:
        return "scale"
    residue = float(np.abs((b - np.median(s)) / max(_scale(s), 1e-300)
                           - (a - np.median(r)) / scale).max())  # fmt: skip
    if moved >= 0.05 and residue < 0.35:
        return "shift"
    if s[0] > r[0] + 3 * scale or s[-1] < r[-1] - 3 * scale:
        return "range"
    return "shift" if moved >= 0.1 else "shape"
