"""A column of any library as one of three arrays: numbers, words, or vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import SchemaError

__all__ = ["Array", "column_array"]

Array = npt.NDArray[Any]

_WORDS = ("str", "string", "utf8", "categor", "enum", "bool", "object", "dictionary")


def column_array(name: str, values: Any, source: str) -> Array:
    """Return a column as float64/float32 [n], object [n] of str or None, or float32 [n, d].

    Missing numbers are NaN, missing words None. Truth values are words; dates
    are seconds since 1970.

    Raises
    ------
    SchemaError
        Where the values are neither numbers, words nor vectors of one length.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if not isinstance(values, np.ndarray):
        values = _from_library(values)
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(np.float64), np.nan)
    kind = values.dtype.kind
    if values.ndim == 2 and kind in "fiu":
        return np.asarray(values, np.float32)
    if values.ndim != 1:
        raise SchemaError(
            "a column is a row of values or of vectors", source=source, column=name,
            value=f"shape {values.shape}",
        )  # fmt: skip
    if kind == "f":
        small = values.dtype.itemsize == 4
        return np.ascontiguousarray(values, np.float32 if small else np.float64)
    if kind in "iu":
        return np.asarray(values, np.float64)
    if kind in "mM":
        missing = np.isnat(values)
        seconds = values.astype("datetime64[us]" if kind == "M" else "timedelta64[us]")
        numbers = seconds.astype(np.int64) / 1e6
        numbers[missing] = np.nan
        return np.asarray(numbers, np.float64)
    if kind == "b":
        return np.array([str(bool(v)) for v in values.tolist()], object)
    if kind in "US":
        return np.asarray(values.astype(str), object)
    if kind == "O":
        return _of_objects(name, values, source)
    raise SchemaError(
        "a column holds numbers or text", source=source, column=name, value=str(values.dtype)
    )


def _from_library(values: Any) -> Array:
    """Return a NumPy array of what pandas, polars, Arrow or a list holds."""
    kind = str(getattr(values, "dtype", getattr(values, "type", ""))).lower()
    if kind.startswith(("list", "array", "fixed_size_list", "large_list")):
        return _objects(values)
    if any(word in kind for word in _WORDS):
        return _objects(values)
    if hasattr(values, "to_numpy"):
        found = values.to_numpy()
        # A null among integers comes as an object; as a float it is NaN.
        return np.asarray(found)
    if isinstance(values, (list, tuple)) or hasattr(values, "__array__"):
        try:
            found = np.asarray(values)
        except ValueError:  # rows of different lengths
            return _objects(values)
        if found.dtype.kind in "US" and not all(v is None or isinstance(v, str) for v in values):
            return _objects(values)  # numbers among words would have become words
        return found
    return _objects(values)


def _objects(values: Any) -> Array:
    items = values.to_pylist() if hasattr(values, "to_pylist") else list(values)
    found = np.empty(len(items), object)
    found[:] = items
    return found


def _of_objects(name: str, values: Array, source: str) -> Array:
    items = values.tolist()
    some = next((v for v in items if not _missing(v)), None)
    if some is None:
        return np.full(len(items), np.nan)
    if isinstance(some, (str, bool, np.bool_)):
        return _words(items)
    if hasattr(some, "__len__"):
        return _vectors(name, items, some, source)
    try:
        return np.array([np.nan if _missing(v) else float(v) for v in items], np.float64)
    except (TypeError, ValueError):
        return _words(items)  # numbers and words mixed are words


def _words(items: list[Any]) -> Array:
    found = np.empty(len(items), object)
    found[:] = [None if _missing(v) else str(v) for v in items]
    return found


def _vectors(name: str, items: list[Any], some: Any, source: str) -> Array:
    width = len(some)
    found = np.full((len(items), width), np.nan, np.float32)
    for row, item in enumerate(items):
        if _missing(item):
            continue
        if len(item) != width:
            raise SchemaError(
                f"vectors of one length: row 0 has {width}, row {row} has {len(item)}",
                source=source, column=name,
            )  # fmt: skip
        found[row] = item
    return found


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value) or _is_null(value)


def _is_null(value: Any) -> bool:
    return type(value).__name__ in ("NAType", "NaTType")
