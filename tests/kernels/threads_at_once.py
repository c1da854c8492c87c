"""Every kernel from many threads at once, in a process that has not called any before.

    python tests/kernels/threads_at_once.py [--threads 8] [--rounds 20]

Exits with 0 where each thread found what one thread alone finds, bit for bit. Caches that the
first call fills are filled by several here; without a GIL they run truly at once.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ml_systems_debugger import kernels
from ml_systems_debugger.kernels.live import live_norms
from ml_systems_debugger.kernels.trail import TRAIL_SIZE, settings, trail_fold

Call = Callable[[], Any]


def calls() -> dict[str, Call]:
    """Return calls that write to nothing they share."""
    rng = np.random.default_rng(0)
    small = [rng.standard_normal(64).astype(np.float32) for _ in range(148)]
    large = rng.standard_normal(400_000)
    typed: list[Any] = [large.astype(t) for t in (np.float64, np.float32, np.float16, np.int32)]
    try:
        import ml_dtypes

        names = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu")
        typed += [large[:5000].astype(getattr(ml_dtypes, name)) for name in names]
    except ImportError:
        pass
    try:
        import torch

        typed += [torch.from_numpy(large).to(t) for t in (torch.float32, torch.bfloat16)]
        typed += [torch.nn.Parameter(torch.from_numpy(small[0]))]
    except ImportError:
        pass
    strided, series = large[::3], large[:20_000]
    p, q = np.abs(large[:5000]) + 0.1, np.abs(large[5000:10_000]) + 0.1

    def fold() -> Any:
        row = np.zeros(TRAIL_SIZE)
        trail_fold(series, np.arange(len(series)), 0, row, settings(early=5.0))
        return row

    def live() -> Any:
        norms, there = np.zeros(len(small)), np.zeros(len(small), np.bool_)
        return live_norms(small, norms, there), norms, there

    found: dict[str, Call] = {
        "global_norm": lambda: kernels.global_norm(small),
        "tensor_stats_many": lambda: kernels.tensor_stats_many(small + typed),
        "digest_many": lambda: kernels.digest_many(small),
        "strided": lambda: kernels.tensor_stats(strided),
        "histogram": lambda: kernels.histogram(large, 64, (-3.0, 3.0)),
        "kl_divergence": lambda: kernels.kl_divergence(p, q),
        "rolling": lambda: kernels.rolling(large, 50, ("mean", "std", "slope", "min", "median")),
        "replica_spread": lambda: kernels.replica_spread(large[:8000].reshape(1000, 8)),
        "trail_fold": fold,
        "live_norms": live,
    }
    for at, one in enumerate(typed):
        for name in ("has_nonfinite", "count_nonfinite", "l2_norm", "max_norm", "tensor_stats",
                     "digest"):  # fmt: skip
            call = getattr(kernels, name)
            found[f"{name} {at}"] = lambda call=call, one=one: call(one)
    return found


def main() -> int:
    """Compare; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    every = calls()
    told: list[list[str]] = [[] for _ in range(given.threads)]
    errors: list[str] = []
    start = threading.Barrier(given.threads)

    def work(mine: int) -> None:
        order = list(every)
        np.random.default_rng(mine).shuffle(order)
        start.wait()
        for _ in range(given.rounds):
            for name in order:
                try:
                    told[mine].append(f"{name}: {shown(every[name]())}")
                except Exception as error:  # noqa: BLE001, PERF203 - told with the thread's results
                    errors.append(f"{name}: {error!r}")

    workers = [threading.Thread(target=work, args=(at,)) for at in range(given.threads)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    alone = {f"{name}: {shown(call())}" for name, call in every.items()}
    wrong = {text.split(":")[0] for mine in told for text in mine if text not in alone}
    locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"{sum(map(len, told))} calls of {len(every)} kinds by {given.threads} threads, "
          f"{'with' if locked else 'without'} a GIL")  # fmt: skip
    print("wrong:", sorted(wrong), "errors:", sorted(set(errors)))
    return 1 if wrong or errors else 0


def shown(result: Any) -> str:
    """Return a result as text that tells bits apart."""
    if isinstance(result, np.ndarray):
        return result.tobytes().hex()
    if isinstance(result, dict):
        return ",".join(f"{key}={shown(one)}" for key, one in result.items())
    if isinstance(result, (tuple, list)):
        return ",".join(map(shown, result))
    if isinstance(result, kernels.TensorStats):
        names = [name for name in dir(result) if not name.startswith("_") and name != "merge"]
        return ",".join(f"{name}={getattr(result, name)!r}" for name in names)
    return repr(result)


if __name__ == "__main__":
    sys.exit(main())
