"""`Ewma` and `RunningExtrema`: exponentially weighted mean, variance, and best level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .._core import EWMA_SIZE, EXTREMA_SIZE, ewma_fold, extrema_fold
from ..core.parameters import check_count
from ._series import Floats, column_state, decay_of, floats, int_steps

__all__ = ["Ewma", "EwmaOutput", "ExtremaOutput", "RunningExtrema"]


class EwmaOutput(NamedTuple):
    """Mean and variance after each value, shaped as the values."""

    mean: Floats
    variance: Floats


class ExtremaOutput(NamedTuple):
    """Smoothed values, and the lowest and highest of them up to each step."""

    smoothed: Floats
    lowest: Floats
    highest: Floats

    @property
    def ratio(self) -> Floats:
        """Smoothed value over the lowest so far; NaN where the lowest is not above 0."""
        out = np.full_like(self.smoothed, np.nan)
        np.divide(self.smoothed, self.lowest, out=out, where=self.lowest > 0)
        return out


@dataclass(frozen=True, slots=True)
class Ewma:
    """Exponentially weighted mean and variance, bias-corrected.

    Weights are ``(1 - alpha) ** age``, age counting finite values; NaN and the
    infinities are skipped, and outputs there repeat the last ones. The variance
    is the unbiased one for reliability weights, NaN for fewer than two values.
    Update formulas: West, CACM 22 (1979).

    Parameters
    ----------
    alpha : float, optional
        Weight of the newest value, in (0, 1].
    span : float, optional
        In its place: ``alpha = 2 / (span + 1)``.

    Notes
    -----
    The state is a float64 array [series, state_size], zeros when fresh, changed
    in place; the same bit for bit however a history is cut.

    Examples
    --------
    >>> ewma = Ewma(alpha=0.5)
    >>> ewma.update(ewma.init(), [1.0, 2.0, float("nan"), 4.0]).mean.round(3)
    array([1.   , 1.667, 1.667, 3.   ])
    """

    alpha: float | None = None
    span: float | None = None

    def __post_init__(self) -> None:
        decay_of(self.alpha, self.span)

    @property
    def state_size(self) -> int:
        """Doubles per series."""
        return EWMA_SIZE

    def init(self, series: int = 1) -> Floats:
        """Return a fresh state [series, state_size]."""
        return column_state(series, EWMA_SIZE)

    def update(self, state: Floats, values: npt.ArrayLike) -> EwmaOutput:
        """Fold `values` [steps, series] (or [steps]) into `state`, in place."""
        alpha = decay_of(self.alpha, self.span)
        mean, variance = ewma_fold(floats(values), state, alpha, True, True)
        return EwmaOutput(mean, variance)


@dataclass(frozen=True, slots=True)
class RunningExtrema:
    """The lowest and highest level of a smoothed series so far, with their steps.

    Parameters
    ----------
    alpha, span : float, optional
        Of the smoothing, as for `Ewma`; ``alpha=1`` for none.
    warmup : int
        Finite values before the smoothed series counts.

    Notes
    -----
    The state is a float64 array [series, state_size], zeros when fresh, changed
    in place; the same bit for bit however a history is cut.

    Examples
    --------
    >>> extrema = RunningExtrema(alpha=1.0, warmup=1)
    >>> state = extrema.init()
    >>> extrema.update(state, [4.0, 2.0, 3.0]).ratio
    array([1. , 1. , 1.5])
    >>> extrema.lowest(state)
    (array([2.]), array([1]))
    """

    alpha: float | None = None
    span: float | None = None
    warmup: int = 8

    def __post_init__(self) -> None:
        decay_of(self.alpha, self.span)
        check_count(1, warmup=self.warmup)

    @property
    def state_size(self) -> int:
        """Doubles per series."""
        return EXTREMA_SIZE

    def init(self, series: int = 1) -> Floats:
        """Return a fresh state [series, state_size]."""
        return column_state(series, EXTREMA_SIZE)

    def update(
        self, state: Floats, values: npt.ArrayLike, steps: npt.ArrayLike | None = None
    ) -> ExtremaOutput:
        """Fold `values` [steps, series] (or [steps]) into `state`, in place."""
        alpha = decay_of(self.alpha, self.span)
        smoothed, lowest, highest = extrema_fold(
            floats(values), state, int_steps(steps), alpha, self.warmup, True
        )
        return ExtremaOutput(smoothed, lowest, highest)

    def fold(
        self, state: Floats, values: npt.ArrayLike, steps: npt.ArrayLike | None = None
    ) -> None:
        """Do the same without outputs, for what the state tells at the end."""
        alpha = decay_of(self.alpha, self.span)
        extrema_fold(floats(values), state, int_steps(steps), alpha, self.warmup, False)

    def smoothed(self, state: Floats) -> Floats:
        """Return the smoothed value per series; NaN where there is none."""
        return np.where(state[:, 2] > 0, state[:, 4], np.nan)

    def lowest(self, state: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Return the lowest level and its step per series; NaN and -1 where not known yet."""
        return self._extreme(state, 5)

    def highest(self, state: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Return the highest level and its step per series; NaN and -1 where not known yet."""
        return self._extreme(state, 7)

    def _extreme(self, state: Floats, at: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        known = state[:, 2] >= self.warmup
        level = np.where(known, state[:, at], np.nan)
        return level, np.where(known, state[:, at + 1], -1).astype(np.int64)
