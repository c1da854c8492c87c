"""Arrays and JSON terms in one block of bytes, without pickle."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_HEADER = "header"
_ARRAY = "array."
"""Before every name: `numpy.savez` has parameters of its own, such as ``file``."""


def pack(header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return header (JSON terms) and arrays as bytes.

    Raises
    ------
    TypeError
        For an array of objects: NumPy would pickle it.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"{name!r} holds {array.dtype}, which is saved by pickle only")
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    out = io.BytesIO()
    everything: dict[str, Any] = {_HEADER: np.frombuffer(text, np.uint8)}
    everything.update((_ARRAY + name, array) for name, array in arrays.items())
    np.savez(out, **everything)
    return out.getvalue()


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Undo `pack`. Raises ValueError where `data` is damaged."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            header = json.loads(found[_HEADER].tobytes())
            arrays = {
                name.removeprefix(_ARRAY): found[name] for name in found.files if name != _HEADER
            }
        if not isinstance(header, dict):
            raise TypeError(f"its header is a {type(header).__name__}")
    except Exception as error:  # zipfile, zlib and json each have errors of their own
        raise ValueError(f"not a saved state: {error}") from error
    return header, arrays
