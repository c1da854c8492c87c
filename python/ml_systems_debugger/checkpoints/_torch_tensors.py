"""The tensors that the inert stand-ins of a pickle stand for, as torch would build them."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

from ..core import SchemaError, UnsupportedFormatError
from ..core.pickles import Global, Instance, Persistent
from .dtypes import DTYPES

__all__ = ["STORAGES", "TorchTensor", "dtype_of", "named_tensors", "tensor_of"]

MAX_DIMENSIONS = 64
MAX_DEPTH = 100

STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128", "ComplexFloatStorage": "complex64",
    "QInt8Storage": "qint8", "QInt32Storage": "qint32", "QUInt8Storage": "quint8",
    "UntypedStorage": "uint8",
}  # fmt: skip
_DTYPES = {**{name: name for name in DTYPES}, "half": "float16", "float": "float32",
           "double": "float64", "long": "int64", "int": "int32", "short": "int16",
           "cfloat": "complex64", "cdouble": "complex128", "chalf": "complex32"}  # fmt: skip


class TorchTensor(NamedTuple):
    """A tensor as the pickle describes it: a view of a storage."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    storage: str
    turned: bool = False  # a loader shows conjugates or negatives of what lies there


def tensor_of(value: Any, place: str) -> TorchTensor | None:
    """Return the tensor that an instance stands for, or None.

    Raises
    ------
    SchemaError
        Where it is one, with arguments that make no sense.
    """
    graded = False
    for _ in range(8):
        if not isinstance(value, Instance):
            return None
        path, args = value.path, value.args
        wrapped = path in _WRAPPERS or path.startswith("torch._utils._rebuild_parameter")
        if wrapped and isinstance(args, tuple) and args:
            graded |= _is_graded(path, args, place)
            value = args[0]
            continue
        if path == "torch._tensor._rebuild_from_type_v2" and _is_call(args):
            value = Instance(args[0], args[2])
            continue
        break
    if not isinstance(value, Instance) or not isinstance(value.args, tuple):
        return None
    path, args = value.path, value.args
    if path in _VIEWS or path == "torch._utils._rebuild_qtensor":
        graded |= _is_graded(path, args, place)
        typed = args[6] if path == "torch._utils._rebuild_tensor_v3" else None
        tensor = _view(args, typed, place)._replace(turned=_is_turned(path, args, place))
        if graded and not DTYPES[tensor.dtype].floating:
            raise SchemaError("a tensor of integers that wants a gradient", source=place,
                              value=tensor.dtype)  # fmt: skip
        return tensor
    return None


_VIEWS = {f"torch._utils._rebuild_tensor{v}" for v in ("", "_v2", "_v3")}
# How many arguments each maker takes, at least and at most; which of them says that a gradient is
# wanted, and which one which bits are set.
_ARGUMENTS = {
    "torch._utils._rebuild_tensor": (4, 4), "torch._utils._rebuild_tensor_v2": (6, 7),
    "torch._utils._rebuild_tensor_v3": (7, 8), "torch._utils._rebuild_qtensor": (7, 7),
    "torch._utils._rebuild_parameter": (3, 3),
    "torch._utils._rebuild_parameter_with_state": (4, 4),
    "torch.nn.parameter.Parameter": (1, 2), "torch.nn.parameter.Buffer": (1, 2),
}  # fmt: skip
_GRADIENT = {"torch._utils._rebuild_tensor_v2": 4, "torch._utils._rebuild_tensor_v3": 4,
             "torch._utils._rebuild_parameter": 1,
             "torch._utils._rebuild_parameter_with_state": 1}  # fmt: skip
_BITS = {"torch._utils._rebuild_tensor_v2": 6, "torch._utils._rebuild_tensor_v3": 7}
_WRAPPERS = {"torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}


def _is_graded(path: str, args: tuple[Any, ...], place: str) -> bool:
    """Return whether a gradient is wanted; raise where a loader takes no such arguments."""
    least, most = _ARGUMENTS.get(path, (0, len(args)))
    if not least <= len(args) <= most:
        raise SchemaError(f"a tensor of {len(args)} parts", source=place, value=path)
    graded = args[_GRADIENT[path]] if path in _GRADIENT else False
    if type(graded) is not bool:
        raise SchemaError("a tensor that neither wants a gradient nor does not", source=place,
                          value=graded)  # fmt: skip
    return graded


def _is_turned(path: str, args: tuple[Any, ...], place: str) -> bool:
    """Return whether one of the bits is set that turn values when they are read."""
    bits = args[_BITS[path]] if path in _BITS and len(args) > _BITS[path] else None
    if not bits:
        return False
    if not isinstance(bits, dict) or not all(
        isinstance(name, str) and type(bit) is bool for name, bit in bits.items()
    ):
        raise SchemaError("a tensor with bits that are none", source=place, value=bits)
    return any(bits.values())


def _is_call(args: Any) -> bool:
    return isinstance(args, tuple) and len(args) >= 3 and isinstance(args[2], tuple)


def _view(args: tuple[Any, ...], typed: Any, place: str) -> TorchTensor:
    def sizes(value: Any) -> bool:
        return (
            isinstance(value, tuple)
            and len(value) <= MAX_DIMENSIONS
            and all(type(n) is int and 0 <= n < 1 << 62 for n in value)
        )

    key = args[0].key if len(args) >= 4 and isinstance(args[0], Persistent) else None
    if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage":
        raise SchemaError("a tensor without a storage", source=place)
    kind, name = key[1], key[2]
    if not isinstance(kind, Global) or not isinstance(name, str):
        raise SchemaError("a storage without a type or a name", source=place, value=kind)
    dtype = STORAGES.get(kind.name, "") if typed is None else _dtype_name(typed)
    if dtype not in DTYPES:
        raise UnsupportedFormatError("a type that is not known", source=place, value=kind.path)
    offset, shape, strides = args[1:4]
    if not sizes(shape) or not sizes(strides) or len(shape) != len(strides):
        raise SchemaError("a shape or strides that make no sense", source=place,
                          value=(shape, strides))  # fmt: skip
    if type(offset) is not int or not 0 <= offset < 1 << 62 or prod(shape) >= 1 << 62:
        raise SchemaError("a view that makes no sense", source=place, value=(offset, shape))
    return TorchTensor(dtype, shape, strides, offset, name)


def _dtype_name(value: Any) -> str:
    return _DTYPES.get(value.name, "") if isinstance(value, Global) else ""


def dtype_of(value: Any) -> str | None:
    """Return the name of a ``torch.float32`` in a pickle, or None."""
    return _dtype_name(value) or None


def named_tensors(root: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield name and instance of every tensor in an object, by path with dots.

    Dicts, lists, tuples and the states of opaque objects are walked, each once.
    """
    seen: set[int] = set()
    used: dict[str, int] = {}
    todo: list[tuple[str, Any, int]] = [("", root, 0)]
    while todo:
        path, value, depth = todo.pop()
        if not isinstance(value, (dict, list, tuple, Instance)):
            continue
        if isinstance(value, Instance) and tensor_of(value, place) is not None:
            name = path or "tensor"
            number = used.get(name, 0)
            used[name] = number + 1
            yield (f"{name}#{number + 1}" if number else name), value
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        if depth > MAX_DEPTH:
            raise SchemaError(f"nested more than {MAX_DEPTH} deep", source=place)
        inside = [(_joined(path, k), v, depth + 1) for k, v in _children(value)]
        todo.extend(reversed(inside))


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        if any(isinstance(v, (dict, list, tuple, Instance)) for v in value):
            yield from enumerate(value)
    else:
        for part in (value.args, value.items):
            if isinstance(part, (dict, list, tuple)):
                yield from _children(part)
        if isinstance(value.state, (list, tuple)) and not value.attributes():
            yield from enumerate(value.state)
        yield from value.attributes().items()


_SILENT = {"_parameters", "_buffers", "_modules"}


def _joined(path: str, key: Any) -> str:
    if isinstance(key, str) and key in _SILENT:
        return path
    text = key if isinstance(key, str) else str(key) if isinstance(key, (int, float)) else repr(key)
    return f"{path}.{text}" if path else text
