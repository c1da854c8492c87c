"""What other series of the run say: how far the loss came, what the learning rate did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import SeriesKey, SeriesKind
from ..kernels.trail import Field, settings
from ._trail import Floats, Trail

__all__ = [
    "Followed",
    "has_norm",
    "held_out_rise",
    "is_learning_rate",
    "is_training_loss",
    "learning_rate_facts",
    "losses_of",
    "progress",
    "suffers",
]

Followed = tuple[SeriesKey, Trail]

LOSS_SETTINGS = settings(relative=0.1, early=5.0, rise=np.inf)
"""A loss that is looked at, but never a reason to stop."""

RATE_SETTINGS = settings(floor=np.inf, rise=np.inf)
"""A learning rate: a schedule has no excursions."""

_ENTRIES_BEFORE = 10
_FEW = 5


def is_training_loss(key: SeriesKey) -> bool:
    """Return whether a series is the loss that training descends."""
    return (
        key.name == "loss"
        and key.kind is SeriesKind.SCALAR
        and key.layer is None
        and not key.held_out
    )


def is_learning_rate(key: SeriesKey) -> bool:
    """Return whether a series is the learning rate of the whole model."""
    return key.name == "lr" and key.kind is SeriesKind.SCALAR and key.layer is None


def has_norm(key: SeriesKey, followed: Sequence[Followed]) -> bool:
    """Return whether `key` holds gradient arrays whose norm is there as a series of its own."""
    norm = key._replace(name="grad_norm", kind=SeriesKind.SCALAR)
    return key.kind is SeriesKind.ARRAY and any(other == norm for other, _ in followed)


def losses_of(key: SeriesKey, followed: Sequence[Followed], minimum: int) -> list[Trail]:
    """Return the training losses that belong to `key`: of its replica, else of the run."""
    return [
        trail
        for other, trail in _beside(key, followed)
        if is_training_loss(other) and trail.count >= minimum
    ]


def _beside(key: SeriesKey, followed: Sequence[Followed]) -> list[Followed]:
    same = [one for one in followed if (one[0].run, one[0].segment) == (key.run, key.segment)]
    own = [one for one in same if one[0].replica_id == key.replica_id and one[0] != key]
    return own if any(is_training_loss(k) or is_learning_rate(k) for k, _ in own) else same


def held_out_rise(key: SeriesKey, followed: Sequence[Followed], part: float) -> float | None:
    """Return by how much a held-out loss of the run ends above its start; None below `part` of it.

    Held-out losses are means over a data set: their first value is no luck.
    """
    for other, trail in followed:
        values = trail.entries[0]
        same = (other.run, other.segment) == (key.run, key.segment)
        if not same or other.name != "loss" or not other.held_out or len(values) < _FEW:
            continue
        first, late = trail[Field.FIRST], float(np.median(values[-(len(values) // 4) :]))
        if late - first >= part * abs(first):
            return late - first
    return None


def progress(loss: Trail) -> float:
    """Return what part of its start the loss has lost: 0 for nothing, 1 for all; below 0: worse."""
    start = loss[Field.FIRST]
    return (start - loss.now) / max(abs(start), abs(loss.now), 1e-300)


def suffers(loss: Trail, onset: int) -> bool:
    """Return whether the loss stands higher now than it stood before step `onset`."""
    groups = loss.groups
    before = groups.levels[groups.steps < onset]
    if not len(before):
        return loss.now > loss[Field.FIRST]
    calm = float(before[-3:].min())
    return loss.now - calm > max(2 * groups.noise, 0.1 * abs(calm))


def learning_rate_facts(key: SeriesKey, followed: Sequence[Followed], onset: int) -> dict[str, Any]:
    """Return what the learning rate did around `onset`, where it is logged.

    ``lr_at_onset``; ``lr_jump``, the greatest factor by which it rose over the
    ten table entries up to the onset; ``lr_is_constant``; ``lr_max``.
    """
    rates = [t for k, t in _beside(key, followed) if is_learning_rate(k) and t.count]
    if not rates:
        return {}
    trail = rates[0]
    values, steps, _ = trail.entries
    constant = trail[Field.MIN] == trail[Field.MAX]
    facts: dict[str, Any] = {"lr_is_constant": constant, "lr_max": trail[Field.MAX]}
    at = int(np.searchsorted(steps, onset, "right")) - 1
    if at < 0:
        return facts
    # The entry behind the onset: the one that holds it is a median of both sides.
    facts["lr_at_onset"] = float(values[min(at + 1, len(values) - 1)])
    window: Floats = values[max(0, at - _ENTRIES_BEFORE) : at + 2]
    window = window[window > 0]
    if len(window) > 1:
        facts["lr_jump"] = float((window[1:] / window[:-1]).max())
    return facts
