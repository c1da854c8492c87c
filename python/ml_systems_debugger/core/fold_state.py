"""What a detector remembers between chunks: arrays over its series, and its findings."""

from __future__ import annotations

import copy
from bisect import insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ._pack import pack, unpack
from .finding import Event, EventKind, Finding
from .frozen import freeze, numbers_back, to_jsonable
from .series import Series, SeriesKey, SeriesKind
from .series_table import TableKeys
from .signal_set import SignalSet

__all__ = ["Column", "DetectorState", "FoldState", "HistoryState"]

Plan = TypeVar("Plan")
_MOST_PLANS = 64

MAX_FINDINGS = 1000
"""Findings kept per detector, the first by step and id; further ones are only counted."""


@dataclass(frozen=True, slots=True)
class Column:
    """One array of a `FoldState`, with a row for every series."""

    dtype: Any = np.float64
    shape: tuple[int, ...] = ()
    fill: Any = 0


class FoldState:
    """The state of one detector: owned by one caller, updated in place.

    Parameters
    ----------
    detector : str
        Name of the detector, checked when a saved state is restored.
    version : int
        Of the detector's layout, likewise.
    columns : mapping of str to Column
        ``state["name"]`` is the array [capacity, ...] whose row ``state.row(key)``
        belongs to that series. Arrays are replaced when rows are added, so
        take them anew after `row`.

    Attributes
    ----------
    memory : dict
        JSON terms that concern the detector as a whole; bounded by the detector.
    findings : dict of str to Finding
        By id, in order of opening.
    """

    def __init__(self, detector: str, version: int, columns: Mapping[str, Column]) -> None:
        self.detector = detector
        self.version = version
        self.memory: dict[str, Any] = {}
        self.findings: dict[str, Finding] = {}
        self.dropped_findings = 0
        self._opened = 0
        self._fresh: list[tuple[int, str]] = []  # opened since the last events were taken
        self._schema = dict(columns)
        self._arrays = {name: _filled(0, column) for name, column in columns.items()}
        self._rows: dict[SeriesKey, int] = {}
        self._events: list[Event] = []
        self._plans = _Plans()

    @property
    def keys(self) -> tuple[SeriesKey, ...]:
        """The series seen, in order of their rows."""
        return tuple(self._rows)

    def __getitem__(self, column: str) -> npt.NDArray[Any]:
        return self._arrays[column]

    def row(self, key: SeriesKey) -> int:
        """Return the row of `key`, made with the columns' fill values when new."""
        found = self._rows.get(key)
        if found is not None:
            return found
        at = len(self._rows)
        for name, array in self._arrays.items():
            if at >= len(array):
                more = _filled(max(4, len(array)), self._schema[name])
                self._arrays[name] = np.concatenate([array, more])
        self._rows[key] = at
        return at

    def rows(self, keys: TableKeys) -> slice | npt.NDArray[np.int64]:
        """Return the rows of a table's columns, made when new; a slice where they are in order."""
        return self.plan(keys, "rows", lambda: _rows_of([self.row(key) for key in keys.keys]))

    def plan(self, keys: TableKeys, name: str, make: Callable[[], Plan]) -> Plan:
        """Return what was made for a table's columns: once for each `keys`, by identity.

        It may hold rows, which never change, but no array of this state.
        """
        held = self._plans.get((id(keys), name))
        if held is None or held[0] is not keys:
            if len(self._plans) >= _MOST_PLANS:  # a caller that makes new keys for every table
                self._plans.clear()
            held = self._plans[id(keys), name] = (keys, make())
        plan: Plan = held[1]
        return plan

    def open(self, step: int, finding: Finding) -> bool:
        """Add a finding decided at `step`; False where only its count is kept."""
        if finding.finding_id in self.findings:
            raise ValueError(f"finding {finding.finding_id!r} is open already")
        if self._opened >= MAX_FINDINGS:
            self.dropped_findings += 1
            # Series come one by one within a chunk, steps one by one between chunks. The
            # first by step are kept either way, or the result would depend on the cut.
            if not self._fresh or self._fresh[-1] <= (step, finding.finding_id):
                return False
            _, last = self._fresh.pop()
            self.findings.pop(last, None)
            self._events = [e for e in self._events if e.finding.finding_id != last]
        else:
            self._opened += 1
        insort(self._fresh, (step, finding.finding_id))
        self.findings[finding.finding_id] = finding
        self._events.append(Event(EventKind.OPEN, step, finding))
        return True

    def replace(self, finding: Finding, step: int | None = None) -> None:
        """Put a newer form of a finding in place; with `step` it is an event (EXTEND)."""
        if finding.finding_id not in self.findings:
            return  # only counted
        self.findings[finding.finding_id] = finding
        if step is not None:
            self._events.append(Event(EventKind.EXTEND, step, finding))

    def close(self, step: int, finding: Finding) -> None:
        """Put the last form of a finding in place: it is over, and stays."""
        if finding.finding_id in self.findings:
            self.findings[finding.finding_id] = finding
            self._events.append(Event(EventKind.CLOSE, step, finding))

    def retract(self, step: int, finding_id: str) -> None:
        """Take a finding back: it was none."""
        finding = self.findings.pop(finding_id, None)
        if finding is not None:
            self._events.append(Event(EventKind.RETRACT, step, finding))

    def take_events(self) -> tuple[Event, ...]:
        """Return the events since the last call, ordered by step."""
        events = tuple(sorted(self._events, key=Event.sort_key))
        self._events.clear()
        self._fresh.clear()
        return events

    def snapshot(self) -> FoldState:
        """Return an independent copy."""
        return copy.deepcopy(self)

    def to_bytes(self) -> bytes:
        """Return the state as bytes, without pickle; events not yet taken are not part of it."""
        header = {
            "detector": self.detector,
            "version": self.version,
            "memory": to_jsonable(self.memory),
            "findings": [f.to_dict() for f in self.findings.values()],
            "dropped_findings": self.dropped_findings,
            "opened": self._opened,
            "keys": [key.to_list() for key in self._rows],
        }
        return pack(header, {n: a[: len(self._rows)] for n, a in self._arrays.items()})

    def restore(self, data: bytes) -> None:
        """Take the content of `to_bytes` into this freshly made state.

        Raises
        ------
        ValueError
            If `data` is damaged, or of another detector or layout.
        """
        header, arrays = unpack(data)
        theirs = (header.get("detector"), header.get("version"))
        if theirs != (self.detector, self.version):
            raise ValueError(
                f"this is a state of {theirs[0]} version {theirs[1]}, "
                f"not of {self.detector} version {self.version}"
            )
        try:
            keys = [SeriesKey.from_list(key) for key in header["keys"]]
            memory = dict(numbers_back(header["memory"]))
            findings = [Finding.from_dict(found) for found in header["findings"]]
            dropped, opened = int(header["dropped_findings"]), int(header["opened"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"saved state of {self.detector} is damaged: {error!r}") from error
        for name, column in self._schema.items():
            found = arrays.get(name)
            shape = (len(keys), *column.shape)
            if found is None or found.shape != shape or found.dtype != np.dtype(column.dtype):
                raise ValueError(f"saved state of {self.detector}: column {name!r} does not fit")
        # All of it was understood: nothing is half restored.
        self._arrays = {name: arrays[name] for name in self._schema}
        self._rows = {key: row for row, key in enumerate(keys)}
        self.memory = memory
        self.findings = {f.finding_id: f for f in findings}
        self.dropped_findings, self._opened = dropped, opened
        self._events, self._fresh = [], []
        self._plans.clear()


class HistoryState:
    """The state of a detector that writes `detect` alone: the whole history.

    It grows with the run; write `init`, `update` and `conclude` to be bounded.
    """

    def __init__(self, detector: str, context: Mapping[str, Any] | None) -> None:
        self.detector = detector
        self.context = context
        self._chunks: list[SignalSet] = []

    def add(self, chunk: SignalSet) -> None:
        """Keep one more chunk."""
        self._chunks.append(chunk)

    @property
    def history(self) -> SignalSet:
        """All chunks so far, as one set."""
        if len(self._chunks) > 1:
            self._chunks = [SignalSet.concatenate(self._chunks)]
        return self._chunks[0] if self._chunks else SignalSet()

    def take_events(self) -> tuple[Event, ...]:
        """Return nothing: such a detector judges only when it concludes."""
        return ()

    def snapshot(self) -> HistoryState:
        """Return an independent copy (the chunks are immutable and shared)."""
        copied = HistoryState(self.detector, self.context)
        copied._chunks = list(self._chunks)
        return copied

    def to_bytes(self) -> bytes:
        """Return numbers and digests as bytes; raises TypeError where arrays or text are kept."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        keys = []
        for at, one in enumerate(self.history.series):
            if one.kind not in (SeriesKind.SCALAR, SeriesKind.DIGEST):
                raise TypeError(f"{one.key}: a history of {one.kind.value} values is not saved")
            keys.append([*one.key.to_list(), one.source_name, to_jsonable(one.metadata)])
            arrays[f"steps{at}"], arrays[f"values{at}"] = one.steps, one.values
            if one.timestamps is not None:
                arrays[f"times{at}"] = one.timestamps
        header = {
            "detector": self.detector,
            "keys": keys,
            "metadata": to_jsonable(self.history.metadata),
            "unread": list(self.history.unread),
        }
        return pack(header, arrays)

    def restore(self, data: bytes) -> None:
        """Take the content of `to_bytes` into this freshly made state.

        Raises
        ------
        ValueError
            If `data` is damaged or of another detector.
        """
        header, arrays = unpack(data)
        if header.get("detector") != self.detector:
            raise ValueError(f"this is a state of {header.get('detector')}, not of {self.detector}")
        try:
            series = [
                Series(
                    SeriesKey.from_list(key[:7]), arrays[f"steps{at}"], arrays[f"values{at}"],
                    arrays.get(f"times{at}"), key[7], freeze(numbers_back(key[8])),
                )
                for at, key in enumerate(header["keys"])
            ]  # fmt: skip
            metadata, unread = numbers_back(header["metadata"]), header["unread"]
            self._chunks = [SignalSet(series, metadata, unread)]
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"saved state of {self.detector} is damaged: {error!r}") from error


DetectorState = FoldState | HistoryState


class _Plans(dict[tuple[int, str], tuple[TableKeys, Any]]):
    """Made anew where a state is copied: what they are known by is where the keys lie."""

    def __deepcopy__(self, memo: Any) -> _Plans:
        return _Plans()


def _rows_of(rows: list[int]) -> slice | npt.NDArray[np.int64]:
    if rows and rows == list(range(rows[0], rows[0] + len(rows))):
        return slice(rows[0], rows[0] + len(rows))
    return np.array(rows, np.int64)


def _filled(rows: int, column: Column) -> npt.NDArray[Any]:
    return np.full((rows, *column.shape), column.fill, dtype=column.dtype)
