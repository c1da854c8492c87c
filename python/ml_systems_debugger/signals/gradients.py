"""Gradient norms from gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core import BaseSignalExtractor, Series, SeriesKey, SeriesKind, Signal, SignalSet, extractors
from ..kernels import count_nonfinite, global_norm, l2_norm
from ._arrays import named_arrays

__all__ = ["GradientSignalExtractor"]


@extractors.register("gradients")
class GradientSignalExtractor(BaseSignalExtractor):
    """Gradient norms, per layer and over all, from gradient arrays.

    Given gradients (a mapping of layer to array, a torch module or its
    parameters, arrays in order), it returns one signal ``grad_norm`` over all,
    one per layer, the counts of non-finite elements where there are any, and
    each array itself as ``gradient``, by reference.

    Given a `SignalSet`, it adds the norms of the ``gradient`` arrays in it, at
    their steps; norms that were logged stay as they are.

    Parameters
    ----------
    step : int, optional
        Step of the signals of bare gradients.
    keep_arrays : bool
        Whether the arrays themselves are among the signals.

    Examples
    --------
    >>> gradients = {"fc.weight": np.array([3.0, 4.0]), "fc.bias": np.array([0.0])}
    >>> found = GradientSignalExtractor(step=7).extract(gradients)
    >>> found[0]
    Signal(name='grad_norm', value=5.0, step=7)
    """

    def __init__(self, step: int | None = None, *, keep_arrays: bool = True) -> None:
        self.step = step
        self.keep_arrays = keep_arrays

    def extract(self, raw_data: Any) -> SignalSet | list[Signal]:
        """Return the signals; see the class."""
        if isinstance(raw_data, SignalSet):
            return SignalSet(_norms_of(raw_data))
        found = list(named_arrays(raw_data, "grad"))
        if not found:
            return []
        signals = [Signal("grad_norm", global_norm([a for _, a in found]), step=self.step)]
        for layer, array in found:
            if layer is not None:
                norm = l2_norm(array)
                signals.append(Signal("grad_norm", norm, step=self.step, layer_name=layer))
            counts = count_nonfinite(array)
            if counts.total:
                signals.append(
                    Signal("grad_nonfinite", counts.total, step=self.step, layer_name=layer)
                )
            if self.keep_arrays:
                signals.append(Signal("gradient", array, step=self.step, layer_name=layer))
        return signals


def _norms_of(signals: SignalSet) -> Iterator[Series]:
    found = signals.select("gradient", kind=SeriesKind.ARRAY)
    for one in found:
        if one.key.layer is not None:
            values = np.array([l2_norm(array) for array in one.values], np.float64)
            yield Series(_norm_key(one.key), one.steps, values, one.timestamps)
    groups: dict[SeriesKey, list[Series]] = {}
    for one in found:
        groups.setdefault(_norm_key(one.key)._replace(layer=None), []).append(one)
    for key, parts in groups.items():
        by_step: dict[int, list[Any]] = {}
        for part in parts:
            for step, array in zip(part.steps.tolist(), part.values, strict=True):
                by_step.setdefault(step, []).append(array)
        steps = np.array(sorted(by_step), np.int64)
        norms = np.array([global_norm(by_step[step]) for step in steps.tolist()], np.float64)
        yield Series(key, steps, norms)


def _norm_key(key: SeriesKey) -> SeriesKey:
    return key._replace(name="grad_norm", kind=SeriesKind.SCALAR)
