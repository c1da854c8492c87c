"""What the benchmarks against peers share: optional peers, and a table."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from _limits import medians

__all__ = ["compare", "peer"]


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
    """Time calls in interleaved rounds and print medians, with the ratio to the first one.

    Calls that are None are left out. Returns the medians in seconds.
    """
    found = medians({name: call for name, call in calls.items() if call is not None}, rounds)
    first = next(iter(found.values()))
    print(f"\n{title}")
    for name, seconds in found.items():
        print(f"  {name:42} {seconds * scale:12.4g} {unit}   x{seconds / first:.3g}")
    return found
