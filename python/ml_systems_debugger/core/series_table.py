"""`SeriesTable`: many series that were measured at the same steps, as one array."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from .frozen import FrozenDict
from .series import Series, SeriesKey, SeriesKind
from .signal import ReplicaId

__all__ = ["SeriesTable", "TableKeys"]

Floats = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]


class TableKeys:
    """The keys of a table's columns, and what they have in common.

    A live run measures the same series again and again: one object for all of
    those tables lets whoever folds them look the keys up once.

    Parameters
    ----------
    keys : iterable of SeriesKey
        Of scalars, each once.
    """

    def __init__(self, keys: Iterable[SeriesKey]) -> None:
        self.keys = tuple(keys)
        if len(set(self.keys)) != len(self.keys):
            raise ValueError("the columns of a table have keys of their own")
        for key in self.keys:
            if key.kind is not SeriesKind.SCALAR:
                raise ValueError(f"{key}: a table holds scalars, got {key.kind.value}")

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def by_name(self) -> dict[str, Steps]:
        """The columns of every quantity, by canonical name, in order."""
        found: dict[str, list[int]] = {}
        for at, key in enumerate(self.keys):
            found.setdefault(key.name, []).append(at)
        return {name: np.array(places, np.int64) for name, places in found.items()}

    @cached_property
    def replicas(self) -> frozenset[ReplicaId]:
        """The replicas that columns are of."""
        return frozenset(key.replica_id for key in self.keys if key.replica_id is not None)

    def runs_of(self, names: Collection[str]) -> frozenset[str | None]:
        """Return the runs that log any of the quantities."""
        return frozenset(key.run for key in self._runs if key.name in names)

    @cached_property
    def _runs(self) -> tuple[SeriesKey, ...]:
        """One key for every quantity of every run."""
        return tuple({(key.name, key.run): key for key in self.keys}.values())


class SeriesTable:
    """Scalars of many series over the same steps.

    Parameters
    ----------
    keys : TableKeys
    steps : int64 [n]
        Never decreasing; at least one.
    values : float64 [n, len(keys)]
        C-contiguous. Shared, not copied, and read-only from now on.

    Raises
    ------
    ValueError
        If shapes, dtypes or the order of steps are not as said.
    """

    __slots__ = ("_by_series", "_finite", "keys", "steps", "values")

    keys: TableKeys
    steps: Steps
    values: Floats
    _by_series: Floats | None
    _finite: bool | None

    def __init__(self, keys: TableKeys, steps: Steps, values: Floats) -> None:
        if steps.dtype != np.int64 or values.dtype != np.float64 or not values.flags.c_contiguous:
            raise ValueError("a table takes steps of int64 and contiguous values of float64")
        if values.shape != (len(steps), len(keys)) or not len(steps):
            raise ValueError(
                f"values {values.shape} are not those of {len(steps)} steps and {len(keys)} keys"
            )
        if len(steps) > 1 and (steps[1:] < steps[:-1]).any():
            at = int(np.argmax(steps[1:] < steps[:-1])) + 1
            raise ValueError(f"step goes back from {steps[at - 1]} to {steps[at]}")
        self._fill(keys, steps, values)

    @classmethod
    def unchecked(cls, keys: TableKeys, steps: Steps, values: Floats) -> SeriesTable:
        """Return a table of what is known to fit: a live run makes four at a time."""
        made = cls.__new__(cls)
        made._fill(keys, steps, values)
        return made

    def _fill(self, keys: TableKeys, steps: Steps, values: Floats) -> None:
        steps.flags.writeable = False
        values.flags.writeable = False
        put = object.__setattr__
        put(self, "keys", keys)
        put(self, "steps", steps)
        put(self, "values", values)
        put(self, "_by_series", None)  # made when first asked for
        put(self, "_finite", None)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a SeriesTable is read-only: {name!r} cannot be set")

    def __len__(self) -> int:
        """Return the number of values."""
        return self.values.size

    @property
    def finite(self) -> bool:
        """Whether no value is NaN or infinite; looked at once."""
        if self._finite is None:
            object.__setattr__(self, "_finite", bool(np.isfinite(self.values).all()))
        return bool(self._finite)

    def series(self, column: int) -> Series:
        """Return one column as a series."""
        if self._by_series is not None:
            values = self._by_series[column]
        else:  # a few of many: not worth turning all of them
            values = self.values[:, column].copy()
            values.flags.writeable = False
        return _unchecked(self.keys.keys[column], self.steps, values)

    def __iter__(self) -> Iterator[Series]:
        if self._by_series is None:
            turned = self.values.T.copy()
            turned.flags.writeable = False
            object.__setattr__(self, "_by_series", turned)
        return (self.series(at) for at in range(len(self.keys)))

    def between(self, start: int | None, stop: int | None) -> SeriesTable | None:
        """Return the steps ``start <= step < stop`` as views; None where there are none."""
        low = 0 if start is None else int(np.searchsorted(self.steps, start, "left"))
        high = len(self.steps) if stop is None else int(np.searchsorted(self.steps, stop, "left"))
        if high <= low:
            return None
        return SeriesTable.unchecked(self.keys, self.steps[low:high], self.values[low:high])


_NOTHING = FrozenDict()


def _unchecked(key: SeriesKey, steps: Steps, values: Floats) -> Series:
    """Return a series of arrays that are known to fit; hundreds are made at a time."""
    one = object.__new__(Series)
    put = object.__setattr__
    put(one, "key", key)
    put(one, "steps", steps)
    put(one, "values", values)
    put(one, "timestamps", None)
    put(one, "source_name", "")
    put(one, "metadata", _NOTHING)
    return one
