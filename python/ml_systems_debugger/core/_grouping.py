"""Single signals into series: what belongs to which key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .names import QuantityName, canonical, qualified, resolve
from .series import Series, SeriesKey, SeriesKind
from .signal import Signal, is_array, scalar_value

__all__ = ["grouped", "split_at_restarts"]

_UINT64 = 0xFFFF_FFFF_FFFF_FFFF


def split_at_restarts(steps: npt.NDArray[np.int64]) -> list[slice]:
    """Return the runs of `steps` [n] that never decrease, as slices; one for no restart."""
    cuts = (np.flatnonzero(steps[1:] < steps[:-1]) + 1).tolist()
    return [slice(a, b) for a, b in pairwise([0, *cuts, len(steps)])]


def grouped(signals: Iterable[Signal]) -> tuple[list[Series], list[str]]:
    """Return the series that single signals make, and what could not be read."""
    rows: dict[tuple[Any, ...], _Rows] = {}
    unread: list[str] = []
    for at, signal in enumerate(signals):
        if not isinstance(signal, Signal):
            raise TypeError(f"item {at} is no Signal but {type(signal).__name__}: {signal!r}")
        kind, value = _kind_of(signal)
        if kind is None:
            unread.append(f"signal {signal.name!r} at step {signal.step}: {value}")
            continue
        # By the name as it was given: what two names share is settled in the end.
        ident: tuple[Any, ...] = (signal.name, signal.layer_name, signal.replica_id, kind)
        if signal.metadata:
            told = signal.metadata
            ident += (told.get("split"), told.get("run"), told.get("segment", 0))
        found = rows.get(ident)
        if found is None:
            found = rows[ident] = _Rows(signal, kind)
        found.add(signal.step, value, signal.timestamp)
    return _built(list(rows.values())), unread


def _kind_of(signal: Signal) -> tuple[SeriesKind | None, Any]:
    """Return the kind of a signal with its value as it is kept, or None with what is wrong."""
    value = signal.value
    number = scalar_value(value)
    if number is None:
        if is_array(value):
            return SeriesKind.ARRAY, value
        if isinstance(value, str):
            return SeriesKind.TEXT, value
        return None, f"a value of type {type(value).__name__} is no number, array or text"
    if not signal.name.partition("/")[0].endswith("_digest"):
        return SeriesKind.SCALAR, number
    if isinstance(value, (int, np.integer)):
        return SeriesKind.DIGEST, int(value) & _UINT64
    if number.is_integer():
        return SeriesKind.DIGEST, int(number) & _UINT64
    return None, f"a digest is a whole number, got {value!r}"


def _built(rows: list[_Rows]) -> list[Series]:
    """Give every group its key; of two names for one quantity the exact one keeps it."""
    names: dict[SeriesKey, dict[str, None]] = {}
    for one in rows:
        names.setdefault(one.key, {})[one.signal.name] = None
    taken: set[SeriesKey] = set()
    series: list[Series] = []
    for one in rows:
        rivals, raw, key = names[one.key], one.signal.name, one.key
        if len(rivals) > 1 and raw != _owner(rivals, key):
            key = _key_of(one.signal, one.kind, QuantityName(raw))
        series.extend(one.build(key, taken))
    return series


def _owner(rivals: Iterable[str], key: SeriesKey) -> str:
    """Return which of several names keeps `key`: its exact form, else the strongest alias."""
    exact = (key.name, qualified(key.name, key.split))
    parts = resolve(rivals)
    return min(parts, key=lambda raw: (raw not in exact, parts[raw].name != key.name))


def _key_of(signal: Signal, kind: SeriesKind, parts: QuantityName) -> SeriesKey:
    split = signal.metadata.get("split", parts.split)
    run = signal.metadata.get("run")
    return SeriesKey(
        parts.name,
        None if split is None else str(split),
        parts.layer if signal.layer_name is None else signal.layer_name,
        signal.replica_id,
        None if run is None else str(run),
        int(signal.metadata.get("segment", 0)),
        kind,
    )


def _parts_of(signal: Signal) -> QuantityName:
    parts = canonical(signal.name)
    if signal.layer_name is not None and parts.layer not in (None, signal.layer_name):
        return QuantityName(signal.name)
    return parts


class _Rows:
    """The growing columns of one series."""

    __slots__ = ("key", "kind", "signal", "steps", "timed", "times", "values")

    def __init__(self, signal: Signal, kind: SeriesKind) -> None:
        self.signal = signal  # the first one: they share name, place and metadata
        self.kind = kind
        self.key = _key_of(signal, kind, _parts_of(signal))
        self.steps: list[int] = []
        self.values: list[Any] = []
        self.times: list[float] = []
        self.timed = False

    def add(self, step: int | None, value: Any, time: float | None) -> None:
        if step is None:
            step = self.steps[-1] + 1 if self.steps else 0
        self.steps.append(step)
        self.values.append(value)
        self.times.append(np.nan if time is None else time)
        self.timed = self.timed or time is not None

    def build(self, key: SeriesKey, taken: set[SeriesKey]) -> Iterator[Series]:
        try:
            steps = np.array(self.steps, dtype=np.int64)
        except OverflowError:
            largest = max(self.steps, key=abs)
            raise ValueError(f"{key}: step {largest} does not fit into 64 bits") from None
        values: npt.NDArray[Any]
        if key.kind is SeriesKind.SCALAR:
            values = np.array(self.values, dtype=np.float64)
        elif key.kind is SeriesKind.DIGEST:
            values = np.array(self.values, np.uint64)
        else:
            values = np.empty(len(steps), dtype=object)
            for at, value in enumerate(self.values):
                values[at] = value
        times = np.array(self.times) if self.timed else None
        name = self.signal.name if self.signal.name != key.name else ""
        for part in split_at_restarts(steps):
            while key in taken:  # a restart, or a segment that the signals number themselves
                key = key._replace(segment=key.segment + 1)
            taken.add(key)
            yield Series(
                key, steps[part], values[part], None if times is None else times[part], name
            )
