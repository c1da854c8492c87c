"""`SignalSet`: many series with an index by key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, overload

import numpy as np
import numpy.typing as npt

from ._grouping import grouped, split_at_restarts
from .frozen import FrozenDict, freeze
from .names import canonical
from .series import Series, SeriesKey, SeriesKind
from .series_table import SeriesTable
from .signal import ReplicaId, Signal

__all__ = ["SignalSet", "split_at_restarts"]

_ANY: Any = object()
_NONE = np.empty(0, np.int64)


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

    __slots__ = ("_ends", "_held", "_keyed", "_named", "metadata", "singles", "tables", "unread")

    metadata: FrozenDict
    unread: tuple[str, ...]
    tables: tuple[SeriesTable, ...]
    """Series that a live run gave together, as arrays [steps, series]; see `of_tables`."""
    singles: tuple[Series, ...]
    """The series that are in no table; of most sets, all."""
    _held: tuple[Series, ...] | None
    _keyed: dict[SeriesKey, Series] | None
    _named: dict[str, list[Series]] | None
    _ends: npt.NDArray[np.int64] | None

    def __init__(
        self,
        series: Iterable[Series] = (),
        metadata: Mapping[str, Any] | None = None,
        unread: Iterable[str] = (),
    ) -> None:
        self._fill((), tuple(series), metadata, unread)
        self._index()

    def _fill(
        self,
        tables: tuple[SeriesTable, ...],
        singles: tuple[Series, ...],
        metadata: Mapping[str, Any] | None,
        unread: Iterable[str],
    ) -> None:
        put = object.__setattr__
        put(self, "tables", tables)
        put(self, "singles", singles)
        put(self, "metadata", freeze(metadata))
        put(self, "unread", (unread,) if isinstance(unread, str) else tuple(unread))
        put(self, "_held", None if tables else singles)
        for name in ("_keyed", "_named", "_ends"):
            put(self, name, None)  # built when first asked for

    def _index(self) -> None:
        by_key: dict[SeriesKey, Series] = {}
        by_name: dict[str, list[Series]] = {}
        for one in self.series:
            if one.key in by_key:
                raise ValueError(f"two series of the same key: {one.key}")
            by_key[one.key] = one
            by_name.setdefault(one.key.name, []).append(one)
        object.__setattr__(self, "_keyed", by_key)
        object.__setattr__(self, "_named", by_name)

    @property
    def series(self) -> tuple[Series, ...]:
        """All series: those of the tables first."""
        if self._held is None:
            held = [one for table in self.tables for one in table]
            object.__setattr__(self, "_held", (*held, *self.singles))
        assert self._held is not None  # noqa: S101 - set above
        return self._held

    @property
    def _by_key(self) -> dict[SeriesKey, Series]:
        if self._keyed is None:
            self._index()
        assert self._keyed is not None  # noqa: S101 - set above
        return self._keyed

    @classmethod
    def of_tables(cls, tables: Iterable[SeriesTable], singles: Iterable[Series] = ()) -> SignalSet:
        """Return a set of tables, and of series beside them.

        Whoever folds many series at once takes `tables` and `singles`; for
        everybody else their series are made as they are asked for.
        """
        made = cls.__new__(cls)
        made._fill(tuple(tables), tuple(singles), None, ())
        return made

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a SignalSet is read-only: {name!r} cannot be set")

    def __reduce__(self) -> tuple[type[SignalSet], tuple[Any, ...]]:
        return SignalSet, (self.series, self.metadata, self.unread)

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
        step goes back, the series continues as its next segment. Two names that
        mean the same quantity (``lr`` and ``learning_rate``) stay two series: the
        exact canonical name keeps the quantity. Values that are neither numbers,
        arrays nor text are named in `unread`.

        Raises
        ------
        TypeError
            For an item that is no `Signal`.
        ValueError
            For a step beyond 64 bits.
        """
        series, unread = grouped(signals)
        return cls(series, metadata, unread)

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
        if self._named is not None:
            return tuple(self._named)
        held = [name for table in self.tables for name in table.keys.by_name]
        return tuple(dict.fromkeys([*held, *(one.key.name for one in self.singles)]))

    def named(self, *names: str) -> list[Series]:
        """Return the series of quantities, by canonical name, in their order in the set."""
        if self._named is not None:
            if len(names) == 1:
                return list(self._named.get(names[0], ()))
            return [one for one in self.series if one.key.name in names]
        found = [
            table.series(at)
            for table in self.tables
            if not table.keys.by_name.keys().isdisjoint(names)
            for at in sorted(
                at for name in names for at in table.keys.by_name.get(name, _NONE).tolist()
            )
        ]
        return found + [one for one in self.singles if one.key.name in names]

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
        found: Iterable[Series]
        if not names:
            found = self.series
        else:
            wanted: dict[SeriesKey, Series] = {}
            for raw in names:
                parts = canonical(raw)
                for one in self.named(parts.name) or self.named(raw):
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

    @property
    def replicas(self) -> frozenset[ReplicaId]:
        """The replicas that any series is of."""
        found = {i for table in self.tables for i in table.keys.replicas}
        found.update(r for one in self.singles if (r := one.key.replica_id) is not None)
        return frozenset(found)

    def between(self, start: int | None, stop: int | None) -> SignalSet:
        """Return the steps ``start <= step < stop`` of every series, as views.

        Series with nothing there are left out. This is how a history is cut
        into chunks.
        """
        parts = (one.between(start, stop) for one in self.singles)
        cut = [table.between(start, stop) for table in self.tables]
        made = SignalSet.__new__(SignalSet)
        made._fill(
            tuple(table for table in cut if table is not None),
            tuple(part for part in parts if len(part)),
            self.metadata,
            self.unread,
        )
        return made

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
        return sum(map(len, self.singles)) + sum(map(len, self.tables))

    @overload
    def __getitem__(self, index: int) -> Signal: ...
    @overload
    def __getitem__(self, index: slice) -> list[Signal]: ...
    def __getitem__(self, index: int | slice) -> Signal | list[Signal]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if self._ends is None:
            ends = np.cumsum([len(one) for one in self.series], dtype=np.int64)
            object.__setattr__(self, "_ends", ends)
        assert self._ends is not None  # noqa: S101 - set above
        total = int(self._ends[-1]) if len(self._ends) else 0
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
