"""`Signal`: one measurement, the contract at the edges of the system."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np

from .frozen import FrozenDict, freeze, numbers_back, to_jsonable

__all__ = ["ReplicaId", "Signal", "is_array", "scalar_value"]

ReplicaId = int | str


def is_array(value: object) -> bool:
    """Return whether `value` is an array or tensor of one dimension or more."""
    ndim = getattr(value, "ndim", None)
    if callable(ndim):  # torch has ndim as an attribute, some libraries as a method
        ndim = ndim()
    return isinstance(ndim, int) and ndim > 0


def scalar_value(value: object) -> float | None:
    """Return `value` as a float, or None where it is no single number.

    Takes Python and NumPy numbers of every width, booleans, 0-d arrays and
    0-d tensors. Text is never parsed here.

    Examples
    --------
    >>> scalar_value(np.float32(0.5)), scalar_value("0.5")
    (0.5, None)
    """
    if isinstance(value, (float, int)):  # bool too
        try:
            return float(value)
        except OverflowError:  # an int beyond the largest float
            return math.inf if value > 0 else -math.inf
    if isinstance(value, (np.number, np.bool_, Real)):
        return None if isinstance(value, np.complexfloating) else float(value)
    if isinstance(value, (str, bytes)) or is_array(value):
        return None
    item = getattr(value, "item", None)
    if getattr(value, "ndim", None) == 0 and callable(item):
        return scalar_value(item())
    return None


def whole_number(name: str, value: Any) -> int:
    """Return `value` as an int: an int of any library, or a float without a fraction.

    Raises
    ------
    TypeError
        For anything else, with `name` and the value.
    """
    try:
        return operator.index(value)
    except TypeError:
        number = scalar_value(value)
    if number is None or not number.is_integer():
        raise TypeError(f"{name} is a whole number, got {value!r}")
    return int(number)


def plain_replica(value: Any) -> ReplicaId:
    """Return a replica as an int or a str; raises TypeError for anything else."""
    if type(value) is int:
        return value
    return str(value) if isinstance(value, str) else whole_number("replica_id", value)


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """One measurement.

    Parameters
    ----------
    name : str
        What was measured: a canonical name (``loss``, ``grad_norm``, ``lr``)
        or any other.
    value : object
        A number, an array or tensor (held by reference, never copied), or a
        text such as a log message.
    timestamp : float, optional
        Seconds since the epoch.
    metadata : mapping
        Read-only. ``split``, ``run`` and ``segment`` are understood.
    replica_id : int or str, optional
        Rank or worker.
    step : int, optional
        Training step.
    layer_name : str, optional
        Parameter or module name, as ``encoder.0.weight``.

    Raises
    ------
    TypeError
        If a part is not of its type; ints and floats of NumPy and tensors of
        no dimension are taken as the numbers that they are.

    Examples
    --------
    >>> Signal("loss", 0.25, step=3)
    Signal(name='loss', value=0.25, step=3)
    """

    name: str
    value: Any
    timestamp: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=FrozenDict)
    replica_id: ReplicaId | None = None
    step: int | None = None
    layer_name: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"a signal's name is a non-empty str, got {self.name!r}")
        put = object.__setattr__
        if type(self.metadata) is not FrozenDict:
            put(self, "metadata", freeze(self.metadata))
        if self.step is not None and type(self.step) is not int:
            put(self, "step", whole_number(f"step of signal {self.name!r}", self.step))
        if self.replica_id is not None:
            put(self, "replica_id", plain_replica(self.replica_id))
        if self.layer_name is not None and not isinstance(self.layer_name, str):
            raise TypeError(f"layer_name of signal {self.name!r} is a str, got {self.layer_name!r}")
        if self.timestamp is not None and type(self.timestamp) is not float:
            put(self, "timestamp", self._seconds())

    def _seconds(self) -> float:
        seconds = scalar_value(self.timestamp)
        if seconds is None:
            raise TypeError(
                f"timestamp of signal {self.name!r} is in seconds since the epoch, "
                f"got {self.timestamp!r}"
            )
        return seconds

    def __repr__(self) -> str:
        shown = [f"name={self.name!r}"]
        if is_array(self.value):
            shown.append(f"value=<{type(self.value).__name__} {tuple(self.value.shape)}>")
        else:
            shown.append(f"value={self.value!r}")
        for name in ("timestamp", "metadata", "replica_id", "step", "layer_name"):
            value = getattr(self, name)
            if value is not None and value != {}:
                shown.append(f"{name}={value!r}")
        return f"Signal({', '.join(shown)})"

    def _identity(self) -> tuple[object, ...]:
        value = self.value
        number = scalar_value(value)
        same: object
        if isinstance(value, Integral):
            same = int(value)  # a float would lose digits
        elif number is not None:
            # Equal numbers of any width share one hash; a recorded NaN equals itself.
            same = ("NaN",) if math.isnan(number) else number
        elif isinstance(value, (str, bytes, type(None))):
            same = value
        else:
            same = ("by identity", id(value))
        return (self.name, same, self.timestamp, self.replica_id, self.step, self.layer_name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Signal):
            return NotImplemented
        return self._identity() == other._identity() and self.metadata == other.metadata

    def __hash__(self) -> int:
        return hash(self._identity())

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms; array values become (nested) lists."""
        return {
            "name": self.name,
            "value": to_jsonable(self.value),
            "timestamp": to_jsonable(self.timestamp),
            "metadata": to_jsonable(self.metadata),
            "replica_id": to_jsonable(self.replica_id),
            "step": to_jsonable(self.step),
            "layer_name": self.layer_name,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Signal:
        """Build from what `to_dict` returned; an array comes back as a (nested) list."""
        back = {name: numbers_back(data[name]) for name in ("value", "timestamp", "metadata")}
        return cls(**{**data, **back})
