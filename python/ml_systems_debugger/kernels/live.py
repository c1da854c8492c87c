"""What a live monitor measures of many tensors at every step, in one call without allocation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core import live_moves as _moves
from .._core import live_norms as _norms

__all__ = ["live_moves", "live_norms"]

Floats = npt.NDArray[np.float64]


def live_norms(
    xs: Sequence[Any],
    norms: Floats,
    there: npt.NDArray[np.bool_],
    *,
    attribute: str | None = None,
) -> float:
    """Write the Euclidean norm of each array; return that of all together.

    Parameters
    ----------
    xs : sequence of arrays, or of objects that have one
        Best a tuple: a list is copied.
    norms : float64 [len(xs)]
        Written: NaN where the array holds a NaN, else infinite where it holds
        an infinity; 0 for an empty one, and for one that is not there.
    there : bool [len(xs)]
        Written: whether there was an array. None is none, and neither is a
        sparse tensor.
    attribute : str, optional
        Name of the attribute of each object that is meant, as ``grad``.

    Returns
    -------
    float
        Not finite exactly where one of the norms is not, or where their sum of
        squares is beyond a double.

    Raises
    ------
    TypeError, ValueError
        Where something is no array on the CPU, or `norms` or `there` do not fit.
    """
    return _norms(xs, attribute, norms, there)


def live_moves(
    xs: Sequence[Any], norms: Floats, samples: Floats, moved: Floats, *, known: bool
) -> None:
    """Write the norm of each array, and how far it has moved since the last call.

    The movement is that of a fixed sample: every ``n // width``-th element, at
    most `width`. It is the norm of the difference over the norm before; 0 where
    both are 0, infinite where only the latter is.

    Parameters
    ----------
    xs : sequence of arrays
        Of float64, float32, float16 or bfloat16.
    norms : float64 [len(xs)]
        Written.
    samples : float64 [len(xs), width]
        What the last call left; replaced.
    moved : float64 [len(xs)]
        Written where `known`.
    known : bool
        Whether `samples` holds those of an earlier call, of the same arrays.

    Raises
    ------
    TypeError, ValueError
        As `live_norms`; also for other types of elements.
    """
    _moves(xs, norms, samples, moved, known)
