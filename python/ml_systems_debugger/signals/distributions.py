"""How far two distributions are apart, as signals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import BaseSignalExtractor, Series, SeriesKind, Signal, SignalSet, extractors
from ..core.arrays import on_host
from ..kernels import js_divergence, kl_divergence, psi

__all__ = ["DistributionSignalExtractor"]

Floats = npt.NDArray[np.float64]

_REFERENCE = ("reference", "training", "train")
_SERVING = ("serving", "production", "inference")


@extractors.register("distributions")
class DistributionSignalExtractor(BaseSignalExtractor):
    """KL and Jensen-Shannon divergence and the population stability index of pairs of samples.

    Given a mapping with ``reference`` (or ``training``) and ``serving`` (or
    ``production``), each an array or a mapping of feature to array, it returns
    ``kl_divergence``, ``js_divergence`` and ``psi`` per feature, and the samples
    themselves as ``training_distribution`` and ``serving_distribution``, by
    reference. Given a `SignalSet`, the same for the pairs of such arrays in it.

    Both sides are counted into bins of equal share of the reference, with one
    more below and one above its range, and with half a count in every bin so
    that an empty one costs much and not everything (Jeffreys' prior; so KL stays
    finite). NaN is left out.

    Parameters
    ----------
    bins : int
    step : int, optional
        Step of the signals of bare samples.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> pair = {"reference": rng.normal(size=5000), "serving": rng.normal(1, 1, 5000)}
    >>> found = {s.name: s.value for s in DistributionSignalExtractor().extract(pair)}
    >>> bool(found["kl_divergence"] > 0.3)
    True
    """

    def __init__(self, bins: int = 20, step: int | None = None) -> None:
        if bins < 2:
            raise ValueError(f"bins is at least 2, got {bins!r}")
        self.bins = bins
        self.step = step

    def extract(self, raw_data: Any) -> SignalSet | list[Signal]:
        """Return the signals; see the class.

        Raises
        ------
        TypeError
            Where `raw_data` holds no pair of samples.
        """
        if isinstance(raw_data, SignalSet):
            return SignalSet(self._series(raw_data))
        signals = []
        for feature, reference, serving in _pairs(raw_data):
            for name, value in self.divergences(reference, serving).items():
                signals.append(Signal(name, value, step=self.step, layer_name=feature))
            for name, sample in (("training", reference), ("serving", serving)):
                signals.append(
                    Signal(f"{name}_distribution", sample, step=self.step, layer_name=feature)
                )
        return signals

    def divergences(self, reference: Any, serving: Any) -> dict[str, float]:
        """Return the divergences of two samples, in nats; empty where a side has no number."""
        r, s = _finite(reference), _finite(serving)
        if not len(r) or not len(s):
            return {}
        inner = np.quantile(r, np.arange(1, self.bins) / self.bins)
        # Beyond the reference's range are bins of their own: of a constant there are no others.
        edges = np.unique([r.min(), *inner, np.nextafter(r.max(), np.inf)])
        p, q = (_shares(x, edges) for x in (r, s))
        return {
            "kl_divergence": float(kl_divergence(q, p)),
            "js_divergence": float(js_divergence(p, q)),
            "psi": float(psi(p, q)),
        }

    def _series(self, signals: SignalSet) -> Iterator[Series]:
        serving = {
            (one.key.layer, one.key.replica_id, one.key.run): one
            for one in signals.select("serving_distribution", kind=SeriesKind.ARRAY)
        }
        for one in signals.select("training_distribution", kind=SeriesKind.ARRAY):
            other = serving.get((one.key.layer, one.key.replica_id, one.key.run))
            if other is None or not len(one):
                continue
            # Each serving sample against the newest reference at or before it.
            at = np.maximum(np.searchsorted(one.steps, other.steps, "right") - 1, 0)
            rows = [
                self.divergences(one.values[i], sample)
                for i, sample in zip(at.tolist(), other.values, strict=True)
            ]
            for name in ("kl_divergence", "js_divergence", "psi"):
                kept = np.array([name in row for row in rows], np.bool_)
                values = np.array([row[name] for row in rows if name in row], np.float64)
                if len(values):
                    key = one.key._replace(name=name, kind=SeriesKind.SCALAR)
                    yield Series(key, other.steps[kept], values)


def _shares(x: Floats, edges: Floats) -> Floats:
    counts = np.bincount(np.searchsorted(edges, x, "right"), minlength=len(edges) + 1) + 0.5
    return np.asarray(counts / counts.sum())


def _finite(sample: Any) -> Floats:
    values = np.asarray(on_host(sample), np.float64).ravel()
    return np.asarray(values[np.isfinite(values)])


def _pairs(raw_data: Any) -> Iterator[tuple[str | None, Any, Any]]:
    sides: list[Any] = [None, None]
    if isinstance(raw_data, Mapping):
        for at, words in enumerate((_REFERENCE, _SERVING)):
            sides[at] = next((raw_data[word] for word in words if word in raw_data), None)
    if sides[0] is None or sides[1] is None:
        raise TypeError(
            f"raw_data is a mapping with reference (or training) and serving (or production), "
            f"got {type(raw_data).__name__}"
        )
    reference, serving = sides
    if not isinstance(reference, Mapping) or not isinstance(serving, Mapping):
        yield None, reference, serving
        return
    for feature in reference:
        if feature in serving:
            yield str(feature), reference[feature], serving[feature]
