"""Checks of constructor parameters: one sentence that names the parameter and the value."""

from __future__ import annotations

import math
from numbers import Integral
from typing import SupportsFloat

from .errors import ConfigurationError

__all__ = ["check_count", "check_fraction", "check_positive", "check_range"]


def check_range(
    name: str, value: SupportsFloat, low: float, high: float, *, open_low: bool = False
) -> None:
    """Raise `ConfigurationError` unless `value` is a number in [low, high].

    With `open_low` the lower end itself is refused too.
    """
    try:
        if isinstance(value, (str, bytes)):  # float() would take them, later arithmetic not
            raise TypeError
        number = float(value)
    except OverflowError:  # an int beyond the largest float
        number = math.inf if value > 0 else -math.inf  # type: ignore[operator]
    except (TypeError, ValueError):
        raise ConfigurationError(f"{name} is a number, got {value!r}") from None
    outside = number <= low if open_low else number < low
    if math.isnan(number) or outside or number > high:
        bracket = "(" if open_low else "["
        raise ConfigurationError(f"{name} lies in {bracket}{low}, {high}], got {value!r}")


def check_positive(**values: SupportsFloat) -> None:
    """Raise `ConfigurationError` unless every value is a finite number above 0."""
    for name, value in values.items():
        check_range(name, value, 0.0, 1.7976931348623157e308, open_low=True)


def check_fraction(**values: SupportsFloat) -> None:
    """Raise `ConfigurationError` unless every value lies in [0, 1]."""
    for name, value in values.items():
        check_range(name, value, 0.0, 1.0)


def check_count(minimum: int = 1, **values: int) -> None:
    """Raise `ConfigurationError` unless every value is an int of at least `minimum`."""
    for name, value in values.items():
        given: object = value  # a caller without types may pass anything
        whole = isinstance(given, Integral) and not isinstance(given, bool)
        if not whole or value < minimum:
            raise ConfigurationError(f"{name} is an int of at least {minimum}, got {value!r}")
