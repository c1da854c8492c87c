"""`Curve`: a series small enough to be drawn, with nothing that stands out left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .frozen import numbers_back, to_jsonable
from .results import DetectionResult
from .series import Series, SeriesKey, SeriesKind
from .signal_set import SignalSet

__all__ = ["Curve", "curves_of"]

_STRETCHES = 96  # more than a terminal has columns, enough for a plot of the width of a page
_DIGITS = 6
_MOST = 6  # series of findings that are drawn
_ALWAYS = ("loss", "grad_norm", "lr")  # of the whole model: what people look at first


@dataclass(frozen=True, slots=True)
class Curve:
    """The least and the greatest value of a series in each of at most 96 stretches of steps.

    Minima and maxima keep what a mean or a sample would lose: one spike of one step
    in a million is still there. Stretches without a value are left out.

    Parameters
    ----------
    series : str
        As in the evidence of findings.
    steps : tuple of int [n]
        Where each stretch begins.
    last_step : int
    low, high : tuple of float or None [n]
        Of the finite values; None where a stretch has none. Six digits.
    not_finite : tuple of int [n]
        How many values of a stretch are NaN or infinite.
    """

    series: str
    steps: tuple[int, ...]
    last_step: int
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    not_finite: tuple[int, ...]

    @classmethod
    def of(cls, series: Series) -> Curve:
        """Draw a series of numbers; raises ValueError for one without values."""
        if not len(series.steps):
            raise ValueError(f"{series.key}: there is nothing to draw")
        first, last = int(series.steps[0]), int(series.steps[-1])
        width = -(-(last - first + 1) // _STRETCHES)
        edges = [first + width * at for at in range((last - first) // width + 1)]
        bounds = [*np.searchsorted(series.steps, edges).tolist(), len(series.steps)]
        # Slice by slice: nothing of the size of a long series is made beside it.
        drawn = [
            (edge, *_extent(series.values[start:stop]))
            for edge, start, stop in zip(edges, bounds[:-1], bounds[1:], strict=True)
            if stop > start
        ]
        steps, low, high, bad = zip(*drawn, strict=True)
        return cls(str(series.key), steps, last, low, high, bad)

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms."""
        return {
            "series": self.series, "steps": list(self.steps), "last_step": self.last_step,
            "low": to_jsonable(list(self.low)), "high": to_jsonable(list(self.high)),
            "not_finite": list(self.not_finite),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Curve:
        """Build from what `to_dict` returned."""
        parts = {name: tuple(numbers_back(data[name])) for name in _PARTS}
        return cls(series=str(data["series"]), last_step=int(data["last_step"]), **parts)


_PARTS = ("steps", "low", "high", "not_finite")


def curves_of(signals: SignalSet, detections: Iterable[DetectionResult]) -> list[Curve]:
    """Return what is worth a look: the series of the findings, and the run's own loss and rate.

    Of each detector that fired the series of its worst finding comes first, then those
    of its further findings, six at most; then loss, gradient norm and learning rate.
    """
    there = {str(one.key): one for one in signals.series if _drawable(one)}
    named = dict.fromkeys(name for name in _named(detections) if name in there)
    chosen = list(named)[:_MOST]
    main = [name for name, one in there.items() if _is_main(one.key)]
    return [Curve.of(there[name]) for name in dict.fromkeys([*chosen, *main[: len(_ALWAYS)]])]


def _drawable(series: Series) -> bool:
    return series.key.kind is SeriesKind.SCALAR and len(series.steps) > 1


def _is_main(key: SeriesKey) -> bool:
    return key.name in _ALWAYS and key.layer is None and not key.held_out and not key.segment


def _named(detections: Iterable[DetectionResult]) -> Iterator[str]:
    """Yield the series of findings: the worst of each detector, then the second, and so on."""
    fired = [one for one in detections if one.detected and one.severity is not None]
    fired.sort(key=lambda one: -one.severity.rank if one.severity else 0)
    for at in range(max((len(one.findings) for one in fired), default=0)):
        for one in fired:
            if at < len(one.findings):
                yield str(one.findings[at].evidence.get("series", ""))


def _extent(values: npt.NDArray[Any]) -> tuple[float | None, float | None, int]:
    """Return the least and the greatest finite value, and how many are not finite."""
    finite = np.isfinite(values)
    bad = int(len(values) - np.count_nonzero(finite))
    if bad:
        values = values[finite]
    if not len(values):
        return None, None, bad
    return _short(values.min()), _short(values.max()), bad


def _short(value: Any) -> float:
    return float(f"{value:.{_DIGITS}g}")
