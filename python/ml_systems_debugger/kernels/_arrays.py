"""From what users hold to dense bytes and a dtype name: the slow way in, for what is not plain.

Plain NumPy arrays and torch CPU tensors never come here; the extension reads
them itself. Copies are made only where the memory is not dense.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FLOAT_NAMES", "convert"]

FLOAT_NAMES = (
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2",
    "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
)  # fmt: skip
_NAMES = {
    *FLOAT_NAMES, "float8_e8m0", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool",
}  # fmt: skip
_COMPLEX = {"complex64": "float32", "complex128": "float64"}
_CPU = 1  # kDLCPU


def convert(x: Any, dtype: str | None) -> tuple[npt.NDArray[np.uint8], str]:
    """Return the elements of `x` as dense native-endian bytes, and their dtype's name.

    Parameters
    ----------
    x : object
        A NumPy array, a torch tensor on the CPU, anything with DLPack or the
        buffer protocol, or a number.
    dtype : str, optional
        Of raw bytes: what they hold. Only where `x` itself holds bytes or
        unsigned integers of that width.

    Returns
    -------
    uint8 array [n * item size], C-contiguous, and the name of the element type
        Complex numbers come as pairs of their parts.

    Raises
    ------
    TypeError
        Where `x` is no array of numbers on the CPU.
    ValueError
        Where `dtype` does not fit.
    """
    array, name = _array_of(x)
    if dtype is not None:
        return _as_raw(array, dtype)
    if name in _COMPLEX:
        array, name = np.ascontiguousarray(array).view(_COMPLEX[name]), _COMPLEX[name]
    if name not in _NAMES:
        raise TypeError(f"x: elements of type {name} are not supported")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return _bytes_of(array), name


def _bytes_of(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    dense = np.ascontiguousarray(array).reshape(-1)
    if dense.size == 0:
        return np.empty(0, np.uint8)
    return dense.view(np.uint8)


def _as_raw(array: npt.NDArray[Any], dtype: str) -> tuple[npt.NDArray[np.uint8], str]:
    name = str(dtype).removeprefix("torch.")
    if name not in _NAMES:
        raise ValueError(f"dtype: one of {', '.join(sorted(_NAMES))}, got {dtype!r}")
    if array.dtype.kind not in "uVSib":
        raise ValueError(f"dtype: given for raw bytes only, but x holds {array.dtype}")
    raw = _bytes_of(array)
    size = _size(name)
    if raw.size % size:
        raise ValueError(f"x: {raw.size} bytes are no whole number of {name} ({size} bytes each)")
    return raw, name


def _size(name: str) -> int:
    if name.startswith("float8") or name == "bool":
        return 1
    return 2 if name == "bfloat16" else np.dtype(name).itemsize


def _array_of(x: Any) -> tuple[npt.NDArray[Any], str]:
    if isinstance(x, np.ndarray):
        return x, x.dtype.name
    if isinstance(x, (np.generic, int, float, complex)):
        found = np.asarray(x)
        return found, found.dtype.name
    if type(x).__module__.partition(".")[0] == "torch":
        return _torch_array(x)
    if isinstance(x, (bytes, bytearray, memoryview)):
        return _buffer(x)
    if hasattr(x, "__dlpack__"):
        return _dlpack(x)
    try:
        return _buffer(x)
    except TypeError:
        pass
    if hasattr(x, "__array__"):
        found = np.asarray(x)
        return found, found.dtype.name
    raise TypeError(f"x: no array of numbers but {type(x).__name__}")


def _buffer(x: Any) -> tuple[npt.NDArray[Any], str]:
    view = memoryview(x)
    found: npt.NDArray[Any]
    found = np.frombuffer(view, np.uint8) if view.format in ("B", "c") else np.asarray(view)
    return found, found.dtype.name


def _dlpack(x: Any) -> tuple[npt.NDArray[Any], str]:
    kind, _ = x.__dlpack_device__()
    if int(kind) != _CPU:
        raise TypeError(f"x: a {type(x).__name__} on another device; move it to the CPU first")
    try:
        found: npt.NDArray[Any] = np.from_dlpack(x)
    except (BufferError, TypeError, RuntimeError):
        # NumPy's DLPack knows no bfloat16 and no fp8; JAX and others do give an ml_dtypes array.
        if not hasattr(x, "__array__"):
            raise
        found = np.asarray(x)
    return found, found.dtype.name


def _torch_array(x: Any) -> tuple[npt.NDArray[Any], str]:
    import torch

    if not isinstance(x, torch.Tensor):
        raise TypeError(f"x: no array of numbers but {type(x).__name__}")
    if x.device.type != "cpu":
        raise TypeError(f"x: a tensor on {x.device}; move it to the CPU first")
    if x.layout is not torch.strided:
        raise TypeError(f"x: a {x.layout} tensor; look at its values() instead")
    name = str(x.dtype).removeprefix("torch.")
    dense = x.detach().resolve_conj().resolve_neg().contiguous()
    if name in ("bfloat16",) or name.startswith("float8"):
        # NumPy has no such types: the bits are taken as integers of the same width.
        dense = dense.view(torch.int16 if name == "bfloat16" else torch.uint8)
    found: npt.NDArray[Any] = dense.numpy()
    return found, name
