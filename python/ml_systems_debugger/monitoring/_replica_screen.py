"""Which of very many replicas are looked at closely."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Screen"]

Floats = npt.NDArray[np.float64]

_ALL = 64  # replicas up to which all are looked at
_PEERS = 32  # that stand for the others where there are more
_SAMPLE = 512  # replicas that set the middle and the width of a scalar
_SIGMAS = 8.0
_FACTOR = 0.3  # of the middle: what differs by less is not looked at


class Screen:
    """Chooses replicas: all of few; of many, evenly spread peers and those that stand out.

    The middle and the width of each scalar come from 512 replicas, evenly spread;
    then all are compared with that band in one pass. Who stood out once stays
    chosen, as long as there are no more than 32 of them.

    Parameters
    ----------
    replicas : int
    """

    def __init__(self, replicas: int) -> None:
        self._count = replicas
        self._peers = np.unique(np.linspace(0, replicas - 1, min(_PEERS, replicas)).astype(np.intp))
        self._sample = np.unique(
            np.linspace(0, replicas - 1, min(_SAMPLE, replicas)).astype(np.intp)
        )
        self._outside = np.empty(0, np.intp)
        self.all = replicas <= _ALL
        """Whether all are looked at."""

    def outside(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        """Return the replicas with a value outside the band, the worst first.

        Parameters
        ----------
        values : float32 [scalars, replicas]
            A row without any finite value says nothing.
        """
        sample = values[:, self._sample].astype(np.float64)
        known = np.isfinite(sample).any(axis=1)
        if not known.any():
            return np.empty(0, np.intp)
        values, sample = values[known], sample[known]
        middle = np.nanmedian(np.where(np.isfinite(sample), sample, np.nan), axis=1)
        width = 1.4826 * np.nanmedian(np.abs(sample - middle[:, None]), axis=1)
        reach = np.maximum(_SIGMAS * width, _FACTOR * np.abs(middle))
        low = (middle - reach).astype(np.float32)[:, None]
        high = (middle + reach).astype(np.float32)[:, None]
        inside = (values >= low) & (values <= high)  # what is not finite is outside
        counts = inside.sum(axis=1)
        if (counts == values.shape[1]).all():
            return np.empty(0, np.intp)
        odd = np.flatnonzero(~inside[counts < values.shape[1]].all(axis=0))
        with np.errstate(invalid="ignore", over="ignore"):
            away = np.abs(values[:, odd] - middle[:, None]) / np.maximum(reach, 1e-300)[:, None]
        worst = np.where(np.isfinite(away), away, np.inf).max(axis=0)
        return np.asarray(odd[np.argsort(-worst, kind="stable")])

    def chosen(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        """Return the replicas to look at, in order; `values` as of `outside`."""
        if self.all:
            return np.arange(self._count)
        more = self.outside(values)
        more = more[~np.isin(more, self._outside)]
        self._outside = np.concatenate([self._outside, more])[:_PEERS]
        return np.union1d(self._peers, self._outside)
