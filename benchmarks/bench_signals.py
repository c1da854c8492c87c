"""The signal extractors: what they add over NumPy, and beside plain Python.

    python benchmarks/bench_signals.py [--rounds 5]

Milliseconds of wall time, medians: the gradients of a network of 148 tensors
(12.4 M elements unless told), statistics of one array, and
the divergences of two samples. Plain Python runs on a thousandth of the
elements and is scaled up, which favours it.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import numpy as np

from ml_systems_debugger import (
    DistributionSignalExtractor,
    GradientSignalExtractor,
    NumericalSignalExtractor,
)

TENSORS = 148


def median_ms(call: Callable[[], object], rounds: int) -> float:
    """Return the median wall time of a call."""
    call()
    found = []
    for _ in range(rounds):
        before = time.perf_counter()
        call()
        found.append(time.perf_counter() - before)
    return 1e3 * statistics.median(found)


def plain_norms(lists: list[list[float]]) -> float:
    total = 0.0
    for values in lists:
        for value in values:
            total += value * value
    return math.sqrt(total)


def plain_stats(values: list[float]) -> tuple[int, float, float, int]:
    bad, largest, total, zeros = 0, 0.0, 0.0, 0
    for value in values:
        if not math.isfinite(value):
            bad += 1
            continue
        largest = max(largest, abs(value))
        total += value
        zeros += value == 0.0
    return bad, largest, total, zeros


def numpy_norms(gradients: dict[str, np.ndarray]) -> list[float]:
    norms = [float(np.linalg.norm(g.astype(np.float64))) for g in gradients.values()]
    bad = [int((~np.isfinite(g)).sum()) for g in gradients.values()]
    return [math.hypot(*norms), *norms, *bad]


def numpy_stats(x: np.ndarray) -> list[float]:
    finite = x[np.isfinite(x)]
    return [
        float(np.isnan(x).sum()), float(np.isinf(x).sum()), float(np.abs(finite).max()),
        float(finite.mean(dtype=np.float64)), float(finite.std(dtype=np.float64)),
        float((x == 0).mean()),
    ]  # fmt: skip


def numpy_divergence(r: np.ndarray, s: np.ndarray) -> float:
    edges = np.quantile(r, np.arange(1, 20) / 20)
    p, q = (
        (np.bincount(np.searchsorted(edges, x), minlength=20) + 0.5) / (len(x) + 10) for x in (r, s)
    )
    return float((q * np.log(q / p)).sum())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--elements", type=int, default=12_400_000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    size = options.elements // TENSORS
    gradients = {f"layer.{i}": rng.normal(size=size).astype(np.float32) for i in range(TENSORS)}
    array = rng.normal(size=options.elements).astype(np.float32)
    pair = [rng.normal(size=1_000_000) for _ in range(2)]
    few = [g[: max(1, size // 1000)].tolist() for g in gradients.values()]
    short = array[::1000].tolist()
    held = sum(len(values) for values in few)
    extractor = GradientSignalExtractor(keep_arrays=False)
    rows = [
        ("gradient norms, 148 tensors", lambda: extractor.extract(gradients),
         lambda: numpy_norms(gradients), lambda: plain_norms(few), options.elements / held),
        ("statistics of one array", lambda: NumericalSignalExtractor().extract(array),
         lambda: numpy_stats(array), lambda: plain_stats(short), options.elements / len(short)),
        ("divergences, 1 M against 1 M",
         lambda: DistributionSignalExtractor().divergences(*pair),
         lambda: numpy_divergence(*pair), None, 1.0),
    ]  # fmt: skip
    print("| work | ours, ms | NumPy, ms | plain Python, ms (scaled) |")
    print("|---|---|---|---|")
    for name, ours, numpy, plain, scale in rows:
        loops = "" if plain is None else f"{median_ms(plain, options.rounds) * scale:,.0f}"
        print(
            f"| {name} | {median_ms(ours, options.rounds):.2f} "
            f"| {median_ms(numpy, options.rounds):.2f} | {loops} |"
        )


if __name__ == "__main__":
    main()
