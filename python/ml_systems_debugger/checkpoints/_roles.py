"""Many tensors in few lines: those of one role across layers together."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ._families import template
from .table import TensorRecord, TensorTable

__all__ = ["Role", "natural", "roles"]

_DIGITS = re.compile(r"(\d+)")


@dataclass(slots=True)
class Role:
    """Tensors whose names differ in numbers that stand alone, of one type.

    Parameters
    ----------
    name : str
        With a star for each such number.
    dtype : str
    shapes : set
    members : array of int
        Their places.
    nbytes : int
    low, high : float
        Over the finite values of all; NaN where there is none.
    std : float
        Median over the tensors; NaN where there is none.
    """

    name: str
    dtype: str
    shapes: set[tuple[int, ...]] = field(default_factory=set)
    members: array[int] = field(default_factory=lambda: array("q"))
    nbytes: int = 0
    low: float = float("nan")
    high: float = float("nan")
    std: float = float("nan")


def natural(name: str) -> list[Any]:
    """Return a key that puts ``layers.2`` before ``layers.10``.

    Examples
    --------
    >>> sorted(["layers.10.w", "layers.2.w"], key=natural)
    ['layers.2.w', 'layers.10.w']
    """
    return [int(part) if part.isdecimal() else part for part in _DIGITS.split(name)]


def roles(tensors: Sequence[TensorRecord]) -> list[Role]:
    """Return the roles, the largest in bytes first."""
    found: dict[tuple[str, str], Role] = {}
    infos: Iterable[Any] = tensors.tensors if isinstance(tensors, TensorTable) else tensors
    for index, info in enumerate(infos):
        key = (template(info.name), info.dtype)
        role = found.get(key)
        if role is None:
            role = found[key] = Role(*key)
        role.shapes.add(info.shape)
        role.members.append(index)
        role.nbytes += info.nbytes
    if isinstance(tensors, TensorTable):
        for role in found.values():
            which = np.frombuffer(role.members, np.int64)
            role.low = _of(np.min, tensors.columns["min"][which])
            role.high = _of(np.max, tensors.columns["max"][which])
            role.std = _of(np.median, tensors.columns["std"][which])
    return sorted(found.values(), key=lambda r: (-r.nbytes, natural(r.name)))


def _of(function: Any, values: npt.NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(function(known)) if len(known) else float("nan")
