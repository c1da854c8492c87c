"""How long a live monitor may wait before it gives steps to a detector; see `latency`."""

from __future__ import annotations

__all__ = ["SLOW"]

SLOW = 256
"""Steps. For what comes over hundreds of steps, or what the monitor itself sees begin: values
that are not finite, a loss or a gradient that stands out, parameters that rest, gradients that
are zero. The price of a look is mostly that of code that left the caches since the last one."""
