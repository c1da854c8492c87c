"""Measuring kernels: interleaved rounds, medians, and the read limit in the same process.

Absolute speeds move with the machine and with its neighbours. What stays is the
fraction of the read limit: the time in which the same bytes are only loaded, by
a native loop that is called in the same way, in the same rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ml_systems_debugger import _core

__all__ = ["fractions", "medians", "net_of_loop", "read_limit", "sample"]

Call = Callable[[], object]


def sample(dtype: str, n: int, seed: int = 0) -> npt.NDArray[Any]:
    """Return n gradient-like values N(0, 1e-3): no zeros, none subnormal in float32."""
    rng = np.random.default_rng(seed)
    # Drawn once and repeated: 64 Mi normal values take a second per dtype otherwise.
    few = rng.normal(0, 1e-3 if "float8" not in dtype else 1.0, min(n, 1 << 20))
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    return np.resize(few.astype(kind), n)


def read_limit(x: npt.NDArray[Any]) -> Call:
    """Return a call that loads every byte of x and does nothing else."""
    raw = x.view(np.uint8)
    return lambda: _core.read_all(raw)


def medians(
    calls: Mapping[str, Call], rounds: int = 15, least: float = 0.002, threads: int = 2
) -> dict[str, float]:
    """Return the median seconds of one call of each, all taken in turn in every round.

    Parameters
    ----------
    calls : mapping of name to function without arguments
    rounds : int
    least : float
        Seconds that one sample lasts at least: short calls are repeated.
    threads : int
        Where the calls run on one thread, its processor time is taken, which leaves
        out what other processes took of the core; otherwise the time on the wall.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    repeats: dict[str, int] = {}
    for name, call in calls.items():
        call()
        begin = clock()
        call()
        repeats[name] = max(1, int(least / max(clock() - begin, 1e-8)))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            again = range(repeats[name])
            begin = clock()
            for _ in again:
                call()
            taken[name].append((clock() - begin) / repeats[name])
    return {name: statistics.median(values) for name, values in taken.items()}


def fractions(
    x: npt.NDArray[Any], calls: Mapping[str, Call], rounds: int = 15, threads: int = 2
) -> dict[str, float]:
    """Return the speed of each call over x as a fraction of the read limit; "limit" in GB/s."""
    found = medians({"limit": read_limit(x), **calls}, rounds, threads=threads)
    limit = found.pop("limit")
    return {"limit": x.nbytes / limit / 1e9, **{name: limit / s for name, s in found.items()}}


def net_of_loop(call: Call, number: int = 20_000, rounds: int = 15) -> float:
    """Return the nanoseconds of a call, less those of calling a function that does nothing."""

    def nothing() -> None:
        return None

    found = medians({"call": call, "loop": nothing}, rounds, number * 1e-7, threads=1)
    return (found["call"] - found["loop"]) * 1e9
