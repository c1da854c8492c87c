"""Numbers about arrays: how large, how sparse, how finite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core import BaseSignalExtractor, Series, SeriesKind, Signal, SignalSet, extractors
from ..kernels import TensorStats, tensor_stats
from ._arrays import is_numeric, named_arrays

__all__ = ["NumericalSignalExtractor"]


def _quantities(stats: TensorStats) -> dict[str, float]:
    size = max(int(stats.size), 1)
    return {
        "nan_count": float(stats.nan),
        "inf_count": float(stats.posinf + stats.neginf),
        "absmax": stats.absmax,
        "mean": stats.mean,
        "std": stats.std,
        "zero_fraction": stats.zero / size,
        "subnormal_fraction": stats.subnormal / size,
    }


@extractors.register("numerics")
class NumericalSignalExtractor(BaseSignalExtractor):
    """Statistics of arrays as signals: counts of NaN and Inf, extremes, spread, zeros.

    Given arrays (one, a mapping of names to arrays, a torch module), it returns
    ``<quantity>_nan_count``, ``_inf_count``, ``_absmax``, ``_mean``, ``_std``,
    ``_zero_fraction`` and ``_subnormal_fraction`` for each, the name of the
    array as layer. Given a `SignalSet`, the same for the arrays in it, at their
    steps. Statistics are over the finite values; where there is none, absmax,
    mean and std are left out.

    Parameters
    ----------
    quantity : str
        What bare arrays are.
    step : int, optional
        Step of the signals of bare arrays.

    Examples
    --------
    >>> found = NumericalSignalExtractor("activation").extract(np.array([0.0, -3.0, np.nan]))
    >>> [(s.name, s.value) for s in found][:3]
    [('activation_nan_count', 1.0), ('activation_inf_count', 0.0), ('activation_absmax', 3.0)]
    """

    def __init__(self, quantity: str = "array", step: int | None = None) -> None:
        self.quantity = quantity
        self.step = step

    def extract(self, raw_data: Any) -> SignalSet | list[Signal]:
        """Return the signals; see the class."""
        if isinstance(raw_data, SignalSet):
            return SignalSet(_series_of(raw_data))
        return [
            Signal(f"{self.quantity}_{name}", value, step=self.step, layer_name=layer)
            for layer, array in named_arrays(raw_data)
            if is_numeric(array)
            for name, value in _quantities(tensor_stats(array)).items()
            if not np.isnan(value)
        ]


def _series_of(signals: SignalSet) -> Iterator[Series]:
    for one in signals.select(kind=SeriesKind.ARRAY):
        if not all(is_numeric(array) for array in one.values):
            continue
        rows = [_quantities(tensor_stats(array)) for array in one.values]
        for name in rows[0] if rows else ():
            values = np.array([row[name] for row in rows], np.float64)
            kept = ~np.isnan(values)
            if kept.any():
                key = one.key._replace(name=f"{one.key.name}_{name}", kind=SeriesKind.SCALAR)
                yield Series(key, one.steps[kept], values[kept])
