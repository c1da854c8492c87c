"""Raw bytes of a tensor as float64, for arithmetic between tensors of different types."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .dtypes import Dtype

__all__ = ["as_float64", "is_convertible"]

# Exponent bits, mantissa bits, bias, and what the extreme codes mean.
_FLOAT8 = {
    "float8_e4m3fn": (4, 3, 7), "float8_e5m2": (5, 2, 15),
    "float8_e4m3fnuz": (4, 3, 8), "float8_e5m2fnuz": (5, 2, 16),
}  # fmt: skip


def is_convertible(dtype: Dtype) -> bool:
    """Return whether values of this type can be taken as numbers (quantised ones not yet)."""
    return dtype.kernel is not None and not dtype.quantised


def as_float64(raw: npt.NDArray[np.uint8], dtype: Dtype) -> npt.NDArray[np.float64]:
    """Return the values of dense little-endian bytes; complex numbers as pairs."""
    kernel = dtype.kernel or ""
    with np.errstate(invalid="ignore"):
        if kernel == "bfloat16":
            wide = raw.view("<u2").astype(np.uint32) << 16
            return wide.view(np.float32).astype(np.float64)
        if kernel.startswith("float8"):
            return _table(kernel)[raw]
        native: npt.NDArray[Any] = raw.view(np.dtype(kernel).newbyteorder("<"))
        return native.astype(np.float64)


@lru_cache
def _table(kernel: str) -> npt.NDArray[np.float64]:
    codes = np.arange(256)
    if kernel == "float8_e8m0fnu":
        out = np.ldexp(1.0, codes - 127)
        out[255] = np.nan
        return out
    exponent_bits, mantissa_bits, bias = _FLOAT8[kernel]
    exponent = codes >> mantissa_bits & (1 << exponent_bits) - 1
    mantissa = (codes & (1 << mantissa_bits) - 1) / (1 << mantissa_bits)
    value = np.where(
        exponent == 0, np.ldexp(mantissa, 1 - bias), np.ldexp(1.0 + mantissa, exponent - bias)
    )
    value = np.where(codes >= 128, -value, value)
    if kernel.endswith("fnuz"):
        value[128] = np.nan
    elif kernel == "float8_e4m3fn":
        value[[0x7F, 0xFF]] = np.nan
    else:
        value[[0x7C, 0xFC]] = np.inf, -np.inf
        value[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = np.nan
    return value
