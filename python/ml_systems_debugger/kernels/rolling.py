"""`rolling` and `Rolling`: statistics of moving windows, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy.typing as npt

from .._core import rolling_fold, rolling_size
from ..core.errors import ConfigurationError
from ..core.parameters import check_count
from ._series import Floats, column_state, floats

__all__ = ["ROLLING_STATS", "Rolling", "rolling"]

ROLLING_STATS = ("mean", "std", "slope", "min", "max", "median")


@dataclass(frozen=True, slots=True)
class Rolling:
    """Statistics of the last `window` values, after each value.

    Parameters
    ----------
    window : int
        Up to 131072.
    stats : sequence of str
        Of "mean", "std", "slope" (per step, least squares), "min", "max",
        "median".
    min_count : int, optional
        Finite values that a window needs; NaN with fewer. By default all of
        `window`. NaN and the infinities are left out of the statistics, but
        keep their place.
    ddof : int
        Of "std": 0 as NumPy's, 1 as pandas'.

    Raises
    ------
    ConfigurationError
        Naming the parameter that makes no sense.

    Notes
    -----
    Sums are centred on a member of the window and nothing is ever subtracted
    again, so neither an offset of 1e8 nor a spike that has left the window
    costs digits. The state is a float64 array [series, state_size], zeros when
    fresh, changed in place; state and outputs are the same bit for bit however
    a history is cut. A median costs some 40 ns a value in long calls (sorted
    blocks and linked lists: Suomela, 2014) and a selection per value in calls of
    fewer than four, or where a window holds NaN.

    Examples
    --------
    >>> fold = Rolling(window=3, stats=("mean", "max"))
    >>> state = fold.init()
    >>> fold.update(state, [1.0, 2.0, 3.0])["mean"]
    array([nan, nan,  2.])
    >>> fold.update(state, [7.0])["max"]
    array([7.])
    """

    window: int
    stats: Sequence[str] = ("mean", "std")
    min_count: int | None = None
    ddof: int = 0

    def __post_init__(self) -> None:
        check_count(1, window=self.window)
        if self.window > 1 << 17:
            raise ConfigurationError(f"window is at most {1 << 17}, got {self.window!r}")
        if self.min_count is not None:
            check_count(1, min_count=self.min_count)
            if self.min_count > self.window:
                raise ConfigurationError(f"min_count is at most window, got {self.min_count!r}")
        check_count(0, ddof=self.ddof)
        wrong = [name for name in self.stats if name not in ROLLING_STATS]
        if wrong or isinstance(self.stats, str) or not self.stats:
            raise ConfigurationError(
                f"stats are some of {', '.join(ROLLING_STATS)}, got {self.stats!r}"
            )

    @property
    def state_size(self) -> int:
        """Doubles per series."""
        return rolling_size(self.window)

    def init(self, series: int = 1) -> Floats:
        """Return a fresh state [series, state_size]."""
        return column_state(series, self.state_size)

    def update(self, state: Floats, values: npt.ArrayLike) -> dict[str, Floats]:
        """Fold `values` [steps, series] (or [steps]) into `state`, in place.

        Returns
        -------
        dict of str to float64
            One array per statistic, in the order asked for, shaped as `values`.
        """
        wanted = sum(1 << ROLLING_STATS.index(name) for name in set(self.stats))
        count = self.window if self.min_count is None else self.min_count
        found = rolling_fold(floats(values), state, self.window, count, wanted, self.ddof)
        return {name: found[ROLLING_STATS.index(name)] for name in self.stats}


def rolling(
    x: npt.ArrayLike,
    window: int,
    stats: Sequence[str] = ("mean", "std"),
    *,
    min_count: int | None = None,
    ddof: int = 0,
) -> dict[str, Floats]:
    """Return rolling statistics of a whole history; see `Rolling`.

    Parameters
    ----------
    x : float64 [n] or [n, series]

    Examples
    --------
    >>> rolling([1.0, 2.0, 4.0, 8.0], 2, ("min", "median"))["median"]
    array([nan, 1.5, 3. , 6. ])
    """
    values = floats(x)
    fold = Rolling(window, stats, min_count, ddof)
    return fold.update(fold.init(1 if values.ndim == 1 else values.shape[1]), values)
