"""`TableStream`: a source that is read piece by piece, as series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..core import BaseStream, SchemaError, Series, SeriesKey, SeriesKind, SignalSet
from ._assemble import assemble
from ._bytes import MAX_LINE
from ._closing import Closing
from ._joint import Joint
from ._log_reader import KEPT
from ._table import Table
from ._trust import with_absences

__all__ = ["LineReader", "TableReader", "TableStream"]

_SHOWN = 100
_TAIL = 256
_COUNTS = frozenset({"rows", "repeated_lines", "values_without_numbers"})


class TableReader(Protocol):
    """Reads one format: bytes in, rows out."""

    def feed(self, data: bytes, /) -> None:
        """Take the next bytes."""

    def table(self, damage: Sequence[str] = (), *, last: bool = True) -> Table:
        """Return what is new since the last call; if `last`, with what is cut off at the end."""


class LineReader:
    """Gives a reader of text whole lines, in pieces of any size."""

    def __init__(self, reader: TableReader, name: str) -> None:
        self._reader = reader
        self._name = name
        self._waiting: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes, /) -> None:
        """Take the next bytes; a line that has no end yet waits."""
        cut = data.rfind(b"\n") + 1
        if cut:
            self._reader.feed(b"".join([*self._waiting, data[:cut]]))
            self._waiting, self._size = [], 0
        if cut < len(data):
            self._waiting.append(data[cut:])
            self._size += len(data) - cut
        if self._size > MAX_LINE:
            raise SchemaError("a line longer than 64 MiB", source=self._name)

    def table(self, damage: Sequence[str] = (), *, last: bool = True) -> Table:
        """Return what is new; see `TableReader`."""
        if last and self._waiting:
            self._reader.feed(b"".join(self._waiting))
            self._waiting = []
        return self._reader.table(damage, last=last)


class TableStream(BaseStream):
    """Reads a source piece by piece; keeps what the pieces have in common and no more.

    Parameters
    ----------
    make : callable
        Makes the reader of a file of some name.
    name : str
        Of the file, for messages.
    mapping : mapping of str to str, optional
        Column name to the name it should be read under.
    """

    def __init__(
        self,
        make: Callable[[str], TableReader],
        name: str,
        mapping: Mapping[str, str] | None = None,
    ) -> None:
        self._make = make
        self._reader = make(name)
        self._mapping = dict(mapping or {})
        self._joint = Joint()
        self._closing = Closing(self._joint)
        self._facts: dict[str, Any] = {}
        self._unread: dict[str, None] = {}
        self._more_unread = 0
        self._tails: dict[SeriesKey, Series] = {}

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._reader.feed(data)

    def take(self) -> SignalSet:
        """Return the closed steps that are new; see `BaseStream`."""
        before = len(self._unread)
        closed = self._closing.add(self._taken(last=False, damage=()))
        return closed.with_notes(unread=list(self._unread)[before:])

    def begin_anew(self, name: str) -> SignalSet:
        """Take what follows as a new file of the same run; see `BaseStream`."""
        closed = self.take()
        self._reader = self._make(name)
        return closed

    def finish(self, damage: Sequence[str] = ()) -> SignalSet:
        """Return the rest, with metadata and what could not be read of the whole."""
        closed = self._closing.add(self._taken(last=True, damage=damage))
        for old in self._mapping.keys() - self._joint.mapped:
            raise SchemaError(
                f"no such column to read as {self._mapping[old]!r}",
                source=str(self._facts.get("source", "")),
                column=old,
            )
        rest = SignalSet.concatenate([closed, self._closing.rest()])
        _, absences = with_absences(list(self._tails.values()))
        if absences:
            self._facts["absences"] = absences
        if behind := self._closing.behind:
            self._note(
                f"{sum(behind.values())} values of replica {', '.join(map(str, behind))} stand "
                "behind later steps of other replicas, which were judged without them; sort the "
                "rows by step"
            )
        if self._more_unread:
            self._unread[f"and {self._more_unread} more notes of what was not read"] = None
        return rest.with_notes(self._facts, self._unread)

    def _taken(self, *, last: bool, damage: Sequence[str]) -> SignalSet:
        table = self._reader.table(damage, last=last)
        found = assemble(table, self._mapping, self._joint)
        for note in found.unread:
            self._note(note)
        self._merge(found.metadata)
        for one in found.series:
            if one.kind is SeriesKind.SCALAR:
                self._keep(one)
        return SignalSet(found.series)

    def _note(self, text: str) -> None:
        if len(self._unread) < _SHOWN:
            self._unread[text] = None
        elif text not in self._unread:
            self._more_unread += 1

    def _merge(self, new: Mapping[str, Any]) -> None:
        """Add the metadata of a piece to that of the source: counts are summed, notes follow."""
        facts = self._facts
        for key, value in new.items():
            old = facts.get(key)
            if old is None or value is None:
                facts[key] = value if old is None else old
            elif key in _COUNTS:
                facts[key] = old + value
            elif key == "log_event_kinds":
                facts[key] = dict(Counter(old) + Counter(value))
            elif key == "log_events":
                listed = [*old, *value]
                facts[key] = [*listed[:KEPT], *listed[KEPT:][-KEPT:]]
            elif isinstance(old, (list, tuple)) and isinstance(value, (list, tuple)):
                facts[key] = list(dict.fromkeys([*old, *value]))[:_SHOWN]
            elif key != "not_trustworthy":  # of this, the first place is told
                facts[key] = value

    def _keep(self, one: Series) -> None:
        """Remember the last values of a series: what is missing behind them is evidence."""
        before = self._tails.get(one.key)
        steps, values = one.steps[-_TAIL:], one.values[-_TAIL:]
        if before is not None and len(steps) < _TAIL:
            steps = np.concatenate([before.steps, steps])[-_TAIL:]
            values = np.concatenate([before.values, values])[-_TAIL:]
        self._tails[one.key] = Series(one.key, steps.copy(), values.copy())
