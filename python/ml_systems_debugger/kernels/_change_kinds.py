"""Which change of a pipeline or of the world turns one sample into another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .robust_scale import clipped_distance, robust_scale

__all__ = ["NewValue", "kind_of", "new_value", "rounded_to"]

Floats = npt.NDArray[np.float64]

_GRID = np.linspace(0.05, 0.95, 19)
_LEAST_ATOM = 0.01
_DECIMALS = tuple(10.0**k for k in range(-6, 7))
_LEAST_GRID = 50  # values that must all lie on a grid before it is called one


@dataclass(frozen=True, slots=True)
class NewValue:
    """A value that took rows from the others; shares on both sides."""

    value: float
    kind: str  # clipped or default_value
    reference: float
    serving: float
    candidates: int


def kind_of(r: Floats, s: Floats, scale: float) -> tuple[str, dict[str, float]]:
    """Name the change between ascending samples: the simplest map that explains it.

    A factor away from zero is a unit change, an offset a shift, another spread a
    scale; values outside the old range a range; else the shape.
    """
    if s[0] == s[-1] and r[0] != r[-1]:
        return "constant", {"value": float(s[0])}
    if scale == 0.0:
        return ("no_longer_constant" if s[0] != s[-1] else "shift"), {}
    a, b = np.quantile(r, _GRID), np.quantile(s, _GRID)
    middles = float(np.median(r)), float(np.median(s))
    usable = np.abs(a) > 0.2 * scale
    # Around zero a factor is a change of spread; away from it, of unit.
    if usable.sum() >= 8 and abs(middles[0]) > scale:
        ratio = b[usable] / a[usable]
        factor = float(np.median(ratio))
        steady = bool(np.abs(ratio / factor - 1).max() < 0.15) if factor else False
        if steady and (factor > 1.8 or factor < 0.55):
            return "unit_change", {"factor": factor}
    spread = robust_scale(s)
    widths = spread / scale
    moved = (middles[1] - middles[0]) / scale
    if not 0.75 < widths < 1.33:
        return "scale", {"factor": widths}
    residue = float(np.abs((b - middles[1]) / max(spread, 1e-300) - (a - middles[0]) / scale).max())
    if abs(moved) >= 0.05 and residue < 0.35:
        return "shift", {"offset": middles[1] - middles[0]}
    if s[0] > r[0] + 3 * scale or s[-1] < r[-1] - 3 * scale:
        return "range", {}
    gaps = b - a
    offset = float(gaps.mean())
    # A shift where one offset takes away more than half of the difference.
    if np.abs(gaps - offset).mean() < 0.5 * np.abs(gaps).mean():
        return "shift", {"offset": offset}
    return "shape", {}


def new_value(r: Floats, s: Floats, scale: float) -> NewValue | None:
    """Return the value that holds rows which were spread before, or None.

    Clipped: the serving side ends in it, and the reference clipped there looks
    the same. A default value: the serving rows without it look as the
    reference does.
    """
    if s[0] == s[-1] or r[0] == r[-1]:
        return None
    values, counts = np.unique(s, return_counts=True)
    shares = counts / len(s)
    before = _share_of(r, values)
    gained = shares - before
    at = int(np.argmax(gained))
    if gained[at] < _LEAST_ATOM or before[at] > 0.2 * shares[at]:
        return None
    value = float(values[at])
    # At most so many values can hold about the least share each.
    tries = min(len(values), round(2 / _LEAST_ATOM))
    apart = _apart(r, s, scale)
    chosen = "default_value"
    if at in (0, len(values) - 1):
        # The other end may be clipped as well.
        low = s[0] if shares[0] >= _LEAST_ATOM and before[0] <= 0.2 * shares[0] else -np.inf
        high = s[-1] if shares[-1] >= _LEAST_ATOM and before[-1] <= 0.2 * shares[-1] else np.inf
        if _explained(_apart(np.clip(r, low, high), s, scale), apart, len(r), len(s)):
            return NewValue(value, "clipped", float(before[at]), float(shares[at]), tries)
    rest = s[s != value]
    if len(rest) < 20 or not _explained(_apart(r, rest, scale), apart, len(r), len(rest)):
        return None
    return NewValue(value, chosen, float(before[at]), float(shares[at]), tries)


def rounded_to(r: Floats, s: Floats) -> tuple[float, float] | None:
    """Return the step of the grid that only the serving side lies on.

    Powers of ten; with the step comes the share of the reference that lies on
    it too. None where there is no such grid or too little to tell.
    """
    if len(s) < _LEAST_GRID or s[0] == s[-1]:
        return None
    some = s[:: max(1, len(s) // 2048)]
    for step in reversed(_DECIMALS):
        if _on_grid(some, step) == 1.0 and _on_grid(s, step) == 1.0:
            there = _on_grid(r, step)
            return (step, there) if there < 0.5 and len(np.unique(s)) > 1 else None
    return None


def _on_grid(x: Floats, step: float) -> float:
    """Return the share of values that are multiples of `step`, as far as float64 can hold them."""
    # Dividing by a power of ten below one is less exact than multiplying by its inverse.
    scaled = x * round(1 / step) if step < 1 else x / step
    near = np.abs(scaled - np.rint(scaled)) <= 4e-16 * np.maximum(np.abs(scaled), 1.0) * 4
    # Where float64 itself is coarser than the step every number lies on the grid.
    near &= np.abs(scaled) < 2.0**43
    return float(near.mean())


def _share_of(x: Floats, values: Floats) -> Floats:
    found = np.searchsorted(x, values, "right") - np.searchsorted(x, values, "left")
    return np.asarray(found / len(x), np.float64)


def _apart(a: Floats, b: Floats, scale: float) -> float:
    return clipped_distance(a, b, scale or 1.0)


def _explained(left: float, apart: float, n: int, m: int) -> bool:
    """Return whether what is left is a third of what was, or what chance and long tails leave."""
    chance: float = 3 * (1 / n + 1 / m) ** 0.5
    return left <= max(apart / 3, chance)
