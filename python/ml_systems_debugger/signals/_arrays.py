"""What callers hold, as pairs of name and array: mappings, modules, parameters, plain arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..core import is_array, scalar_value

__all__ = ["is_numeric", "named_arrays"]


def named_arrays(raw_data: Any, attribute: str | None = None) -> Iterator[tuple[str | None, Any]]:
    """Yield (name, array) of everything in `raw_data`, by reference.

    Parameters
    ----------
    raw_data : object
        An array or tensor (name None), a mapping of names to arrays (nested
        ones joined by dots), an object with ``named_parameters()`` as torch's
        modules have, or a sequence of any of these (named by place).
    attribute : str, optional
        Take this attribute of each where it is there, as ``grad`` of torch's
        parameters; what has it as None is left out.

    Raises
    ------
    TypeError
        For anything else, naming it.
    """
    yield from _named(raw_data, None, attribute)


def _named(data: Any, name: str | None, attribute: str | None) -> Iterator[tuple[str | None, Any]]:
    if hasattr(data, "named_parameters"):
        for inner, parameter in data.named_parameters():
            yield from _named(parameter, _joined(name, inner), attribute)
    elif isinstance(data, Mapping):
        for inner, value in data.items():
            yield from _named(value, _joined(name, str(inner)), attribute)
    elif is_array(data) or (scalar_value(data) is not None and hasattr(data, "dtype")):
        # Plain arrays have no `grad`; a parameter without one has nothing to look at.
        held = getattr(data, attribute, data) if attribute and _is_parameter(data) else data
        if held is not None:
            yield name, held
    elif isinstance(data, Iterable) and not isinstance(data, (str, bytes)):
        for at, value in enumerate(data):
            yield from _named(value, _joined(name, str(at)), attribute)
    else:
        raise TypeError(f"{name or 'raw_data'}: no array but {type(data).__name__}: {data!r:.60}")


def is_numeric(array: Any) -> bool:
    """Return whether an array holds numbers; text and objects have no statistics."""
    kind = getattr(getattr(array, "dtype", None), "kind", None)  # torch's dtypes have none
    return kind is None or kind in "biufcV"  # V: bfloat16 and the like of ml_dtypes


def _is_parameter(data: Any) -> bool:
    return bool(getattr(data, "requires_grad", False))


def _joined(outer: str | None, inner: str) -> str:
    return inner if outer is None else f"{outer}.{inner}"
