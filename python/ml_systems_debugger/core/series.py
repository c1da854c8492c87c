"""`Series`: all measurements of one quantity at one place, as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from numbers import Integral
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from .frozen import FrozenDict, to_jsonable
from .names import HELD_OUT, canonical, qualified
from .signal import ReplicaId, Signal

__all__ = ["Series", "SeriesKey", "SeriesKind"]


class SeriesKind(str, Enum):
    """What the values of a series are."""

    SCALAR = "scalar"  # float64
    DIGEST = "digest"  # uint64, compared for equality only
    ARRAY = "array"  # object: references to arrays and tensors
    TEXT = "text"  # object: str

    __hash__ = str.__hash__  # of every key of a series; Enum's own is a call into Python


_DTYPES = {
    SeriesKind.SCALAR: np.dtype(np.float64),
    SeriesKind.DIGEST: np.dtype(np.uint64),
    SeriesKind.ARRAY: np.dtype(object),
    SeriesKind.TEXT: np.dtype(object),
}


class SeriesKey(NamedTuple):
    """What tells one series from another.

    `segment` counts restarts: a run whose step goes back continues as the
    next segment.
    """

    name: str
    split: str | None = None
    layer: str | None = None
    replica_id: ReplicaId | None = None
    run: str | None = None
    segment: int = 0
    kind: SeriesKind = SeriesKind.SCALAR

    @property
    def held_out(self) -> bool:
        """Whether the values come from data that training does not see."""
        return self.split is not None and self.split.partition("_")[0] in HELD_OUT

    def __str__(self) -> str:
        text = qualified(self.name, self.split, self.layer)
        if self.replica_id is not None:
            text += f" [replica {self.replica_id}]"
        if self.run is not None:
            text += f" ({self.run})"
        return text if self.segment == 0 else f"{text} (restart {self.segment})"

    def sort_key(self) -> tuple[Any, ...]:
        """Order for display and for results: name, run, restart, split, layer, replica."""
        replica = self.replica_id
        whole = type(replica) is int or isinstance(replica, Integral)
        place = (1, replica, "") if whole else (2, 0, replica or "")
        return (
            self.name, self.run or "", self.segment, self.split or "", self.layer or "",
            (0, 0, "") if replica is None else place, self.kind.value,
        )  # fmt: skip

    def to_list(self) -> list[Any]:
        """Return strict JSON terms, for saved states."""
        return [*(to_jsonable(part) for part in self[:6]), self.kind.value]

    @classmethod
    def from_list(cls, data: Sequence[Any]) -> SeriesKey:
        """Build from what `to_list` returned."""
        name, split, layer, replica_id, run, segment, kind = data
        return cls(name, split, layer, replica_id, run, segment, SeriesKind(kind))


def _whole_steps(steps: Any, key: SeriesKey) -> npt.NDArray[np.int64]:
    """Return `steps` as int64 [n]; raises ValueError where one is no such number."""
    given = np.asarray(steps)
    if given.dtype == np.int64 or given.size == 0:
        return given.astype(np.int64, copy=False)
    wide = given.dtype.kind == "u" and given.max() > np.iinfo(np.int64).max
    if given.dtype.kind not in "iu" or wide:
        shown = given.max() if wide else given.dtype
        raise ValueError(f"{key}: steps are whole numbers of 64 bits, got {shown}")
    return given.astype(np.int64)


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view: npt.NDArray[Any] = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, slots=True, eq=False)
class Series(Sequence[Signal]):
    """All measurements of one key, in order.

    Parameters
    ----------
    key : SeriesKey
    steps : int64 [n]
        Never decreasing.
    values : float64, uint64 or object [n]
        As the kind of the key says. Shared, not copied. What was not logged is
        absent; NaN is a recorded NaN.
    timestamps : float64 [n], optional
        Seconds since the epoch; NaN where unknown.
    source_name : str
        The name as it was given, where it differs from the canonical one.
    metadata : FrozenDict
        Of the series as a whole.

    Raises
    ------
    ValueError
        If shapes, dtypes or the order of steps are not as said.
    """

    key: SeriesKey
    steps: npt.NDArray[np.int64]
    values: npt.NDArray[Any]
    timestamps: npt.NDArray[np.float64] | None = None
    source_name: str = ""
    metadata: FrozenDict = field(default_factory=FrozenDict)

    def __post_init__(self) -> None:
        steps = _whole_steps(self.steps, self.key)
        values = np.asarray(self.values)
        if values.dtype != _DTYPES[self.key.kind]:
            raise ValueError(
                f"{self.key}: a {self.key.kind.value} series holds "
                f"{_DTYPES[self.key.kind]}, got {values.dtype}"
            )
        if steps.ndim != 1 or steps.shape != values.shape:
            raise ValueError(f"{self.key}: steps {steps.shape} and values {values.shape} differ")
        if len(steps) > 1 and (steps[1:] < steps[:-1]).any():
            at = int(np.argmax(steps[1:] < steps[:-1])) + 1
            raise ValueError(f"{self.key}: step goes back from {steps[at - 1]} to {steps[at]}")
        self._fill(steps, values, self.timestamps)

    def _fill(self, steps: Any, values: Any, timestamps: Any) -> None:
        object.__setattr__(self, "steps", _read_only(steps))
        object.__setattr__(self, "values", _read_only(values))
        if timestamps is not None:
            times = np.asarray(timestamps, dtype=np.float64)
            if times.shape != steps.shape:
                raise ValueError(f"{self.key}: {len(steps)} steps but {len(times)} timestamps")
            object.__setattr__(self, "timestamps", _read_only(times))

    @property
    def name(self) -> str:
        """Canonical name of the quantity."""
        return self.key.name

    @property
    def kind(self) -> SeriesKind:
        """What the values are."""
        return self.key.kind

    def between(self, start: int | None, stop: int | None) -> Series:
        """Return the part with ``start <= step < stop`` as a view; None is open."""
        low = 0 if start is None else int(np.searchsorted(self.steps, start, "left"))
        high = len(self) if stop is None else int(np.searchsorted(self.steps, stop, "left"))
        if low == 0 and high == len(self):
            return self
        if high < low:
            high = low
        part = object.__new__(Series)  # a view of checked arrays needs no second check
        object.__setattr__(part, "key", self.key)
        object.__setattr__(part, "steps", self.steps[low:high])
        object.__setattr__(part, "values", self.values[low:high])
        times = self.timestamps
        object.__setattr__(part, "timestamps", None if times is None else times[low:high])
        object.__setattr__(part, "source_name", self.source_name)
        object.__setattr__(part, "metadata", self.metadata)
        return part

    def __reduce__(self) -> tuple[type[Series], tuple[Any, ...]]:
        # Through the constructor: pickled or copied arrays would come back writable.
        parts = (self.key, self.steps, self.values, self.timestamps)
        return Series, (*parts, self.source_name, self.metadata)

    def __len__(self) -> int:
        return len(self.steps)

    @overload
    def __getitem__(self, index: int) -> Signal: ...
    @overload
    def __getitem__(self, index: slice) -> list[Signal]: ...
    def __getitem__(self, index: int | slice) -> Signal | list[Signal]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        key = self.key
        value = self.values[index]
        time = None if self.timestamps is None else float(self.timestamps[index])
        metadata = dict(self.metadata)
        if key.split is not None:
            metadata["split"] = key.split
        if key.run is not None:
            metadata["run"] = key.run
        if key.segment:
            metadata["segment"] = key.segment
        return Signal(
            self.source_name or self._signal_name(),
            value.item() if isinstance(value, np.generic) else value,
            None if time is None or np.isnan(time) else time,
            FrozenDict(metadata),
            key.replica_id,
            int(self.steps[index]),
            key.layer,
        )

    def _signal_name(self) -> str:
        # With its split only where that reads back as the same quantity.
        name = qualified(self.key.name, self.key.split)
        return name if canonical(name).name == self.key.name else self.key.name

    def __iter__(self) -> Iterator[Signal]:
        return (self[at] for at in range(len(self)))

    def __repr__(self) -> str:
        span = f", steps {self.steps[0]} to {self.steps[-1]}" if len(self) else ""
        return f"<Series {self.key}: {len(self)} values{span}>"
