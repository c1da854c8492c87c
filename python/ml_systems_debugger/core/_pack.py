"""Arrays and JSON terms in one block of bytes, without pickle."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_HEADER = "__json__"


def pack(header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return header (JSON terms) and arrays (no object dtype) as bytes."""
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    out = io.BytesIO()
    everything: dict[str, Any] = {_HEADER: np.frombuffer(text, np.uint8), **arrays}
    np.savez(out, **everything)
    return out.getvalue()


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Undo `pack`. Raises ValueError where `data` is damaged."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        header = json.loads(arrays.pop(_HEADER).tobytes())
    except Exception as error:  # zipfile, zlib and json each have errors of their own
        raise ValueError(f"not a saved state: {error}") from error
    return header, arrays
