"""What a torch archive holds: storages found in place, tensors from inert stand-ins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from ..core import SchemaError, UnsupportedFormatError
from ..core.pickles import Global, Instance, Persistent, read_pickle
from ..core.shown import shown
from ..kernels import crc32
from ._checksums import Checksums, member_crc
from ._layouts import Piece, Pieces, Strided, Swapped, is_packed
from ._source import Source
from ._zip import DEFLATED, STORED, Member, read_members
from .contract import Layout, TensorInfo
from .dtypes import DTYPES

__all__ = ["TorchArchive", "TorchTensor", "named_tensors", "open_archive"]

MAX_PICKLE = 1 << 30
MAX_DIMENSIONS = 64
MAX_DEPTH = 100
_MAX_REPEATS = 16
_NUMBERS = (".format_version", ".storage_alignment", "version")
_SHORT = 64  # bytes of what stands beside the data

_STORAGES = {
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


@dataclass(slots=True)
class TorchArchive:
    """One archive: its object and where its storages are."""

    file: str
    source_name: str
    root: Any
    globals: list[Global]
    opcodes: set[int]
    members: dict[str, Member]
    prefix: str
    swapped: bool
    key: str
    checksums: Checksums

    def member(self, key: str) -> Member:
        """Return the member of a storage, however it is kept; raises SchemaError for none."""
        for folder in ("data", "tensors"):
            found = self.members.get(f"{self.prefix}{folder}/{key}")
            if found is not None:
                return found
        raise SchemaError(f"storage {shown(key)} is not in the archive", source=self.source_name)

    def storage(self, key: str) -> Member:
        """Return the member of a storage.

        Raises
        ------
        SchemaError, UnsupportedFormatError
            Where it is not there, or compressed.
        """
        member = self.member(key)
        if member.method != STORED:
            raise UnsupportedFormatError(
                f"storage {shown(key)} is compressed", source=self.source_name, value=member.method
            )
        self.checksums.expect(self.key, member)
        return member

    def place(self, name: str, tensor: TorchTensor, identity: str = "") -> TensorInfo:
        """Return where a tensor lies.

        Raises
        ------
        SchemaError
            Where its view leaves its storage.
        UnsupportedFormatError
            Where its values are not those of its storage.
        """
        if tensor.turned:
            raise UnsupportedFormatError(
                f"tensor {shown(name)} conjugates or negates what lies there",
                source=self.source_name,
            )
        dtype = DTYPES[tensor.dtype]
        item = dtype.bits // 8
        member = self.storage(tensor.storage)
        count = prod(tensor.shape)
        last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
        have = member.size // item
        reach = tensor.offset + (last + 1 if count else 0)
        if reach > have:
            raise SchemaError(
                f"tensor {shown(name)} reaches to element {reach} of a storage of {have}",
                source=self.source_name, offset=member.offset, value=shown(tensor.storage),
            )  # fmt: skip
        begin = member.offset + tensor.offset * item
        layout: Layout | None = None
        if count and not is_packed(tensor.shape, tensor.strides):
            if count > _MAX_REPEATS * max(have, 1):
                raise SchemaError(
                    f"tensor {shown(name)} shows {count} elements of a storage of {have}",
                    source=self.source_name, value=tensor.shape,
                )  # fmt: skip
            layout = Strided(self.file, begin, tensor.shape, tensor.strides, item)
        if self.swapped and item // dtype.lanes > 1:
            inner = layout or Pieces((Piece(self.file, begin, count * item),))
            layout = Swapped(inner, item // dtype.lanes)
        storage = identity or f"{self.file}:{member.offset}"
        return TensorInfo(
            name, tensor.dtype, tensor.shape, self.file, begin, count * item, layout, storage
        )


def open_archive(
    source: Source, file: str, start: int = 0, length: int | None = None
) -> TorchArchive:
    """Read the directory and the pickle of a torch archive in a window of a file.

    Raises
    ------
    SchemaError
        Where it breaks the rules of zip, of pickle or of torch.
    """
    members = read_members(source, start, length)
    pickles = [n for n in members if n == "data.pkl" or n.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise SchemaError(
            "a torch archive holds one data.pkl", source=source.name, value=len(pickles)
        )
    prefix = pickles[0].removesuffix("data.pkl")
    text = _order(source, members, prefix)
    for name in _NUMBERS:
        if (number := members.get(prefix + name)) is not None:
            _number(source, number, name)
    if (identity := members.get(f"{prefix}.data/serialization_id")) is not None:
        _whole(source, identity, "serialization_id", _SHORT)
    data = _whole(source, members[pickles[0]], "data.pkl", MAX_PICKLE)
    member = members[pickles[0]]
    window = source.size if length is None else length
    references: list[Persistent] = []
    opcodes: set[int] = set()
    root, names = read_pickle(
        data,
        source.name,
        member.offset,
        2 * window + (64 << 20),
        references=references,
        opcodes=opcodes,
    )
    archive = TorchArchive(
        file, source.name, root, names, opcodes, members, prefix, text == b"big", source.key,
        source.checksums,
    )  # fmt: skip
    for key in {id(one.key): one.key for one in references}.values():
        _check_storage(archive, key)
    return archive


def _check_storage(archive: TorchArchive, key: Any) -> None:
    """Look at a storage that the pickle refers to; loaders read also those that no tensor shows.

    Raises
    ------
    SchemaError
        Where it is not there, of no known type, or of another size than the pickle says.
    """
    if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage":
        return  # of torch.package: said where a tensor needs it
    kind, name, count = key[1], key[2], key[4]
    dtype = _STORAGES.get(kind.name) if isinstance(kind, Global) else None
    if dtype is None or not isinstance(name, str) or type(count) is not int:
        raise SchemaError("a storage without a type, a name or a size", source=archive.source_name,
                          value=kind)  # fmt: skip
    size = archive.member(name).size
    if size != count * DTYPES[dtype].bits // 8:
        raise SchemaError(
            f"storage {shown(name)} has {size} bytes, and the pickle says {count} values of "
            f"{dtype}",
            source=archive.source_name,
        )


def _order(source: Source, members: dict[str, Member], prefix: str) -> bytes:
    order = members.get(f"{prefix}byteorder")
    text = b"little" if order is None else _whole(source, order, "byteorder", _SHORT)
    if text not in (b"little", b"big"):
        raise SchemaError("a byte order that is none", source=source.name, value=text)
    return text


def _number(source: Source, member: Member, name: str) -> None:
    """Look at a number beside the data: loaders lay out storages by it, or refuse the archive."""
    text = _whole(source, member, name, _SHORT)
    if not text.strip().isdigit():
        raise SchemaError(f"{name} that is no number", source=source.name, offset=member.offset,
                          value=text)  # fmt: skip


def _whole(source: Source, member: Member, name: str, most: int) -> bytes:
    """Return a member's bytes, compared with their checksum."""
    if member.method == DEFLATED:
        raise UnsupportedFormatError(f"a compressed {name}", source=source.name)
    if member.method != STORED or member.size > most:
        raise SchemaError(f"a {name} that does not fit", source=source.name, value=member.size)
    data = source.read(member.offset, member.size, name)
    written = member_crc(member)
    if written is not None and (found := crc32(data)) != written:
        raise SchemaError(
            f"{name} is damaged: its CRC-32 is {found:08x}, and {written:08x} was written",
            source=source.name, offset=member.offset,
        )  # fmt: skip
    return data


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
    dtype = _STORAGES.get(kind.name, "") if typed is None else _dtype_name(typed)
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
