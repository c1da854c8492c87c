"""One knob for all thresholds: how each parameter of a detector follows `sensitivity`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from .parameters import check_range

__all__ = [
    "COUNT", "DISTANCE", "LEAST_SENSITIVITY", "MOST_SENSITIVITY", "PART", "RATIO", "RISK", "SHARE",
    "SLACK", "Scale", "check_sensitivity", "scaled", "scales",
]  # fmt: skip

LEAST_SENSITIVITY, MOST_SENSITIVITY = 0.05, 20.0


class Scale(NamedTuple):
    """How one parameter follows the sensitivity s, and the ends that it never passes.

    ``divide``: v / s, for distances that must be passed; ``root``: v ** (1 / s),
    for ratios, which are distances on the logarithm; ``power``: v ** s, for
    shares near 1 that must be reached and for ratios that must not;
    ``multiply``: v * s, for risks and for what counts as little; ``count``:
    v / s rounded up, for values in a row.
    """

    way: Literal["divide", "root", "power", "multiply", "count"]
    low: float = 0.0
    high: float = math.inf

    def within(self, low: float, high: float = math.inf) -> Scale:
        """Return the same with other ends."""
        return Scale(self.way, low, high)

    def at(self, value: float, sensitivity: float) -> float:
        """Return `value` as it is at a sensitivity."""
        if self.way == "count":
            return int(min(max(math.ceil(value / sensitivity), self.low), self.high))
        if self.way == "divide":
            moved = value / sensitivity
        elif self.way == "multiply":
            moved = value * sensitivity
        else:
            moved = value ** (sensitivity if self.way == "power" else 1.0 / sensitivity)
        return min(max(moved, self.low), self.high)


DISTANCE = Scale("divide")
PART = Scale("divide", 0.0, 1.0)
RATIO = Scale("root")
SHARE = Scale("power", 0.0, 1.0)
SLACK = Scale("power")
RISK = Scale("multiply", 0.0, 1.0)
COUNT = Scale("count", 1)


def scales(**ways: Scale) -> Mapping[str, Scale]:
    """Return what a detector says of its parameters, read only."""
    return MappingProxyType(ways)


def check_sensitivity(value: float) -> float:
    """Return `value` as a float.

    Raises
    ------
    ConfigurationError
        Unless it is a number from 0.05 to 20.
    """
    check_range("sensitivity", value, LEAST_SENSITIVITY, MOST_SENSITIVITY)
    return float(value)


def scaled(
    fields: tuple[dataclasses.Field[Any], ...],
    held: Mapping[str, Any],
    scales: Mapping[str, Scale],
    sensitivity: float,
) -> dict[str, Any]:
    """Return the parameters that change, as they are at a sensitivity.

    One that was set, that is, differs from its default, stays as it is.

    Parameters
    ----------
    fields : tuple of dataclasses.Field
    held : mapping of str to value
        The parameters now.
    scales : mapping of str to Scale
    sensitivity : float
    """
    return {
        one.name: scales[one.name].at(held[one.name], sensitivity)
        for one in fields
        if one.name in scales and held[one.name] == one.default
    }
