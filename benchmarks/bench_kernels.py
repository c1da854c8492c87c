"""Every kernel beside a plain-Python and a NumPy twin, through pytest-benchmark.

    python -m pytest benchmarks/bench_kernels.py --benchmark-columns=median,ops

Sizes are small enough for plain loops to end; the tables at DRAM size, against
the read limit and against peers, come from the other files of this folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import kernels

N = 100_000
rng = np.random.default_rng(0)
x = rng.normal(size=N).astype(np.float32)
y = np.cumsum(rng.normal(size=N))
values = x.tolist()
walk = y.tolist()
p = rng.dirichlet(np.ones(4096))
q = rng.dirichlet(np.ones(4096))
spread = rng.normal(10, 1, (N // 8, 8))

Call = Callable[[], object]


def plain_nonfinite() -> bool:
    return any(v != v or v in (math.inf, -math.inf) for v in values)


def plain_norm() -> float:
    total = 0.0
    for v in values:
        total += v * v
    return math.sqrt(total)


def plain_stats() -> tuple[float, ...]:
    low, high, total, magnitude, squares = math.inf, -math.inf, 0.0, 0.0, 0.0
    for v in values:
        low, high = min(low, v), max(high, v)
        total += v
        magnitude += abs(v)
        squares += v * v
    return low, high, total / N, math.sqrt(squares / N - (total / N) ** 2), magnitude


def numpy_stats() -> tuple[float, ...]:
    return (
        x.min(), x.max(), x.mean(dtype=np.float64), x.std(dtype=np.float64), np.abs(x).sum(),
        np.linalg.norm(x), np.isnan(x).sum(), np.isinf(x).sum(), (x == 0).sum(),
    )  # fmt: skip


def plain_kl() -> float:
    return sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True) if a)


def plain_rolling() -> list[float]:
    total, out = 0.0, []
    for at, value in enumerate(walk):
        total += value - (walk[at - 200] if at >= 200 else 0.0)
        out.append(total / min(at + 1, 200))
    return out


def numpy_rolling() -> tuple[Any, ...]:
    windows = np.lib.stride_tricks.sliding_window_view(y, 200)
    return windows.mean(axis=1), windows.std(axis=1)


def plain_cusum() -> int:
    up = down = alarms = 0.0
    mean, size = walk[0], 1.0
    for value in walk:
        z = max(-3.0, min(3.0, (value - mean) / size))
        up, down = max(0.0, up + z - 0.5), max(0.0, down - z - 0.5)
        if up > 8 or down > 8:
            alarms, up, down = alarms + 1, 0.0, 0.0
        mean += 0.01 * (value - mean)
        size += 0.01 * (abs(value - mean) - size)
    return int(alarms)


def plain_spread() -> list[float]:
    out = []
    for row in spread.tolist():
        ordered = sorted(row)
        middle = (ordered[3] + ordered[4]) / 2
        distances = sorted(abs(v - middle) for v in row)
        out.append((distances[3] + distances[4]) / 2)
    return out


def numpy_spread() -> Any:
    middle = np.median(spread, axis=1)
    return np.median(np.abs(spread - middle[:, None]), axis=1)


def cusum() -> Any:
    fold = kernels.Cusum()
    return fold.update(fold.init(), y)


CALLS: dict[str, dict[str, Call]] = {
    "non-finite scan, 100 k float32": {
        "kernel": lambda: kernels.has_nonfinite(x),
        "numpy": lambda: bool(np.isfinite(x).all()),
        "plain": plain_nonfinite,
    },
    "L2 norm, 100 k float32": {
        "kernel": lambda: kernels.l2_norm(x),
        "numpy": lambda: float(np.linalg.norm(x)),
        "plain": plain_norm,
    },
    "all statistics, 100 k float32": {
        "kernel": lambda: kernels.tensor_stats(x),
        "numpy": numpy_stats,
        "plain": plain_stats,
    },
    "digest, 100 k float32": {
        "kernel": lambda: kernels.digest(x),
        "numpy": lambda: int(x.view(np.uint64).sum(dtype=np.uint64)),
        "plain": lambda: hash(x.tobytes()),
    },
    "KL divergence, 4096 bins": {
        "kernel": lambda: kernels.kl_divergence(p, q),
        "numpy": lambda: float(np.sum(p * np.log(p / q))),
        "plain": plain_kl,
    },
    "rolling mean and deviation, window 200, 100 k": {
        "kernel": lambda: kernels.rolling(y, 200, stats=("mean", "std")),
        "numpy": numpy_rolling,
        "plain": plain_rolling,
    },
    "CUSUM fold, 100 k": {"kernel": cusum, "plain": plain_cusum},
    "replica spread, 12.5 k steps x 8": {
        "kernel": lambda: kernels.replica_spread(spread),
        "numpy": numpy_spread,
        "plain": plain_spread,
    },
}
CASES = [
    pytest.param(calls[who], marks=pytest.mark.benchmark(group=group), id=f"{who}-{group}")
    for group, calls in CALLS.items()
    for who in calls
]


@pytest.mark.parametrize("call", CASES)
def test_kernel(benchmark: Any, call: Call) -> None:
    assert benchmark(call) is not None
