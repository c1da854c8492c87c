"""What the benchmarks against peers share: optional peers, interleaved rounds, a table."""

from __future__ import annotations

import importlib
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["compare", "peer"]

_LEAST = 0.002  # seconds that one sample lasts at least: short calls are repeated


def peer(name: str) -> Any:
    """Return a library, or None where it is not installed: its rows are then left out."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def compare(
    title: str,
    calls: Mapping[str, Callable[[], object] | None],
    *,
    scale: float = 1e3,
    unit: str = "ms",
    rounds: int = 5,
) -> dict[str, float]:
    """Time calls in interleaved rounds and print a table; calls that are None are left out.

    The order changes from round to round: whoever comes after a slow one finds
    memory that was free so long that the host of a virtual machine took it back.
    Printed are the least wall time and the least CPU time of the process (all
    threads together, page faults included), each with its ratio to the first
    call's. The least of interleaved rounds, since neighbours on a shared machine
    only ever add. Returns CPU seconds.
    """
    usable = {name: call for name, call in calls.items() if call is not None}
    wall: dict[str, list[float]] = {name: [] for name in usable}
    cpu: dict[str, list[float]] = {name: [] for name in usable}
    again: dict[str, int] = {}
    for name, call in usable.items():
        call()
        begin = time.process_time()
        call()
        again[name] = max(1, int(_LEAST / max(time.process_time() - begin, 1e-8)))
    chance = random.Random(0)
    for _ in range(rounds):
        order = list(usable.items())
        chance.shuffle(order)
        for name, call in order:
            count = again[name]
            begin, begin_cpu = time.perf_counter(), time.process_time()
            for _ in range(count):
                call()
            wall[name].append((time.perf_counter() - begin) / count)
            cpu[name].append((time.process_time() - begin_cpu) / count)
    walls = {name: min(values) for name, values in wall.items()}
    cpus = {name: min(values) for name, values in cpu.items()}
    first = next(iter(usable))
    print(f"\n{title:44} {'least wall':>10} {unit:4}   ratio {'least CPU':>10} {unit:4}   ratio")
    for name in usable:
        print(
            f"  {name:42} {walls[name] * scale:10.4g} {'':4} {walls[name] / walls[first]:7.3g} "
            f"{cpus[name] * scale:10.4g} {'':4} {cpus[name] / cpus[first]:7.3g}"
        )
    return cpus
