"""`SignalSet`: many series with an index by key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from .frozen import FrozenDict, freeze
from .names import QuantityName, canonical
from .series import Series, SeriesKey, SeriesKind
from .signal import ReplicaId, Signal, is_array, scalar_value

__all__ = ["SignalSet", "split_at_restarts"]

_ANY: Any = object()


def split_at_restarts(steps: npt.NDArray[np.int64]) -> list[slice]:
    """Return the runs of `steps` [n] that never decrease, as slices; one for no restart."""
    cuts = (np.flatnonzero(steps[1:] < steps[:-1]) + 1).tolist()
    return [slice(a, b) for a, b in pairwise([0, *cuts, len(steps)])]


class SignalSet(Sequence[Signal]):
    """An immutable collection of series; itself a sequence of `Signal`.

    As a sequence it yields the signals series by series, made as they are
    asked for: a million steps cost arrays, not a million objects.

    Parameters
    ----------
    series : iterable of Series
        One per key; a second one of the same key is an error.
    metadata : mapping
        Of the source: path, format, configuration.
    unread : iterable of str
        Parts of the input that could not be read, one sentence each. Where
        there are any, no report on this set says "healthy".
    """

    __slots__ = ("_by_key", "_by_name", "_ends", "metadata", "series", "unread")

    def __init__(
        self,
        series: Iterable[Series] = (),
        metadata: Mapping[str, Any] | None = None,
        unread: Iterable[str] = (),
    ) -> None:
        self.series: tuple[Series, ...] = tuple(series)
        self.metadata: FrozenDict = freeze(metadata)
        self.unread: tuple[str, ...] = tuple(unread)
        self._by_key: dict[SeriesKey, Series] = {}
        self._by_name: dict[str, list[Series]] = {}
        for one in self.series:
            if one.key in self._by_key:
                raise ValueError(f"two series of the same key: {one.key}")
            self._by_key[one.key] = one
            self._by_name.setdefault(one.key.name, []).append(one)
        self._ends: npt.NDArray[np.int64] | None = None  # built when first indexed

    @classmethod
    def of(cls, signals: SignalSet | Iterable[Signal]) -> SignalSet:
        """Return `signals` itself if it is a set, else one built with `from_signals`."""
        return signals if isinstance(signals, SignalSet) else cls.from_signals(signals)

    @classmethod
    def from_signals(
        cls, signals: Iterable[Signal], metadata: Mapping[str, Any] | None = None
    ) -> SignalSet:
        """Group single signals into series, in order of arrival.

        A signal without a step gets the one after its predecessor's. Where a
        step goes back, the series continues as its next segment. Values that
        are neither numbers, arrays nor text are named in `unread`.
        """
        rows: dict[SeriesKey, _Rows] = {}
        unread: list[str] = []
        for at, signal in enumerate(signals):
            if not isinstance(signal, Signal):
                raise TypeError(f"item {at} is no Signal but {type(signal).__name__}: {signal!r}")
            number = scalar_value(signal.value)
            if number is not None:
                kind = SeriesKind.SCALAR
            elif is_array(signal.value):
                kind = SeriesKind.ARRAY
            elif isinstance(signal.value, str):
                kind = SeriesKind.TEXT
            else:
                unread.append(
                    f"signal {signal.name!r} at step {signal.step}: a value of type "
                    f"{type(signal.value).__name__} is no number, array or text"
                )
                continue
            if kind is SeriesKind.SCALAR and signal.name.partition("/")[0].endswith("_digest"):
                kind = SeriesKind.DIGEST
            key = _key_of(signal, kind)
            found = rows.get(key)
            if found is None:
                found = rows[key] = _Rows(signal.name)
            value = number if kind is SeriesKind.SCALAR else signal.value
            found.add(signal.step, value, signal.timestamp)
        built = [part for key, found in rows.items() for part in found.build(key)]
        return cls(built, metadata, unread)

    @classmethod
    def concatenate(cls, chunks: Sequence[SignalSet]) -> SignalSet:
        """Join consecutive chunks of one history: series of one key end to end."""
        parts: dict[SeriesKey, list[Series]] = {}
        for chunk in chunks:
            for one in chunk.series:
                parts.setdefault(one.key, []).append(one)
        unread = dict.fromkeys(text for chunk in chunks for text in chunk.unread)
        metadata = {k: v for chunk in chunks for k, v in chunk.metadata.items()}
        return cls((_joined(found) for found in parts.values()), metadata, unread)

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names of the quantities, in order of first appearance."""
        return tuple(self._by_name)

    @property
    def keys(self) -> tuple[SeriesKey, ...]:
        """Keys of the series, in their order."""
        return tuple(self._by_key)

    def get(self, key: SeriesKey) -> Series | None:
        """Return the series of `key`, or None."""
        return self._by_key.get(key)

    def select(
        self,
        *names: str,
        kind: SeriesKind | None = SeriesKind.SCALAR,
        held_out: bool | None = None,
        split: str | None = _ANY,
        layer: str | None = _ANY,
        replica_id: ReplicaId | None = _ANY,
    ) -> tuple[Series, ...]:
        """Return the series that match all that is given, sorted by key.

        Parameters
        ----------
        *names : str
            Quantities, by any name that means them (``learning_rate`` finds
            ``lr``; ``val_loss`` finds loss of that split); none means all.
        kind : SeriesKind or None
            None for every kind; scalars by default.
        held_out : bool, optional
            Only series of held-out splits (True), or only the others (False).
        split, layer, replica_id : optional
            Exact match; None matches only "not given".
        """
        found: Iterable[Series] = self.series
        if names:
            wanted: dict[SeriesKey, Series] = {}
            for raw in names:
                parts = canonical(raw)
                candidates = self._by_name.get(parts.name, []) or self._by_name.get(raw, [])
                for one in candidates:
                    if parts.split in (None, one.key.split) and parts.layer in (
                        None,
                        one.key.layer,
                    ):
                        wanted[one.key] = one
            found = wanted.values()
        return tuple(
            sorted(
                (
                    one
                    for one in found
                    if kind in (None, one.key.kind)
                    and (held_out is None or held_out == one.key.held_out)
                    and (split is _ANY or split == one.key.split)
                    and (layer is _ANY or layer == one.key.layer)
                    and (replica_id is _ANY or replica_id == one.key.replica_id)
                ),
                key=lambda one: one.key.sort_key(),
            )
        )

    def between(self, start: int | None, stop: int | None) -> SignalSet:
        """Return the steps ``start <= step < stop`` of every series, as views.

        Series with nothing there are left out. This is how a history is cut
        into chunks.
        """
        parts = (one.between(start, stop) for one in self.series)
        return SignalSet((p for p in parts if len(p)), self.metadata, self.unread)

    def with_series(self, more: Iterable[Series]) -> SignalSet:
        """Return a set with further series behind these."""
        return SignalSet((*self.series, *more), self.metadata, self.unread)

    def with_notes(
        self, metadata: Mapping[str, Any] | None = None, unread: Iterable[str] = ()
    ) -> SignalSet:
        """Return the same series with more metadata and more unread parts."""
        return SignalSet(
            self.series, {**self.metadata, **(metadata or {})}, (*self.unread, *unread)
        )

    @property
    def step_range(self) -> tuple[int, int] | None:
        """First and last step of all series, or None for no measurement."""
        held = [one for one in self.series if len(one)]
        if not held:
            return None
        return min(int(s.steps[0]) for s in held), max(int(s.steps[-1]) for s in held)

    def __len__(self) -> int:
        return sum(len(one) for one in self.series)

    @overload
    def __getitem__(self, index: int) -> Signal: ...
    @overload
    def __getitem__(self, index: slice) -> list[Signal]: ...
    def __getitem__(self, index: int | slice) -> Signal | list[Signal]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if self._ends is None:
            self._ends = np.cumsum([len(one) for one in self.series], dtype=np.int64)
        total = len(self)
        at = index + total if index < 0 else index
        if not 0 <= at < total:
            raise IndexError(f"signal {index} of {total}")
        which = int(np.searchsorted(self._ends, at, "right"))
        return self.series[which][at - (int(self._ends[which - 1]) if which else 0)]

    def __iter__(self) -> Iterator[Signal]:
        for one in self.series:
            yield from one

    def __repr__(self) -> str:
        return f"<SignalSet: {len(self.series)} series, {len(self)} values>"


def _joined(parts: list[Series]) -> Series:
    if len(parts) == 1:
        return parts[0]
    timed = any(part.timestamps is not None for part in parts)
    times = [np.full(len(p), np.nan) if p.timestamps is None else p.timestamps for p in parts]
    return Series(
        parts[0].key,
        np.concatenate([part.steps for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate(times) if timed else None,
        parts[0].source_name,
        parts[0].metadata,
    )


def _key_of(signal: Signal, kind: SeriesKind) -> SeriesKey:
    parts = canonical(signal.name) if signal.layer_name is None else _layered(signal)
    split = signal.metadata.get("split", parts.split)
    run = signal.metadata.get("run")
    return SeriesKey(
        parts.name,
        None if split is None else str(split),
        parts.layer,
        signal.replica_id,
        None if run is None else str(run),
        int(signal.metadata.get("segment", 0)),
        kind,
    )


def _layered(signal: Signal) -> QuantityName:
    parts = canonical(signal.name)
    if parts.layer is not None and parts.layer != signal.layer_name:
        return QuantityName(signal.name, layer=signal.layer_name)
    return parts._replace(layer=signal.layer_name)


class _Rows:
    """The growing columns of one series."""

    __slots__ = ("name", "steps", "timed", "times", "values")

    def __init__(self, name: str) -> None:
        self.name = name
        self.steps: list[int] = []
        self.values: list[Any] = []
        self.times: list[float] = []
        self.timed = False

    def add(self, step: int | None, value: Any, time: float | None) -> None:
        if step is None:
            step = self.steps[-1] + 1 if self.steps else 0
        self.steps.append(int(step))
        self.values.append(value)
        self.times.append(np.nan if time is None else float(time))
        self.timed = self.timed or time is not None

    def build(self, key: SeriesKey) -> Iterator[Series]:
        steps = np.array(self.steps, dtype=np.int64)
        if key.kind is SeriesKind.SCALAR:
            values = np.array(self.values, dtype=np.float64)
        elif key.kind is SeriesKind.DIGEST:
            values = np.array([int(v) & 0xFFFF_FFFF_FFFF_FFFF for v in self.values], np.uint64)
        else:
            values = np.empty(len(steps), dtype=object)
            for at, value in enumerate(self.values):
                values[at] = value
        times = np.array(self.times) if self.timed else None
        name = self.name if self.name != key.name else ""
        for number, part in enumerate(split_at_restarts(steps)):
            yield Series(
                key._replace(segment=key.segment + number),
                steps[part],
                values[part],
                None if times is None else times[part],
                name,
            )
