"""Folds over series against plain Python loops and NumPy or pandas, per step and series.

python benchmarks/bench_folds.py [--n 1000000]
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import deque

import numpy as np

from _peers import compare, peer
from ml_systems_debugger.kernels import (
    BlockMeans,
    Cusum,
    Ewma,
    RobustBaseline,
    RunningExtrema,
    replica_spread,
    theil_sen,
)


def plain_baseline(values: list[float], window: int = 256, batch: int = 32) -> float:
    """Median and MAD of the last values, anew per batch, and every z."""
    last: deque[float] = deque(maxlen=window)
    middle = scale = z = math.nan
    for count, x in enumerate(values, 1):
        z = (x - middle) / scale
        last.append(x)
        if count % batch == 0:
            middle = statistics.median(last)
            scale = 1.4826 * statistics.median(abs(v - middle) for v in last)
    return z


def plain_cusum(values: list[float]) -> float:
    """The two sums alone, on standardised values."""
    up = down = 0.0
    for x in values:
        z = max(-3.0, min(3.0, x))
        up = max(0.0, up + z - 0.5)
        down = max(0.0, down - z - 0.5)
    return up - down


def plain_ewma(values: list[float], alpha: float = 0.05) -> float:
    """Bias-corrected mean."""
    weight = mean = 0.0
    for x in values:
        weight = weight * (1 - alpha) + 1
        mean += (x - mean) / weight
    return mean


def plain_blocks(values: list[float]) -> list[float]:
    """Means of 64 blocks."""
    size = len(values) // 64
    return [statistics.fmean(values[i * size : (i + 1) * size]) for i in range(64)]


def numpy_baseline(x: np.ndarray, window: int = 256, batch: int = 32) -> np.ndarray:
    """Windows as one strided view, median and MAD of all of them at once."""
    windows = np.lib.stride_tricks.sliding_window_view(x, window)[::batch]
    middle = np.median(windows, axis=1)
    scale = 1.4826 * np.median(np.abs(windows - middle[:, None]), axis=1)
    at = np.minimum(np.arange(len(x) - window) // batch, len(middle) - 1)
    return (x[window:] - middle[at]) / scale[at]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    n = options.n
    x = np.random.default_rng(0).standard_normal(n)
    pandas = peer("pandas")
    few = x[: min(n, 20_000)].tolist()
    per = {"scale": 1e9 / n, "unit": "ns per step", "rounds": options.rounds}
    per_few = {"scale": 1e9 / len(few), "unit": "ns per step", "rounds": 3}
    folds = {
        "RobustBaseline, runs only": (RobustBaseline(threshold=6.0), {"want_z": False}),
        "RobustBaseline, every z": (RobustBaseline(threshold=6.0), {}),
        "Cusum, alarms only": (Cusum(), {}),
        "Ewma": (Ewma(alpha=0.05), {}),
        "RunningExtrema": (RunningExtrema(alpha=0.05), {}),
        "BlockMeans": (BlockMeans(), {}),
    }
    compare(
        f"one series of {n} steps",
        {
            name: (lambda f=fold, o=extra: f.update(f.init(), x, **o))
            for name, (fold, extra) in folds.items()
        }
        | {"pandas ewm mean + var": (lambda: _pandas_ewm(pandas, x)) if pandas else None},
        **per,
    )
    compare(f"NumPy, {n} steps", {"median and MAD per 32": lambda: numpy_baseline(x)}, **per)
    compare(
        f"plain Python, {len(few)} steps",
        {
            "baseline": lambda: plain_baseline(few),
            "CUSUM without learning": lambda: plain_cusum(few),
            "EWMA": lambda: plain_ewma(few),
            "block means": lambda: plain_blocks(few),
        },
        **per_few,
    )
    many = np.random.default_rng(1).standard_normal((2000, 1200))
    compare(
        "2000 steps of 1200 series, step by step in memory",
        {
            name: (lambda f=fold, o=extra: f.update(f.init(1200), many, **o))
            for name, (fold, extra) in folds.items()
        },
        scale=1e9 / many.size,
        unit="ns per step",
        rounds=3,
    )
    live = many[:1, :600].copy()
    states = {name: fold.init(600) for name, (fold, _) in folds.items()}
    for name, (fold, extra) in folds.items():
        for row in many[:300]:
            fold.update(states[name], row[None, :600], **extra)
    compare(
        "live: one step of 600 series",
        {
            name: (lambda f=fold, s=states[name], o=extra: f.update(s, live, **o))
            for name, (fold, extra) in folds.items()
        },
        scale=1e6,
        unit="us",
    )
    one = live[:, :1].copy()
    states = {name: fold.init() for name, (fold, _) in folds.items()}
    compare(
        "live: one step of one series",
        {
            name: (lambda f=fold, s=states[name], o=extra: f.update(s, one, **o))
            for name, (fold, extra) in folds.items()
        },
        scale=1e6,
        unit="us",
    )
    replicas = np.random.default_rng(2).standard_normal((100_000, 8))
    compare(
        "100000 steps of 8 replicas",
        {"here": lambda: replica_spread(replicas), "NumPy": lambda: _numpy_spread(replicas)},
        scale=1e9 / len(replicas),
        unit="ns per step",
        rounds=5,
    )
    stats = peer("scipy.stats")
    blocks, places = x[:64], np.arange(64.0)
    compare(
        "Theil-Sen on 64 points",
        {
            "here": lambda: theil_sen(places, blocks),
            "scipy": (lambda: stats.theilslopes(blocks, places)) if stats else None,
        },
        scale=1e6,
        unit="us",
    )


def _pandas_ewm(pandas: object, x: np.ndarray) -> None:
    window = pandas.Series(x).ewm(alpha=0.05)  # type: ignore[attr-defined]
    window.mean()
    window.var()


def _numpy_spread(x: np.ndarray) -> None:
    middle = np.median(x, axis=1, keepdims=True)
    apart = np.abs(x - middle)
    np.median(apart, axis=1)
    np.argmax(apart, axis=1)


if __name__ == "__main__":
    main()
