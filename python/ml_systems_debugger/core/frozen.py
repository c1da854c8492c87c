"""Read-only mappings, and strict JSON for values that may not be JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, NoReturn

import numpy as np

__all__ = ["FrozenDict", "freeze", "from_json_number", "to_jsonable"]

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class FrozenDict(dict[str, Any]):
    """A dict that cannot be changed: safe to share between threads and reports.

    A subclass of `dict` rather than a mapping proxy, since a proxy can be
    neither pickled nor passed to `json.dumps`.
    """

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("this mapping is read-only; copy it with dict(...) to change it")

    __setitem__ = _refuse
    __delitem__ = _refuse
    __ior__ = _refuse
    clear = _refuse
    pop = _refuse
    popitem = _refuse
    setdefault = _refuse
    update = _refuse

    def __reduce__(self) -> tuple[type[FrozenDict], tuple[dict[str, Any]]]:
        return FrozenDict, (dict(self),)

    def __copy__(self) -> FrozenDict:
        return self

    def __deepcopy__(self, _: object) -> FrozenDict:
        return self


def freeze(mapping: Mapping[str, Any] | None) -> FrozenDict:
    """Copy a mapping into a read-only one; nested mappings and lists too."""
    if isinstance(mapping, FrozenDict):
        return mapping
    return FrozenDict({str(k): _freeze_value(v) for k, v in (mapping or {}).items()})


def _freeze_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return freeze(value)
    if isinstance(value, (list, tuple)):
        return tuple(_freeze_value(v) for v in value)
    return value


def to_jsonable(value: object) -> Any:
    """Return `value` in terms of strict JSON: no NaN token, no NumPy, no enum.

    Non-finite floats become the strings ``"NaN"``, ``"Infinity"`` and
    ``"-Infinity"``; arrays become lists; anything else unknown its `repr`.
    """
    # Exact types first: this runs for every value of every report.
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, Enum):
        return to_jsonable(value.value)
    if isinstance(value, (float, np.floating)):
        return _json_number(float(value))
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(to_jsonable(k)): to_jsonable(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return to_jsonable(value.tolist())
    if isinstance(value, (set, frozenset)):
        return sorted((to_jsonable(v) for v in value), key=repr)
    if isinstance(value, (Sequence, Iterable)) and not isinstance(value, (bytes, bytearray)):
        return [to_jsonable(v) for v in value]
    return repr(value)


def _json_number(number: float) -> float | str:
    if math.isfinite(number):
        return number
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def from_json_number(value: object) -> Any:
    """Undo `to_jsonable` for one number: the three strings become floats again."""
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value
