"""Twins of the folds over series: slow, plain Python, one value at a time.

They are the oracle of the tests. Each takes the whole history of one series as
a list of floats and the parameters object of the native fold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import Any

from ..cusum import Cusum
from ..robust_baseline import RobustBaseline

__all__ = [
    "baseline", "block_means", "cusum", "ewma", "extrema", "replica_spread", "theil_sen",
]  # fmt: skip

LARGEST = 1e140
CONSISTENT = 1.4826022185056018
Event = dict[str, Any]


def _clamp(x: float, limit: float = LARGEST) -> float:
    return max(-limit, min(limit, x))


def _mad(values: Sequence[float]) -> tuple[float, float]:
    middle = median(values)
    return middle, CONSISTENT * median([abs(v - middle) for v in values])


class _Window:
    def __init__(self, window: int, batch: int) -> None:
        self.window, self.batch = window, batch
        self.clear()

    def clear(self) -> None:
        self.values: list[float] = []
        self.fresh = 0
        self.known: tuple[float, float] | None = None

    def push(self, x: float, due: bool) -> bool:
        """Return whether a batch is full with `x`."""
        self.values = [*self.values, x][-self.window :]
        self.fresh += 1
        count = len(self.values)
        full = self.fresh >= self.batch
        power = count < self.batch and count >= 8 and count & (count - 1) == 0
        if full or due or power:
            self.known = _mad(self.values)
        if full:
            self.fresh = 0
        return full


def _standardised(distance: float, scale: float) -> float:
    if scale > 0:
        return distance / scale
    return 0.0 if distance == 0 else math.copysign(math.inf, distance)


def baseline(
    values: Sequence[float], fold: RobustBaseline
) -> tuple[list[float], list[Event], Event | None]:
    """Return every z, the runs that ended, and the one that goes on."""
    window = _Window(fold.window, fold.batch)
    out: list[float] = []
    runs: list[Event] = []
    rejected: list[float] = []
    run: Event | None = None
    learnt = calm = 0
    for step, value in enumerate(values):
        y = value
        if fold.logarithm:
            y = math.log(value) if 0 < value < math.inf else math.nan
        if not math.isfinite(y):
            out.append(math.nan)
            continue
        y = _clamp(y)
        z = math.nan
        if learnt >= fold.warmup and window.known is not None:
            middle, deviation = window.known
            scale = max(deviation, fold.floor, fold.relative * abs(middle))
            z = _standardised(y - middle, scale)
            height = {"both": abs(z), "above": z, "below": -z}[fold.side]
            if height > fold.threshold:
                if run is None:
                    run = {"first": step, "count": 0, "statistic": 0.0}
                calm = 0
                run["last"] = step
                run["count"] += 1
                if abs(z) > abs(run["statistic"]):
                    run.update(statistic=z, peak_step=step, value=value)
            elif run is not None:
                calm += 1
                if calm >= fold.patience:
                    runs.append(
                        {**run, "step": step, "direction": 1 if run["statistic"] > 0 else -1}
                    )
                    run = None
        out.append(z)
        if abs(z) > fold.clip:
            rejected.append(y)
            if len(rejected) >= fold.relearn:
                window.clear()
                last = rejected[-fold.batch :]
                for i, each in enumerate(last):
                    learnt += 1
                    window.push(each, i + 1 == len(last))
                rejected = []
        else:
            rejected = []
            learnt += 1
            window.push(y, learnt == fold.warmup)
    return out, runs, run


def cusum(values: Sequence[float], fold: Cusum) -> tuple[list[float], list[Event]]:
    """Return the statistic after each value, and the alarms."""
    out: list[float] = []
    alarms: list[Event] = []
    window = _Window(fold.window, fold.batch)
    memory = 4.0 * fold.window
    keep = 1.0 - 1.0 / memory
    learnt = 0
    mean = previous = weight = variance = covariance = phi = limit = 0.0
    sums = {1: 0.0, -1: 0.0}
    onsets, counts = {1: 0, -1: 0}, {1: 0, -1: 0}
    for step, value in enumerate(values):
        if not math.isfinite(value):
            out.append(math.nan)
            continue
        y = _clamp(value)
        first = learnt == 0
        if first:
            mean = previous = y
        deviation, before = y - mean, previous - mean
        residual = deviation - phi * before
        centre = mean
        previous = y
        learnt += 1
        d = _clamp(deviation, limit) if limit > 0 else deviation
        p = _clamp(before, limit) if limit > 0 else before
        mean += d * (1.0 / min(learnt, memory))
        weight = keep * weight + 1.0
        variance = keep * variance + d * d
        covariance = keep * covariance + d * p
        if first:
            out.append(math.nan)
            continue
        found = math.nan
        if learnt > fold.warmup and window.known is not None:
            middle, spread = window.known
            scale = max(spread, fold.floor, fold.relative * abs(centre))
            z = _clamp(_standardised(residual - middle, scale), fold.clip)
            for side in (1, -1):
                now = sums[side] + side * z - fold.drift
                if not now > 0:
                    sums[side] = 0.0
                    continue
                if sums[side] == 0:
                    onsets[side], counts[side] = step, 0
                sums[side] = now
                counts[side] += 1
            found = sums[1] if sums[1] >= sums[-1] else -sums[-1]
            fired = [side for side in (1, -1) if sums[side] > fold.threshold]
            if fired:
                side = fired[0]
                alarms.append(
                    {"step": step, "first": onsets[side], "count": counts[side],
                     "direction": side, "statistic": sums[side], "value": value}
                )  # fmt: skip
                out.append(found)
                window.clear()
                learnt = 0
                part = min(1.0, 0.25 * fold.window / weight)
                weight, variance, covariance = weight * part, variance * part, covariance * part
                sums = {1: 0.0, -1: 0.0}
                continue
        full = window.push(residual, learnt == fold.warmup)
        if full or 8 <= learnt < fold.warmup:
            phi = covariance / variance if variance > 0 else 0.0
            phi = min(max(phi, 0.0), fold.max_phi)
            limit = 4.0 * math.sqrt(variance / weight)
        out.append(found)
    return out, alarms


def ewma(values: Sequence[float], alpha: float) -> tuple[list[float], list[float]]:
    """Return weighted mean and variance after each value, from all weights."""
    seen: list[float] = []
    means, variances = [], []
    for value in values:
        if math.isfinite(value):
            seen.append(_clamp(value))
        weights = [(1.0 - alpha) ** age for age in range(len(seen))][::-1]
        total, squares = math.fsum(weights), math.fsum(w * w for w in weights)
        mean = (
            math.fsum(w * x for w, x in zip(weights, seen, strict=True)) / total
            if seen
            else math.nan
        )
        spread = math.fsum(w * (x - mean) ** 2 for w, x in zip(weights, seen, strict=True))
        degrees = total - squares / total if len(seen) > 1 else 0.0
        means.append(mean)
        variances.append(spread / degrees if degrees > 0 else math.nan)
    return means, variances


def extrema(
    values: Sequence[float], alpha: float, warmup: int
) -> tuple[list[float], list[float], list[float]]:
    """Return smoothed values, and the lowest and highest of them so far."""
    means = ewma(values, alpha)[0]
    lowest, highest, count, known = [], [], 0, []
    for value, mean in zip(values, means, strict=True):
        count += math.isfinite(value)
        if count >= warmup:
            known.append(mean)
        lowest.append(min(known, default=math.nan))
        highest.append(max(known, default=math.nan))
    return means, lowest, highest


def block_means(values: Sequence[float]) -> list[Event]:
    """Return the blocks that `BlockMeans` ends with."""
    blocks: list[list[tuple[int, float]]] = []
    size = 1
    for step, value in enumerate(values):
        if not math.isfinite(value):
            continue
        if not blocks or len(blocks[-1]) == size:
            if len(blocks) == 64:
                blocks = [blocks[i] + blocks[i + 1] for i in range(0, 64, 2)]
                size *= 2
            blocks.append([])
        blocks[-1].append((step, _clamp(value)))
    out = []
    for block in blocks:
        xs = [x for _, x in block]
        mean = math.fsum(xs) / len(xs)
        out.append(
            {"count": len(xs), "mean": mean, "m2": math.fsum((x - mean) ** 2 for x in xs),
             "min": min(xs), "max": max(xs), "first": block[0][0], "last": block[-1][0]}
        )  # fmt: skip
    return out


def theil_sen(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return slope and intercept."""
    points = list(zip(x, y, strict=True))
    slopes = [(d - b) / (c - a) for (a, b), (c, d) in combinations(points, 2) if a != c]
    if not slopes:
        return math.nan, math.nan
    slope = median(slopes)
    return slope, median(y) - slope * median(x)


def replica_spread(row: Sequence[float]) -> Event:
    """Return what `replica_spread` says of one step."""
    known = [_clamp(x) + 0.0 for x in row if math.isfinite(x)]  # no -0.0
    if not known:
        nan = math.nan
        return {
            "median": nan,
            "mad": nan,
            "min": nan,
            "max": nan,
            "z": nan,
            "worst": -1,
            "finite": 0,
        }
    middle, deviation = _mad(known)
    worst = max(
        (i for i, x in enumerate(row) if math.isfinite(x)),
        key=lambda i: (abs(_clamp(row[i]) - middle), -i),
    )
    return {
        "median": middle, "mad": deviation, "min": min(known), "max": max(known),
        "z": _standardised(_clamp(row[worst]) - middle, deviation), "worst": worst,
        "finite": len(known),
    }  # fmt: skip
