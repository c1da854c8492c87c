"""What a rank tells the others at one exchange: 64 bytes, and what belongs to a mismatch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..kernels.digest import digest

__all__ = ["BLOCKS", "RECORD", "SCALARS", "Digests", "History", "Located", "Records", "record_of"]

Digests = npt.NDArray[np.uint64]
Records = npt.NDArray[np.void]

BLOCKS = 8  # times of an exchange: enough of them for a straggler to be told by one exchange

RECORD = np.dtype([
    ("step", "<i8"),
    ("roots", "<u8", (2,)),  # of the parameters, over all steps since the last exchange
    ("times", "<f2", (BLOCKS,)),  # seconds of own work, by blocks of steps
    ("loss", "<f4"),
    ("local_norm", "<f4"),  # of sampled gradients, before their reduction
    ("grad_norm", "<f4"),  # of the same after it
    ("step_time", "<f4"),
    ("calls", "<u4"),  # collective calls of the job's own group, modulo 2^32
    ("steps", "<u2"),  # since the last exchange
    ("has", "<u2"),  # which of SCALARS are given, by bits
])  # fmt: skip
"""One rank's record."""

SCALARS = ("loss", "local_norm", "grad_norm", "step_time")


@dataclass(frozen=True, slots=True)
class History:
    """The steps since the last exchange, kept by the rank itself until they are found equal.

    Parameters
    ----------
    steps : list of int
    digests : list of uint64 [parameters]
    roots : list of uint64 [2]
    calls : list of int
        Collective calls up to and with each step.
    """

    steps: list[int]
    digests: list[Digests]
    roots: list[Digests]
    calls: list[int]

    def rows(self, length: int) -> npt.NDArray[np.int64]:
        """Return [length, 4]: step (-1 where there is none), the two roots, the calls."""
        found = np.full((length, 4), -1, np.int64)
        for row, step, roots, calls in zip(found, self.steps, self.roots, self.calls, strict=False):
            row[0], row[3] = step, calls
            row[1:3] = roots.view(np.int64)
        return found

    def at(self, step: int, length: int) -> Digests:
        """Return the digests of a step, filled up with zeros to `length`."""
        found = np.zeros(length, np.uint64)
        if step in self.steps:
            held = self.digests[self.steps.index(step)]
            found[: len(held)] = held
        return found


@dataclass(frozen=True, slots=True)
class Located:
    """Where replicas parted within the steps of one exchange.

    Parameters
    ----------
    step : int
        The first at which the roots or the calls part otherwise than before.
    first : bool
        Whether it is the first step that was compared at all.
    odd_calls : int64 [ranks]
        By how many collective calls since the first exchange each rank is off the
        majority at that step.
    digests : uint64 [ranks, parameters]
        At that step.
    """

    step: int
    first: bool
    odd_calls: npt.NDArray[np.int64]
    digests: Digests


def record_of(
    history: History, times: Sequence[float], scalars: dict[str, float], steps: int
) -> Records:
    """Return one record [1] of the steps in `history`; what is not given is NaN."""
    made = np.zeros(1, RECORD)
    one = made[0]
    one["step"] = history.steps[-1]
    # Over all the steps: replicas that part and meet again within an exchange have parted.
    chain = np.array(history.roots, np.uint64).reshape(-1, 2)
    one["roots"] = [digest(np.ascontiguousarray(chain[:, at])) for at in (0, 1)]
    one["times"] = np.nan
    one["times"][: len(times)] = times
    for bit, name in enumerate(SCALARS):
        one[name] = scalars.get(name, np.nan)
        one["has"] |= (name in scalars) << bit
    one["calls"] = history.calls[-1] & 0xFFFF_FFFF
    one["steps"] = min(steps, 0xFFFF)
    return made
