"""What `torch.load` refuses by default: its reader of weights alone knows few codes and names."""

from __future__ import annotations

import pickletools
from collections.abc import Collection, Iterable

from ..core.pickles import Global
from ..core.shown import shown
from .finding import CheckpointFinding

__all__ = ["judge_weights_only"]

# What torch 2.13 takes without `add_safe_globals`; a test compares it with the torch that is there.
_CODES = frozenset(
    op.code for op in pickletools.opcodes if op.name in {
        "GLOBAL", "NEWOBJ", "REDUCE", "BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "MARK",
        "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "NONE", "NEWFALSE", "NEWTRUE", "EMPTY_TUPLE",
        "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "BININT", "BININT1", "BININT2", "BINFLOAT",
        "BINUNICODE", "SHORT_BINSTRING", "BINPERSID", "BINGET", "LONG_BINGET", "BINPUT",
        "LONG_BINPUT", "LONG1", "PROTO", "STOP",
    }
)  # fmt: skip
_KINDS = ("BFloat16", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
_TORCH = {
    *(f"{kind}{what}" for kind in (*_KINDS, "Bool") for what in ("Storage", "Tensor")),
    *(f"{kind}Storage" for kind in (
        "ComplexDouble", "ComplexFloat", "QInt32", "QInt8", "QUInt2x4", "QUInt4x2", "QUInt8")),
    *(f"int{bits}" for bits in (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64)),
    *(f"uint{bits}" for bits in (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64)),
    "Size", "Tensor", "device", "bool", "float16", "bfloat16", "float32", "float64",
    "float4_e2m1fn_x2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
    "float8_e8m0fnu", "complex32", "complex64", "complex128", "bits8", "bits16", "bits1x8",
    "bits2x4", "bits4x2", "qint8", "qint32", "quint8", "quint2x4", "quint4x2",
    "per_tensor_affine", "per_channel_affine", "per_tensor_symmetric", "per_channel_symmetric",
    "per_channel_affine_float_qparams",
    *(f"cuda.{kind}{what}" for kind in _KINDS for what in ("Storage", "Tensor")),
    "cuda.BoolStorage", "cuda.BoolTensor", "cuda.ComplexDoubleStorage", "cuda.ComplexFloatStorage",
    *(f"{place}sparse.{kind}Tensor" for kind in _KINDS for place in ("", "cuda.")),
    *(f"_utils._rebuild_{name}" for name in (
        "device_tensor_from_cpu_tensor", "device_tensor_from_numpy", "meta_tensor_no_storage",
        "nested_tensor", "parameter", "parameter_with_state", "qtensor", "sparse_tensor", "tensor",
        "tensor_v2", "tensor_v3", "wrapper_subclass")),
    "_tensor._rebuild_from_type_v2", "nn.parameter.Parameter", "serialization._get_layout",
    "storage.TypedStorage", "storage.UntypedStorage",
}  # fmt: skip
_NAMES = {
    *(f"torch.{name}" for name in _TORCH),
    "_codecs.encode", "builtins.bytearray", "builtins.complex", "builtins.set",
    "collections.Counter", "collections.OrderedDict",
}  # fmt: skip
_SHOWN = 5


def judge_weights_only(
    globals_: Iterable[Global], opcodes: Collection[int], file: str
) -> list[CheckpointFinding]:
    """Return a finding where `torch.load` refuses a file unless it may run what is in it.

    Parameters
    ----------
    globals_ : iterable of Global
        That the pickle names.
    opcodes : collection of int
        That it uses.
    file : str
    """
    names = sorted({one.path.replace("__builtin__.", "builtins.") for one in globals_} - _NAMES)
    codes = sorted(
        op.name for op in pickletools.opcodes if ord(op.code) in opcodes and op.code not in _CODES
    )
    if not names and not codes:
        return []
    said = [shown(name) for name in names[:_SHOWN]] + [f"opcode {c}" for c in codes[:_SHOWN]]
    more = len(names) + len(codes) - len(said)
    return [
        CheckpointFinding.of(
            "not_weights_only",
            "low",
            f"{shown(file)}: torch.load refuses it by default (weights_only=True), for "
            f"{', '.join(said)}{f' and {more} more' if more else ''}",
            globals=[shown(name) for name in names[:100]],
            opcodes=codes,
        )
    ]
