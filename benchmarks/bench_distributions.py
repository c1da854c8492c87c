"""Skew: speed of the comparison, memory in chunks, alarms on equal tables.

    python benchmarks/bench_distributions.py [speed|memory|null|power ...] [--pairs N]

`null` draws pairs of tables of ten features from one world each (normal, heavy
tails, counts, zeros, missing values, words, vectors) and counts the pairs with
any alarm; `power` plants the smallest changes that must be found, and those
that must not.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ml_systems_debugger import compare_distributions

Draw = Callable[[np.random.Generator, int], Any]


def words(values: Any) -> Any:
    return np.asarray(values, object)


DRAWS: dict[str, Draw] = {
    "normal": lambda g, n: g.normal(size=n),
    "t2": lambda g, n: g.standard_t(2, n),
    "cauchy": lambda g, n: g.standard_cauchy(n),
    "lognormal": lambda g, n: g.lognormal(0, 2, n),
    "poisson": lambda g, n: g.poisson(2, n).astype(float),
    "zeros": lambda g, n: np.where(g.random(n) < 0.7, 0.0, g.normal(size=n)),
    "missing": lambda g, n: np.where(g.random(n) < 0.2, np.nan, g.normal(size=n)),
    "words": lambda g, n: words(g.choice(list("abcdefgh"), n)),
    "ids": lambda g, n: words([f"id{k}" for k in (g.zipf(1.3, n) % 5000).tolist()]),
    "vectors": lambda g, n: g.standard_t(3, (n, 8)).astype(np.float32),
}


def speed() -> None:
    g = np.random.default_rng(0)
    sides = [{f"f{k}": g.normal(size=1_000_000) for k in range(50)} for _ in range(2)]
    walls, cpus = [], []
    for _ in range(7):
        wall, cpu = time.perf_counter(), time.process_time()
        assert compare_distributions(*sides).status == "same"
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    print(
        f"1 M x 50 against 1 M x 50: {statistics.median(walls):.2f} s, "
        f"{statistics.median(cpus):.2f} s of CPU"
    )


def memory() -> None:
    def chunks(seed: int, rows: int) -> Iterator[dict[str, Any]]:
        g = np.random.default_rng(seed)
        for _ in range(rows // 50_000):
            yield {f"f{k}": g.normal(size=50_000) for k in range(50)}

    compare_distributions(chunks(0, 100_000), chunks(1, 100_000))
    for rows in (500_000, 2_000_000):
        compare_distributions(chunks(0, rows), chunks(1, rows))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{rows:,} x 50 in chunks of 50,000: peak resident {peak:.0f} MB")


def null(pairs: int) -> None:
    for rows, share in (
        (300, 1.0),
        (1_000, 1.0),
        (10_000, 0.3),
        (100_000, 0.05),
        (1_000_000, 0.01),
    ):
        g = np.random.default_rng(rows)
        count = max(3, round(pairs * share))
        draws = DRAWS if rows < 1_000_000 else {k: v for k, v in DRAWS.items() if k != "ids"}
        alarms = 0
        for _ in range(count):
            sides = [{name: draw(g, rows) for name, draw in draws.items()} for _ in range(2)]
            alarms += compare_distributions(*sides).status == "skewed"
        print(f"n = {rows:>9,}: {alarms} of {count} pairs of equal tables with an alarm")


def power() -> None:
    g = np.random.default_rng(5)
    found = sum(
        compare_distributions({"x": g.normal(size=10_000)}, {"x": g.normal(0.2, 1, 10_000)}).status
        == "skewed"
        for _ in range(200)
    )
    print(f"0.2 deviations at n = 10,000: found in {found} of 200")
    alarms = sum(
        compare_distributions({"x": g.normal(size=10**6)}, {"x": g.normal(0.01, 1, 10**6)}).status
        == "skewed"
        for _ in range(20)
    )
    print(f"0.01 deviations at n = 1,000,000: alarms in {alarms} of 20")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", default=["speed", "memory", "null", "power"])
    parser.add_argument("--pairs", type=int, default=1000)
    given = parser.parse_args()
    work: dict[str, Callable[[], None]] = {
        "speed": speed, "memory": memory, "null": lambda: null(given.pairs), "power": power,
    }  # fmt: skip
    for section in given.sections:
        work[section]()


if __name__ == "__main__":
    main()
