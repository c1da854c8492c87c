"""What a callback gives its monitor."""

from __future__ import annotations

from typing import Any


def follow(callback: Any, told: list[dict[str, Any]]) -> None:
    """Note what the monitor is given."""
    begin = callback._feed.begin

    def begun(model: Any, optimizer: Any) -> Any:
        monitor = begin(model, optimizer)
        observe = monitor.observe

        def noted(step: int, **given: Any) -> Any:
            told.append({"step": step, **given})
            return observe(step, **given)

        monitor.observe = noted
        return monitor

    callback._feed.begin = begun
