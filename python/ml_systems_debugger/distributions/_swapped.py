"""Columns that came in each other's place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..core import Severity
from ..kernels.robust_scale import clipped_distance, robust_scale
from ._numbers import NumberFeature
from .profile import Profile
from .report import FeatureComparison

__all__ = ["swapped"]

_VALUES = 512
_MOST = 64  # skewed features beyond which no order is sought: the table itself is another


def swapped(
    rows: Sequence[FeatureComparison], a: Profile, b: Profile, effect: float
) -> list[FeatureComparison]:
    """Name the skewed numeric features whose serving values are those of another feature.

    A feature counts where exactly one other reference feature is as near as
    chance lets it be, and those others are in turn among the ones that moved.
    """
    found = list(rows)
    moved = [
        (at, one.name)
        for at, one in enumerate(found)
        if one.skewed and isinstance(a.features[one.name], NumberFeature)
    ]
    if not 2 <= len(moved) <= _MOST:
        return found
    before = [_thin(a, name) for _, name in moved]
    after = [_thin(b, name) for _, name in moved]
    if any(len(x) < 50 for x in (*before, *after)):
        return found
    source: dict[int, int] = {}
    for i, (_, name) in enumerate(moved):
        near = [j for j in range(len(moved)) if j != i and _near(before[j], after[i], effect)]
        missing = b.features[name].missing / max(b.features[name].count, 1)
        near = [
            j for j in near
            if abs(missing - a.features[moved[j][1]].missing
                   / max(a.features[moved[j][1]].count, 1)) < 0.02
        ]  # fmt: skip
        if len(near) == 1:
            source[i] = near[0]
    # A permutation: everyone who gives also gets.
    while True:
        kept = {i: j for i, j in source.items() if j in source and i in source.values()}
        kept = {i: j for i, j in kept.items() if list(kept.values()).count(j) == 1}
        if kept == source:
            break
        source = kept
    for i, j in source.items():
        at = moved[i][0]
        found[at] = replace(
            found[at], kind="swapped_columns", severity=Severity.HIGH,
            details={"holds": moved[j][1]},
        )  # fmt: skip
    return found


def _thin(profile: Profile, name: str) -> npt.NDArray[np.float64]:
    feature = profile.features[name]
    assert isinstance(feature, NumberFeature)  # noqa: S101 - chosen so above
    values = feature.side().values
    return values[np.linspace(0, len(values) - 1, min(len(values), _VALUES)).astype(np.int64)]


def _near(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], effect: float) -> bool:
    scale = robust_scale(x)
    return scale != 0.0 and clipped_distance(x, y, scale) < effect
