"""`RobustBaseline`: how far a value lies from what a series usually is."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple

import numpy.typing as npt

from .._core import baseline_fold, baseline_open, baseline_size
from ..core.errors import ConfigurationError
from ..core.parameters import check_count, check_range
from ._series import Events, Floats, check_batches, column_state, floats, int_steps

__all__ = ["BaselineOutput", "RobustBaseline"]

_SIDES = {"both": 0, "above": 1, "below": -1}


class BaselineOutput(NamedTuple):
    """What one call of `RobustBaseline.update` found.

    ``z`` has the shape of the values, or is None where it was not asked for;
    ``runs`` are the exceedances that ended, of `EVENT_DTYPE`.
    """

    z: Floats | None
    runs: Events


@dataclass(frozen=True, slots=True)
class RobustBaseline:
    """A running median and MAD of the last values, and every value's distance from them.

    The distance ``z = (x - median) / scale`` is against the baseline in force
    *before* the value: it never holds the value itself, and is up to `batch`
    values old. ``scale`` is 1.4826 MAD, at least `floor` and `relative` times
    the median's magnitude; where that is 0 too, whatever differs is infinitely
    far. NaN and the infinities are skipped: z is NaN and nothing changes.

    Parameters
    ----------
    window, batch : int
        Median and MAD of the last `window` values learnt (at most 4096), taken
        anew whenever `batch` more have come; before that at 8, 16, ... values and
        at the end of the warm-up.
    warmup : int
        Values to learn from before there is a z.
    logarithm : bool
        Fold log(x); x of 0 or less is then skipped as NaN is.
    clip, relearn : float, int
        A value with abs(z) above `clip` is not learnt from, unless `relearn` of
        them come in a row: then the last of them become the whole baseline.
    floor, relative : float
        The scale is at least ``max(floor, relative * abs(median))``.
    threshold, side, patience : float, {"both", "above", "below"}, int
        A run of exceedances begins with a z beyond `threshold` on that side and
        ends after `patience` values that are not; infinite for no runs.

    Raises
    ------
    ConfigurationError
        Naming the parameter that makes no sense.

    Notes
    -----
    The state is a float64 array [series, state_size], zeros when fresh, changed
    in place. However a history is cut into calls, state, z and runs are the
    same bit for bit. About `window` doubles of memory per series. A robust z of
    loss and gradient norm over the last 128 steps is what OLMo-core's
    spike filter uses; median and MAD: Hampel, JASA 69 (1974).

    Examples
    --------
    >>> import numpy as np
    >>> loss = np.sin(np.arange(100.0))
    >>> loss[80:83] = 50.0
    >>> baseline = RobustBaseline(threshold=6.0)
    >>> state = baseline.init()
    >>> runs = baseline.update(state, loss, want_z=False).runs
    >>> runs[["first", "last", "count"]].tolist()
    [(80, 82, 3)]
    """

    window: int = 256
    batch: int = 32
    warmup: int = 32
    logarithm: bool = False
    clip: float = inf
    relearn: int = 64
    floor: float = 0.0
    relative: float = 1e-9
    threshold: float = inf
    side: Literal["both", "above", "below"] = "both"
    patience: int = 1

    def __post_init__(self) -> None:
        check_batches(self.window, self.batch)
        check_count(2, warmup=self.warmup)
        check_count(1, relearn=self.relearn, patience=self.patience)
        check_range("floor", self.floor, 0.0, inf)
        check_range("relative", self.relative, 0.0, inf)
        check_range("clip", self.clip, 0.0, inf, open_low=True)
        check_range("threshold", self.threshold, 0.0, inf)
        if self.side not in _SIDES:
            raise ConfigurationError(f"side is one of {', '.join(_SIDES)}, got {self.side!r}")

    @property
    def state_size(self) -> int:
        """Doubles per series."""
        return baseline_size(self.window, self.batch)

    def init(self, series: int = 1) -> Floats:
        """Return a fresh state [series, state_size]."""
        return column_state(series, self.state_size)

    def update(
        self,
        state: Floats,
        values: npt.ArrayLike,
        steps: npt.ArrayLike | None = None,
        *,
        want_z: bool = True,
    ) -> BaselineOutput:
        """Fold `values` into `state`, in place.

        Parameters
        ----------
        state : float64 [series, state_size]
        values : float64 [steps, series] or, for one series, [steps]
            Any strides.
        steps : int64 [steps], optional
            What runs are dated with; by default the number of values before.
        want_z : bool
            Whether to return every z, or only the runs.

        Raises
        ------
        ValueError, TypeError
            Naming the argument, where shapes or dtypes do not fit or `state`
            is of another layout.
        """
        z, runs = baseline_fold(
            floats(values), state, int_steps(steps), self.window, self.batch, self.warmup,
            self.logarithm, self.clip, self.relearn, self.floor, self.relative, self.threshold,
            _SIDES[self.side], self.patience, want_z,
        )  # fmt: skip
        return BaselineOutput(z, runs)

    def open_runs(self, state: Floats) -> Events:
        """Return the runs that go on at the end of `state`; their ``step`` is -1."""
        return baseline_open(state, self.state_size)

    def level(self, state: Floats) -> tuple[Floats, Floats]:
        """Return median and scale (1.4826 MAD, no floor) per series; NaN where not known yet."""
        at = 12 + self.batch
        known = state[:, at + 5] != 0
        median, scale = state[:, at + 3].copy(), state[:, at + 4].copy()
        median[~known] = scale[~known] = float("nan")
        return median, scale
