"""How far the noise of a series reaches, as its own largest values say."""

from __future__ import annotations

import math

import numpy as np

from ._trail import Floats

__all__ = ["BLOCK", "TAIL", "admit", "grow", "reach"]

TAIL = 16  # values of each tail that are kept
BLOCK = 16  # values about whose median distances are measured
_FOURTH = TAIL - 4
_MOVED = 4.0  # standard deviations within a block: then it is the level that moves, not noise
_HEAVIEST = 1.0  # index of a Cauchy law; nothing that is trained has a heavier tail


def admit(tail: Floats, values: Floats) -> None:
    """Put `values` among the largest, in place; `tail` [16] rises."""
    larger = values[values > tail[0]]
    if len(larger):
        tail[:] = np.sort(np.concatenate([tail, larger]))[-TAIL:]


def grow(tails: Floats, block: Floats, z: Floats, sigmas: float) -> None:
    """Put distances of single values into the tails [2, 16]: below and above.

    Distances are from the median of each sixteen values, so that a level which
    lags behind a falling loss does not look like noise. Values of `sigmas` or
    more above the level are left out: they are excursions, and are admitted
    once each by their peak; and so are sixteen values between whose halves the
    level moves by four, as where a loss leaves its start. `block` [16] holds what
    does not fill sixteen yet, behind NaN.
    """
    held = np.concatenate([block[np.isfinite(block)], z[np.isfinite(z)]])
    whole = len(held) // BLOCK * BLOCK
    block[:] = np.nan
    if rest := len(held) - whole:
        block[-rest:] = held[whole:]
    if whole:
        blocks = held[:whole].reshape(-1, BLOCK)
        away = blocks - np.median(blocks, axis=1, keepdims=True)
        far = np.flatnonzero((away.max(1) > tails[1, 0]) | (-away.min(1) > tails[0, 0]))
        if len(far):
            blocks, away = blocks[far], away[far]
            halves = np.median(blocks.reshape(-1, 2, BLOCK // 2), axis=2)
            still = np.abs(halves[:, 1] - halves[:, 0]) <= _MOVED
            blocks, away = blocks[still], away[still]
            admit(tails[0], -away.ravel())
            admit(tails[1], away[blocks < sigmas])


def reach(tails: Floats, chance: float) -> float:
    """Return the distance that noise passes in one run of 1 / `chance`.

    Beyond its fourth largest value a tail goes on as the power of its index:
    ``log(x4 / x16) / log 4``. A tail of fewer values says nothing.
    """
    lines = [0.0]
    for tail in tails:
        near, far = float(tail[0]), float(tail[_FOURTH])
        if near > 0:
            index = min(math.log(far / near) / math.log(TAIL / 4), _HEAVIEST)
            lines.append(far * (4.0 / chance) ** index)
    return max(lines)
