"""How far the loss of a run has come: what tells a fault from convergence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core import SeriesKey
from ..kernels.trail import Field
from ._trail import Trail

__all__ = ["is_training_loss", "progress", "same_run", "suffers"]


def is_training_loss(key: SeriesKey) -> bool:
    """Return whether a series is the loss that training descends."""
    return key.name == "loss" and key.layer is None and not key.held_out


def same_run(
    key: SeriesKey, followed: Sequence[tuple[SeriesKey, Trail]], minimum: int
) -> list[Trail]:
    """Return the training losses that belong to `key`: of its replica, else of the run."""
    losses = [
        (other, trail)
        for other, trail in followed
        if is_training_loss(other)
        and (other.run, other.segment) == (key.run, key.segment)
        and trail.count >= minimum
    ]
    own = [trail for other, trail in losses if other.replica_id == key.replica_id]
    return own or [trail for _, trail in losses]


def progress(loss: Trail) -> float:
    """Return what part of its start the loss has lost: 0 for nothing, 1 for all; below 0: worse."""
    start = loss[Field.FIRST]
    now = float(np.median(loss.last(16)))
    return (start - now) / max(abs(start), abs(now), 1e-300)


def suffers(loss: Trail, onset: int) -> bool:
    """Return whether the loss stands higher now than it stood before step `onset`."""
    groups = loss.groups
    now = float(np.median(loss.last(16)))
    before = groups.levels[groups.steps < onset]
    if not len(before):
        return now > loss[Field.FIRST]
    calm = float(before[-3:].min())
    return now - calm > max(2 * groups.noise, 0.1 * abs(calm))
