"""The array kernels against the read limit, their bars and their peers.

    python benchmarks/kernels.py [limits|nan|gradients|small|accuracy|peers ...] [--json FILE]

Everything is taken in interleaved rounds and printed as medians; see `_limits.py`.
`MLSD_TARGET=v3` in the environment measures another instruction set.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from _limits import fractions, medians, net_of_loop, read_limit, sample
from _peers import peer
from ml_systems_debugger import _core, kernels

Found = dict[str, Any]
COLUMNS = (("L2", 1 << 16, 1), ("4 MiB", 4 << 20, 1), ("DRAM 1T", 256 << 20, 1),
           ("DRAM 2T", 256 << 20, 2))  # fmt: skip
KERNELS: dict[str, Callable[[Any], object]] = {
    "has_nonfinite": kernels.has_nonfinite,
    "l2_norm": kernels.l2_norm,
    "tensor_stats": kernels.tensor_stats,
    "digest": kernels.digest,
}
WIDE = {
    "has_nonfinite": (0.85, 0.93, 0.95, 0.93),
    "l2_norm": (0.80, 0.93, 0.95, 0.92),
    "tensor_stats": (0.45, 0.90, 0.95, 0.90),
    "digest": (0.60, 0.90, 0.95, 0.92),
}
HALF = {
    "has_nonfinite": (0.75, 0.93, 0.87, 0.85),
    "l2_norm": (0.60, 0.90, 0.95, 0.92),
    "tensor_stats": (0.30, 0.75, 0.80, 0.75),
    "digest": (0.60, 0.90, 0.95, 0.92),
}
BARS = {"float32": WIDE, "float64": WIDE, "bfloat16": HALF, "float16": HALF}


def limits(rounds: int) -> Found:
    """Fractions of the read limit, by dtype, kernel and size."""
    out: Found = {}
    print(f"\nfractions of the read limit, target {kernels.target()} (bar in brackets)")
    for dtype in (*BARS, "float8_e4m3fn"):
        big = sample(dtype, (256 << 20) // sample(dtype, 1).itemsize)
        rows: dict[str, list[float]] = {}
        for _, size, threads in COLUMNS:
            kernels.set_num_threads(threads)
            # Small arrays as NumPy allocates them; a view of the large one would be as aligned.
            x = big[: size // big.itemsize].copy() if size < 1 << 28 else big
            calls = {name: (lambda f=f, x=x: f(x)) for name, f in KERNELS.items()}
            for name, value in fractions(x, calls, rounds, threads).items():
                rows.setdefault(name, []).append(round(value, 3))
        kernels.set_num_threads(0)
        out[dtype] = rows
        print(f"\n{dtype:16}" + "".join(f"{name:>16}" for name, _, _ in COLUMNS))
        print(f"  {'limit, GB/s':14}" + "".join(f"{v:16.1f}" for v in rows["limit"]))
        for name in KERNELS:
            bars = BARS.get(dtype, {}).get(name, (None,) * 4)
            cells = (
                f"{v:8.2f} ({b:.2f}){' ' if v >= b else '<'}" if b else f"{v:8.2f}        "
                for v, b in zip(rows[name], bars, strict=True)
            )
            print(f"  {name:14}" + "".join(f"{c:>16}" for c in cells))
    return out


def nan(rounds: int) -> Found:
    """Time over a tensor full of NaN against a clean one."""
    clean = sample("float32", 16 << 20)
    dirty = clean.copy()
    dirty[:] = np.nan
    kernels.set_num_threads(1)
    out: Found = {}
    print("\nfull of NaN against clean, 64 MiB float32, ratio of times (bar 1.5)")
    for name, call in {"count_nonfinite": kernels.count_nonfinite, **KERNELS}.items():
        found = medians(
            {"dirty": lambda f=call: f(dirty), "clean": lambda f=call: f(clean)}, rounds, threads=1
        )
        out[name] = round(found["dirty"] / found["clean"], 3)
        print(f"  {name:16}{out[name]:8.2f}")
    kernels.set_num_threads(0)
    return out


def gpt2_shapes() -> list[tuple[int, ...]]:
    """Return the shapes of GPT-2 small's 148 parameters."""
    d = 768
    block: list[tuple[int, ...]] = [
        (d,), (d,), (d, 3 * d), (3 * d,), (d, d), (d,), (d,), (d,), (d, 4 * d), (4 * d,),
        (4 * d, d), (d,),
    ]  # fmt: skip
    return [(50257, d), (1024, d), *(shape for _ in range(12) for shape in block), (d,), (d,)]


def gradients(rounds: int) -> Found:
    """Global norm with its verdict, and all statistics, of GPT-2 small's gradients."""
    torch = peer("torch")
    sizes = [math.prod(shape) for shape in gpt2_shapes()]
    out: Found = {}
    print(
        f"\n{len(sizes)} gradients of GPT-2 small, {sum(sizes) / 1e6:.1f} M values, ms and ratios"
    )
    for dtype in ("float32", "bfloat16"):
        flat = sample(dtype, sum(sizes))
        xs: list[Any] = np.split(flat, np.cumsum(sizes)[:-1])
        rows = np.zeros(len(xs), kernels.STATS_DTYPE)
        calls: dict[str, Callable[[], object]] = {
            "limit": read_limit(flat),
            "global_norm": lambda xs=xs: math.isfinite(kernels.global_norm(xs)),
            "tensor_stats_many": lambda xs=xs, rows=rows: kernels.tensor_stats_many(xs, rows),
        }
        if torch is not None:
            raw = torch.from_numpy(flat.view(np.uint8))
            ts = list(raw.view(getattr(torch, dtype)).split(sizes))
            calls["torch"] = lambda ts=ts: bool(torch.isfinite(torch.nn.utils.get_total_norm(ts)))
        found = medians(calls, rounds)
        out[dtype] = {k: round(v * 1e3, 2) for k, v in found.items()}
        line = ", ".join(f"{k} {v * 1e3:.1f} ({v / found['limit']:.2f})" for k, v in found.items())
        print(f"  {dtype:9} {line}")
    return out


def small(rounds: int) -> Found:
    """Nanoseconds of calls with 64 floats, net of the loop."""
    torch = peer("torch")
    x = sample("float32", 64)
    xs = [x.copy() for _ in range(148)]
    calls: dict[str, tuple[Callable[[], object], float]] = {
        "has_nonfinite": (lambda: kernels.has_nonfinite(x), 60),
        "l2_norm": (lambda: kernels.l2_norm(x), 60),
        "tensor_stats": (lambda: kernels.tensor_stats(x), 400),
        "global_norm of 148 arrays": (lambda: kernels.global_norm(xs), 3000),
    }
    if torch is not None:
        t = torch.from_numpy(x)
        ts = [torch.from_numpy(one) for one in xs]
        calls["has_nonfinite, torch"] = (lambda: kernels.has_nonfinite(t), 350)
        calls["tensor_stats, torch"] = (lambda: kernels.tensor_stats(t), 350)
        calls["global_norm of 148 tensors"] = (lambda: kernels.global_norm(ts), 30000)
    out: Found = {}
    print("\nsmall calls, 64 float32, ns net of the loop (bar)")
    for name, (call, bar) in calls.items():
        out[name] = round(net_of_loop(call, rounds=rounds), 1)
        print(f"  {name:28}{out[name]:10.0f} ({bar}){'' if out[name] <= bar else ' <'}")
    return out


def accuracy(rounds: int) -> Found:
    """Relative errors against float64 (math.fsum) over 40 M values, and at the extremes."""
    out: Found = {}
    print("\nrelative error (bar)")
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1e-3, 40_000_000).astype(np.float32)

    def exact(x: npt.NDArray[Any]) -> float:
        parts = (x[i : i + (1 << 20)].astype(np.float64) for i in range(0, len(x), 1 << 20))
        return math.sqrt(math.fsum(math.fsum(part * part) for part in parts))

    cases: list[tuple[str, float, float, float]] = []
    for dtype, bar in (("float32", 1e-9), ("bfloat16", 1e-7), ("float16", 1e-7)):
        x = values.astype(sample(dtype, 1).dtype)
        want = exact(x)
        cases.append((f"l2_norm, 40 M {dtype}", kernels.l2_norm(x), want, bar))
        cases.append((f"tensor_stats l2, 40 M {dtype}", kernels.tensor_stats(x).l2, want, bar))
    for value, kind in ((1e30, "f4"), (1e300, "f8"), (1e-42, "f4"), (1e-310, "f8")):
        x = np.full(4096, value, kind)
        cases.append((f"4096 x {value:g}", kernels.l2_norm(x), 64 * float(x[0]), 1e-6))
    x = rng.normal(size=4_000_000) + 1e8
    stats = kernels.tensor_stats(x)
    mean = math.fsum(x) / len(x)
    spread = math.sqrt(math.fsum((x - mean) ** 2) / len(x))
    cases.append(("mean, offset 1e8", stats.mean, mean, 1e-9))
    cases.append(("std, offset 1e8", stats.std, spread, 1e-9))
    for name, got, want, bar in cases:
        out[name] = abs(got / want - 1)
        print(f"  {name:32}{out[name]:10.1e} ({bar:g}){'' if out[name] <= bar else ' <'}")
    return out


def peers(rounds: int) -> Found:
    """The same arrays through other libraries, GB/s, one thread where they allow it."""
    torch, bottleneck, numkong = peer("torch"), peer("bottleneck"), peer("numkong")
    sklearn = peer("sklearn.utils")
    if torch is not None:
        torch.set_num_threads(1)
    kernels.set_num_threads(1)
    out: Found = {}
    print("\nagainst peers, GB/s, one thread")
    for label, size in (("64 KiB", 1 << 16), ("4 MiB", 4 << 20), ("256 MiB", 256 << 20)):
        x = sample("float32", size // 4)
        t = None if torch is None else torch.from_numpy(x)
        calls: dict[str, Callable[[], object] | None] = {
            "limit": read_limit(x),
            "has_nonfinite": lambda x=x: kernels.has_nonfinite(x),
            "  np.isfinite().all()": lambda x=x: np.isfinite(x).all(),
            "  bottleneck.anynan": (lambda x=x: bottleneck.anynan(x)) if bottleneck else None,
            "  sklearn.assert_all_finite": (
                (lambda x=x: sklearn.assert_all_finite(x)) if sklearn else None
            ),
            "  torch.isfinite().all()": (
                (lambda t=t: bool(torch.isfinite(t).all())) if torch else None
            ),
            "l2_norm": lambda x=x: kernels.l2_norm(x),
            "  np.linalg.norm": lambda x=x: np.linalg.norm(x),
            "  torch vector_norm": (
                (lambda t=t: float(torch.linalg.vector_norm(t))) if torch else None
            ),
            "  numkong.norm": (lambda x=x: numkong.norm(x)) if hasattr(numkong, "norm") else None,
            "tensor_stats": lambda x=x: kernels.tensor_stats(x),
            "  NumPy, 11 statistics": lambda x=x: numpy_statistics(x),
            "digest": lambda x=x: kernels.digest(x),
        }
        if size == 1 << 16:
            values = x.tolist()
            calls["  pure Python, isfinite"] = lambda v=values: all(map(math.isfinite, v))
            calls["  pure Python, norm"] = lambda v=values: math.sqrt(sum(a * a for a in v))
        usable = {name: call for name, call in calls.items() if call is not None}
        found = medians(usable, max(3, rounds // 3), threads=1)
        out[label] = {name.strip(): round(x.nbytes / s / 1e9, 3) for name, s in found.items()}
        print(f"\n{label}")
        for name, seconds in found.items():
            print(f"  {name:28}{x.nbytes / seconds / 1e9:10.2f}")
    kernels.set_num_threads(0)
    return out


def numpy_statistics(x: npt.NDArray[Any]) -> tuple[object, ...]:
    """Return eleven of `tensor_stats`'s fields as NumPy users compute them."""
    finite = np.isfinite(x)
    magnitude = np.abs(x)
    return (
        np.isnan(x).sum(), finite.sum(), (x == 0).sum(), (magnitude < 2.0**-126).sum(), x.min(),
        x.max(), magnitude.max(), x.mean(), x.std(), magnitude.sum(), np.linalg.norm(x),
    )  # fmt: skip


SECTIONS = {
    "limits": limits, "nan": nan, "gradients": gradients, "small": small, "accuracy": accuracy,
    "peers": peers,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    print(f"{sys.version.split()[0]}, NumPy {np.__version__}, targets {_core.available_targets()}")
    found = {name: SECTIONS[name](options.rounds) for name in options.sections or SECTIONS}
    if options.json is not None:
        old = json.loads(options.json.read_text()) if options.json.exists() else {}
        options.json.write_text(json.dumps({**old, kernels.target(): found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
