"""Histograms against fast-histogram, NumPy, torch, polars and plain Python.

python benchmarks/bench_histogram.py [--n 100000000]
"""

from __future__ import annotations

import argparse

import numpy as np

from _peers import compare, peer
from ml_systems_debugger.kernels import bin_counts, histogram, quantile_cuts, set_num_threads
from ml_systems_debugger.kernels.reference import distributions

SPAN = (-5.0, 5.0)


def one_thread(x: np.ndarray, bins: int) -> None:
    set_num_threads(1)
    try:
        histogram(x, bins, SPAN)
    finally:
        set_num_threads(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    fast, torch = peer("fast_histogram"), peer("torch")
    x = np.random.default_rng(0).standard_normal(options.n, dtype=np.float32)
    tensor = None if torch is None else torch.from_numpy(x)
    for bins in (64, 256):
        found = histogram(x, bins, SPAN)
        compare(
            f"{options.n} float32 into {bins} bins",
            {
                "here, all threads": lambda: histogram(x, bins, SPAN),  # noqa: B023 - called here
                "here, one thread": lambda: one_thread(x, bins),  # noqa: B023
                "fast-histogram": (lambda: fast.histogram1d(x, bins, SPAN)) if fast else None,  # noqa: B023
                "torch.histc": (lambda: torch.histc(tensor, bins, *SPAN)) if torch else None,  # noqa: B023
                "NumPy": lambda: np.histogram(x, bins, SPAN),  # noqa: B023
            },
            rounds=options.rounds,
        )
        print("  equal to NumPy:", np.array_equal(found.counts, np.histogram(x, bins, SPAN)[0]))
    few = x[:10_000_000]
    cuts = quantile_cuts(few[:100_000], 20)
    compare(
        f"{len(few)} float32 into 20 bins of any width",
        {
            "here": lambda: bin_counts(few, cuts),
            "NumPy": lambda: np.bincount(np.searchsorted(cuts, few, "right"), minlength=20),
        },
        rounds=options.rounds,
    )
    small = few[:100_000]
    compare(
        f"{len(small)} float32, plain Python",
        {
            "here": lambda: bin_counts(small, cuts),
            "plain Python": lambda: distributions.bin_counts(small.tolist(), cuts.tolist()),
        },
        rounds=3,
    )


if __name__ == "__main__":
    main()
