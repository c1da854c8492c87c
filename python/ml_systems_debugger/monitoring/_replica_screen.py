"""Which of very many replicas are looked at closely."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..kernels import replica_spread

__all__ = ["Screen"]

Floats = npt.NDArray[np.float64]

_ALL = 32  # replicas up to which all are looked at
_PEERS = 16  # that stand for the others where there are more
_ODD = _PEERS - 1  # of those that stand out: never the majority of what is looked at
_SIGMAS = 8.0
_FACTOR = 0.3  # of the middle: what differs by less is not looked at


class Screen:
    """Chooses replicas: all of few; of many, evenly spread peers and those that stand out.

    A replica stands out where one of its scalars lies further from the median of all
    than eight robust deviations and 30 % of that median. Who stood out once stays
    chosen, as long as there are no more than 15 of them.

    Parameters
    ----------
    replicas : int
    """

    def __init__(self, replicas: int) -> None:
        self._count = replicas
        self._peers = np.unique(np.linspace(0, replicas - 1, min(_PEERS, replicas)).astype(np.intp))
        self._outside = np.empty(0, np.intp)
        self.all = replicas <= _ALL
        """Whether all are looked at."""

    def outside(self, values: Floats) -> npt.NDArray[np.intp]:
        """Return the replicas with a value outside the band, the worst first.

        Parameters
        ----------
        values : float64 [scalars, replicas]
            What is not finite is outside; a row without any finite value says nothing.
        """
        spread = replica_spread(values)
        middle = spread["median"]
        reach = np.maximum(_SIGMAS * spread["mad"], _FACTOR * np.abs(middle))
        with np.errstate(invalid="ignore"):  # rows of which nothing is known
            odd = (spread["min"] < middle - reach) | (spread["max"] > middle + reach)
        odd |= (spread["finite"] > 0) & (spread["finite"] < values.shape[1])
        if not odd.any():
            return np.empty(0, np.intp)
        with np.errstate(invalid="ignore", over="ignore"):
            away = np.abs(values[odd] - middle[odd, None])
            inside = (away <= reach[odd, None]).all(axis=0)  # what is not finite is outside
            found = np.flatnonzero(~inside)
            worst = away[:, found] / np.maximum(reach[odd], 1e-300)[:, None]
        worst = np.where(np.isfinite(worst), worst, np.inf).max(axis=0)
        return np.asarray(found[np.argsort(-worst, kind="stable")])

    def chosen(self, values: Floats) -> npt.NDArray[np.intp]:
        """Return the replicas to look at, in order; `values` as of `outside`."""
        if self.all:
            return np.arange(self._count)
        more = self.outside(values)
        more = more[~np.isin(more, self._outside)]
        self._outside = np.concatenate([self._outside, more])[:_ODD]
        return np.union1d(self._peers, self._outside)
