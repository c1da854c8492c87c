"""Rolling statistics against bottleneck, pandas, polars, NumPy and plain Python.

python benchmarks/bench_rolling.py [--n 10000000] [--window 200]
"""

from __future__ import annotations

import argparse

import numpy as np

from _peers import compare, peer
from ml_systems_debugger.kernels import Rolling, rolling
from ml_systems_debugger.kernels.reference import windows

FIVE = ("mean", "std", "slope", "min", "max")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10_000_000)
    parser.add_argument("--window", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    n, w = options.n, options.window
    x = np.random.default_rng(0).standard_normal(n)
    bn, pandas, polars = peer("bottleneck"), peer("pandas"), peer("polars")
    series = None if pandas is None else pandas.Series(x)
    frame = None if polars is None else polars.Series(x)
    places = np.arange(w) - (w - 1) / 2

    # Who asks for four results holds four: a peer that frees each before the next one writes
    # to the same memory again and again.
    def bottleneck_four() -> object:
        return bn.move_mean(x, w), bn.move_std(x, w), bn.move_min(x, w), bn.move_max(x, w)

    def pandas_four() -> object:
        return [getattr(series.rolling(w), name)() for name in ("mean", "std", "min", "max")]

    def polars_four() -> object:
        return [getattr(frame, f"rolling_{name}")(w) for name in ("mean", "std", "min", "max")]

    print(f"{n} float64, window {w}")
    compare(
        "mean + std + slope + min + max (peers: the same without the slope)",
        {
            "here": lambda: rolling(x, w, FIVE),
            "bottleneck, four calls": bottleneck_four if bn else None,
            "polars, four calls": polars_four if polars else None,
            "pandas, four calls": pandas_four if pandas else None,
            "NumPy, slope alone (convolve)": lambda: np.convolve(x, places[::-1], "valid"),
        },
        rounds=options.rounds,
    )
    compare(
        "each alone",
        {
            **{f"here, {name}": (lambda name=name: rolling(x, w, (name,))) for name in FIVE},
            "bottleneck, mean": (lambda: bn.move_mean(x, w)) if bn else None,
            "bottleneck, std": (lambda: bn.move_std(x, w)) if bn else None,
            "bottleneck, max": (lambda: bn.move_max(x, w)) if bn else None,
        },
        rounds=options.rounds,
    )
    compare(
        "median",
        {
            "here": lambda: rolling(x, w, ("median",)),
            "bottleneck": (lambda: bn.move_median(x, w)) if bn else None,
            "pandas": (lambda: series.rolling(w).median()) if pandas else None,
            "polars": (lambda: frame.rolling_median(w)) if polars else None,
        },
        rounds=min(2, options.rounds),
    )
    few = x[:2000]
    compare(
        f"plain Python, {len(few)} values, all six",
        {
            "here": lambda: rolling(few, w, (*FIVE, "median")),
            "plain Python": lambda: windows.rolling(few.tolist(), w),
            "NumPy, windows without the slope": lambda: _numpy_windows(few, w),
        },
        rounds=3,
    )
    fold = Rolling(w, FIVE)
    state, step = fold.init(600), x[:600].reshape(1, 600)
    compare(
        "live: one step of 600 series, five statistics",
        {"here": lambda: fold.update(state, step)},
        scale=1e6,
        unit="us",
    )
    offset = x[: min(n, 1_000_000)] + 1e8
    some = np.lib.stride_tricks.sliding_window_view(offset, w)[::997]
    exact = (some - some[:, :1]).std(axis=1)
    print("\nrelative error of std at an offset of 1e8")
    error = rolling(offset, w, ("std",))["std"][w - 1 :: 997] / exact - 1
    print(f"  here       {np.abs(error).max():.1e}")
    if bn:
        error = bn.move_std(offset, w)[w - 1 :: 997] / exact - 1
        print(f"  bottleneck {np.abs(error).max():.1e}")


def _numpy_windows(x: np.ndarray, w: int) -> None:
    every = np.lib.stride_tricks.sliding_window_view(x, w)
    for function in (np.mean, np.std, np.min, np.max, np.median):
        function(every, axis=1)


if __name__ == "__main__":
    main()
