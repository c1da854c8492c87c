"""Read-only mappings, and strict JSON for values that may not be JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, NoReturn

import numpy as np

__all__ = [
    "FrozenDict",
    "freeze",
    "freeze_evidence",
    "from_json_number",
    "numbers_back",
    "to_jsonable",
]

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class FrozenDict(dict[str, Any]):
    """A dict that cannot be changed: safe to share between threads and reports.

    A subclass of `dict` rather than a mapping proxy, since a proxy can be
    neither pickled nor passed to `json.dumps`.
    """

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        """Refuse: it is read-only."""
        raise TypeError("this mapping is read-only; copy it with dict(...) to change it")

    __setitem__ = _refuse
    __delitem__ = _refuse
    __ior__ = _refuse
    clear = _refuse
    pop = _refuse
    popitem = _refuse
    setdefault = _refuse
    update = _refuse

    def __reduce__(self) -> tuple[Callable[..., FrozenDict], tuple[dict[str, Any]]]:
        return freeze, (dict(self),)  # a NaN comes back as the one that equals itself

    def __copy__(self) -> FrozenDict:
        return self

    def __deepcopy__(self, _: object) -> FrozenDict:
        return self


def freeze(mapping: Mapping[str, Any] | None) -> FrozenDict:
    """Copy a mapping into a read-only one; nested mappings, lists and sets too.

    Lists become tuples and NumPy numbers Python numbers; every NaN becomes the
    same object, so that equal content compares equal. Arrays stay by reference.

    Examples
    --------
    >>> freeze({"a": [1, float("nan")]}) == freeze({"a": [1, float("nan")]})
    True
    """
    if isinstance(mapping, FrozenDict):
        return mapping
    return FrozenDict({str(k): _freeze_value(v, False) for k, v in (mapping or {}).items()})


def freeze_evidence(mapping: Mapping[str, Any] | None) -> FrozenDict:
    """Freeze, with arrays and tensors as tuples: for what is compared and written."""
    return FrozenDict({str(k): _freeze_value(v, True) for k, v in (mapping or {}).items()})


def _freeze_value(value: Any, arrays_too: bool) -> Any:
    if type(value) in (str, int, bool):
        return value
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return math.nan if number != number else number
    if isinstance(value, Mapping):
        return freeze_evidence(value) if arrays_too else freeze(value)
    if isinstance(value, (list, tuple)):
        return tuple(_freeze_value(v, arrays_too) for v in value)
    if isinstance(value, (set, frozenset)):
        return frozenset(value)
    if isinstance(value, (np.integer, np.bool_)):
        return value.item()
    if arrays_too and (listed := _listed(value)) is not value:
        return _freeze_value(listed, arrays_too)
    return value


def _listed(value: Any) -> Any:
    """Return an array or tensor of any library as nested lists, else `value` itself."""
    tolist = getattr(value, "tolist", None)
    if not callable(tolist) or not hasattr(value, "ndim") or isinstance(value, type):
        return value
    listed = tolist()
    return value if type(listed) is type(value) else listed


def to_jsonable(value: object) -> Any:
    """Return `value` in terms of strict JSON: no NaN token, no NumPy, no enum.

    Non-finite floats become the strings ``"NaN"``, ``"Infinity"`` and
    ``"-Infinity"``; arrays and tensors become lists, paths and dates their
    usual text; anything else unknown its `repr`.
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
    if (listed := _listed(value)) is not value:
        return to_jsonable(listed)
    if isinstance(value, (set, frozenset)):
        return sorted((to_jsonable(v) for v in value), key=repr)
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray, type)):
        return [to_jsonable(v) for v in value]
    isoformat = getattr(value, "isoformat", None)
    if callable(isoformat) and not isinstance(value, type):
        return str(isoformat())
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


def numbers_back(value: Any) -> Any:
    """Undo `to_jsonable` inside containers: the three non-finite words become floats.

    A text that is one of those words cannot be told from the number.
    """
    if isinstance(value, Mapping):
        return {k: numbers_back(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [numbers_back(v) for v in value]
    return from_json_number(value)
