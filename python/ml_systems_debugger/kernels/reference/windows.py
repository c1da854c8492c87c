"""The twin of the rolling statistics: each window by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

__all__ = ["rolling"]

LARGEST = 1e140


def rolling(
    values: Sequence[float], window: int, min_count: int | None = None, ddof: int = 0
) -> dict[str, list[float]]:
    """Return all rolling statistics, each window by itself."""
    names = ("mean", "std", "slope", "min", "max", "median")
    out: dict[str, list[float]] = {name: [] for name in names}
    for end in range(1, len(values) + 1):
        places = range(max(0, end - window), end)
        points = [
            (i, max(-LARGEST, min(LARGEST, values[i]))) for i in places if math.isfinite(values[i])
        ]
        found = dict.fromkeys(names, math.nan)
        if len(points) >= (window if min_count is None else min_count):
            found = _window_statistics(points, ddof)
        for name in names:
            out[name].append(found[name])
    return out


def _window_statistics(points: Sequence[tuple[int, float]], ddof: int) -> dict[str, float]:
    count = len(points)
    ts, xs = [t for t, _ in points], [x for _, x in points]
    # From the first value: sums of values with a common offset lose digits even in fsum.
    shifted = [x - xs[0] for x in xs]
    mean = math.fsum(shifted) / count
    m2 = math.fsum((x - mean) ** 2 for x in shifted)
    centre = math.fsum(ts) / count
    spread = math.fsum((t - centre) ** 2 for t in ts)
    cross = math.fsum((t - centre) * (x - mean) for t, x in zip(ts, shifted, strict=True))
    return {
        "mean": xs[0] + mean,
        "std": math.sqrt(m2 / (count - ddof)) if count > ddof else math.nan,
        "slope": cross / spread if spread > 0 else math.nan,
        "min": min(xs),
        "max": max(xs),
        "median": median(xs),
    }
