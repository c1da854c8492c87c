"""The scales of quantised blocks, taken out of their blocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .dtypes import Dtype

__all__ = ["scale_values"]

_SIZES = {"float16": 2, "float16_nibbles": 2, "float32": 4}


def scale_values(
    raw: npt.NDArray[np.uint8], dtype: Dtype
) -> tuple[npt.NDArray[np.uint8], str, int]:
    """Return the scales of whole blocks as bytes, their kernel type and its size.

    Parameters
    ----------
    raw : uint8 array [blocks * block bytes]
    dtype : Dtype
        Quantised, with scales of one type.

    Returns
    -------
    uint8 array, str, int
        Scales in the order of the blocks, and within a block of their offsets.
    """
    blocks = raw.reshape(-1, dtype.bits // 8)
    kind = dtype.scales[0].dtype
    size = _SIZES.get(kind, 1)
    if kind == "float16_nibbles":
        at = dtype.scales[0].offset
        words = np.ascontiguousarray(blocks[:, at : at + 8]).view("<u2") >> 12
        joined = words[:, 0] | words[:, 1] << 4 | words[:, 2] << 8 | words[:, 3] << 12
        return joined.astype("<u2").view(np.uint8), "float16", 2
    parts = [blocks[:, s.offset : s.offset + size] for s in dtype.scales]
    return np.concatenate(parts, axis=1).reshape(-1), kind, size
