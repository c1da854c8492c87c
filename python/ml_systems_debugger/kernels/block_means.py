"""`BlockMeans`: a whole history in at most 64 blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._core import BLOCKS_SIZE, blocks_fold
from ._series import Floats, column_state, floats, int_steps

__all__ = ["BLOCK_DTYPE", "BlockMeans"]

_HEADER, _WIDTH = 5, 7

BLOCK_DTYPE = np.dtype(
    [("count", "f8"), ("mean", "f8"), ("m2", "f8"), ("min", "f8"), ("max", "f8"),
     ("first", "f8"), ("last", "f8")]
)  # fmt: skip
"""One block: finite values in it, their mean, sum of squared deviations, range, and the steps of
the first and the last of them."""


@dataclass(frozen=True, slots=True)
class BlockMeans:
    """Means of consecutive blocks of equal size, at most 64 of them.

    Blocks begin as single values. When 64 are full, neighbours merge and a
    block holds twice as many values from then on; the last one may still be
    filling. NaN and the infinities are skipped and counted.

    Notes
    -----
    The state is a float64 array [series, state_size], zeros when fresh, changed
    in place; the same bit for bit however a history is cut. Mean and m2:
    Welford (1962) within a block, Chan, Golub and LeVeque (1979) between two.

    Examples
    --------
    >>> import numpy as np
    >>> blocks = BlockMeans()
    >>> state = blocks.init()
    >>> blocks.update(state, np.arange(128.0))
    >>> table = blocks.table(state)
    >>> len(table), float(table["mean"][0]), float(table["last"][-1])
    (64, 0.5, 127.0)
    """

    @property
    def state_size(self) -> int:
        """Doubles per series."""
        return BLOCKS_SIZE

    def init(self, series: int = 1) -> Floats:
        """Return a fresh state [series, state_size]."""
        return column_state(series, BLOCKS_SIZE)

    def update(
        self, state: Floats, values: npt.ArrayLike, steps: npt.ArrayLike | None = None
    ) -> None:
        """Fold `values` [steps, series] (or [steps]) into `state`, in place."""
        blocks_fold(floats(values), state, int_steps(steps))

    def table(self, state: Floats, series: int = 0) -> npt.NDArray[np.void]:
        """Return the blocks of one series, of `BLOCK_DTYPE`; a copy."""
        row = state[series] if state.ndim == 2 else state
        used = int(row[3])
        blocks = row[_HEADER : _HEADER + used * _WIDTH].copy()
        table: npt.NDArray[np.void] = blocks.view(BLOCK_DTYPE)
        return table

    def nonfinite(self, state: Floats) -> npt.NDArray[np.int64]:
        """Return how many NaN and infinities were skipped, per series."""
        return state[:, 2].astype(np.int64)
