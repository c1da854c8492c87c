"""Arrays of any library."""

from __future__ import annotations

from typing import Any

__all__ = ["on_host"]


def on_host(values: Any) -> Any:
    """Return a tensor apart from its graph and on the CPU; anything else as it is."""
    return values.detach().cpu() if hasattr(values, "detach") else values
