"""What stands for the objects of a pickle that is read and not run: inert, and only data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .shown import shown

__all__ = ["Global", "Instance", "Members", "Persistent", "built", "hashable", "holds_items",
           "is_plain_data", "is_tensor", "safe_key"]  # fmt: skip


class Global:
    """A name that a loader would import."""

    __slots__ = ("called", "module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name
        self.called = False

    @property
    def path(self) -> str:
        """``module.name``."""
        return f"{self.module}.{self.name}"

    def __repr__(self) -> str:
        return f"<global {shown(self.path)}>"


class Instance:
    """What a loader would have built: the callable, its arguments and later state."""

    __slots__ = ("args", "items", "maker", "state")

    def __init__(self, maker: Any, args: Any) -> None:
        self.maker = maker
        self.args = args
        self.state: Any = None
        self.items: list[Any] | dict[Any, Any] | None = None

    @property
    def path(self) -> str:
        """Path of the callable, empty where it is none."""
        return self.maker.path if isinstance(self.maker, Global) else ""

    def attributes(self) -> dict[Any, Any]:
        """Return the state as a dict, empty where it is none."""
        state = self.state
        if (
            isinstance(state, tuple)
            and len(state) == 2
            and isinstance(state[0], (dict, type(None)))
        ):
            merged = dict(state[0] or {})
            if isinstance(state[1], dict):
                merged.update(state[1])
            return merged
        return state if isinstance(state, dict) else {}

    def __repr__(self) -> str:
        return f"<instance of {shown(self.path)}>"


class Persistent:
    """A reference out of the pickle, to a storage."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key


class Members(list[Any]):
    """What a set holds, some of it perhaps twice: only a list never asks for a hash."""


_DICTS = {"collections.OrderedDict", "collections.defaultdict", "builtins.dict",
          "__builtin__.dict", "collections.Counter"}  # fmt: skip
_LISTS = {"builtins.list", "__builtin__.list"}
_TUPLES = {"torch.Size", "builtins.tuple", "__builtin__.tuple"}
_SETS = {"builtins.set", "__builtin__.set"}
_FROZEN_SETS = {"builtins.frozenset", "__builtin__.frozenset"}
_DISTRIBUTED = "torch.distributed.checkpoint."
# What compares by value and may change: Python gives it no hash.
_WITHOUT_HASH = {
    *(f"{_DISTRIBUTED}metadata.{name}" for name in (
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "StorageMeta",
        "TensorProperties", "TensorStorageMetadata")),
    f"{_DISTRIBUTED}filesystem._StorageInfo",
    "builtins.bytearray", "__builtin__.bytearray", "builtins.slice", "__builtin__.slice",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
}  # fmt: skip
_NO_SIZES = (str, bytes, float, list, tuple, dict, type(None))
_DEEPEST = 16
_MOST_PARTS = 32  # a tuple may hold another many times over, and is hashed as often
_TENSORS = ("torch._utils._rebuild_", "torch._tensor._rebuild_")
# Makers of tensors, arrays and what describes them: nothing that can be called in turn.
_PLAIN_DATA = (*_TENSORS, "torch.nn.parameter.", "torch.device", "torch.serialization._get_layout",
               "numpy.dtype", "numpy.ndarray", "numpy.core.", "numpy._core.")  # fmt: skip
# Makers of what holds no items that could be set, appended or added, as far as writers write them.
_WITHOUT_ITEMS = (*_PLAIN_DATA, "torch.Tensor", "torch.storage.", "_codecs.encode", "datetime.",
                  "pathlib.", "argparse.Namespace", "builtins.complex",
                  "builtins.slice")  # fmt: skip


def is_tensor(path: str) -> bool:
    """Return whether what a callable makes is a tensor, with all that belongs to it."""
    return path.startswith(_TENSORS)


def holds_items(path: str) -> bool:
    """Return whether what a callable makes may be a container."""
    return not path.startswith(_WITHOUT_ITEMS)


def is_plain_data(path: str) -> bool:
    """Return whether what a callable makes is a tensor, an array, or what describes one."""
    return path.startswith(_PLAIN_DATA)


def hashable(keys: Iterable[Any], known: dict[int, tuple[Any, ...]]) -> bool:
    """Return False where a loader fails, since no dict or set can hold such keys.

    Parameters
    ----------
    keys : iterable
    known : dict
        Tuples that were looked at before, by `id`: one may hold another many times over, and a
        pickle may use one many times, so each is looked at once. It is added to.

    Instances of classes that are not known count as hashable, as most objects are.
    """
    left = list(keys)
    while left:
        one = left.pop()
        if isinstance(one, (list, dict)):
            return False
        if isinstance(one, Instance) and one.path in _WITHOUT_HASH:
            return False
        if isinstance(one, tuple) and id(one) not in known:
            known[id(one)] = one
            left += one
    return True


def _parts_within(value: Any, most: int, depth: int = 0) -> int | None:
    """Count a tuple's plain parts; None where there are too many, too deep, or others."""
    if not isinstance(value, tuple):
        return 1 if isinstance(value, (str, bytes, int, float, type(None))) else None
    if depth >= _DEEPEST or len(value) > most:
        return None
    count = 1
    for part in value:
        found = _parts_within(part, most - count, depth + 1)
        if found is None or count + found > most:
            return None
        count += found
    return count


def safe_key(key: Any) -> Any:
    """Return a key whose hash is cheap; nested tuples could overflow the C stack."""
    if isinstance(key, (str, bytes, bool, type(None), float, Instance, Global, Persistent)):
        return key
    if isinstance(key, int):
        return key if -(1 << 63) <= key < (1 << 64) else f"<integer of {key.bit_length()} bits>"
    if isinstance(key, tuple) and _parts_within(key, _MOST_PARTS) is not None:
        return key
    return Instance(None, key)


def built(path: str, args: tuple[Any, ...], known: dict[int, tuple[Any, ...]]) -> Any:
    """Return the container that a well-known builder makes, or None.

    Parameters
    ----------
    path : str
        Path of the builder.
    args : tuple
    known : dict
        As of `hashable`.

    Raises
    ------
    TypeError
        Where a loader fails, since no container is built of such arguments.
    """
    if path in _DICTS:
        return {safe_key(key): value for key, value in _entries(path, args, known)}
    if path not in _LISTS | _TUPLES | _SETS | _FROZEN_SETS:
        return None
    inner = args[0] if args else ()
    if len(args) > 1 or isinstance(inner, (int, float, type(None), Global)):
        raise TypeError
    if not isinstance(inner, (list, tuple)):
        return None
    if path == "torch.Size" and any(isinstance(one, _NO_SIZES) for one in inner):
        raise TypeError
    if path in _SETS | _FROZEN_SETS and not hashable(inner, known):
        raise TypeError
    if path in _SETS:
        return Members(inner)
    return list(inner) if path in _LISTS else tuple(inner)


def _entries(
    path: str, args: tuple[Any, ...], known: dict[int, tuple[Any, ...]]
) -> list[tuple[Any, Any]]:
    """Return the pairs of a dict that is built of arguments.

    Of instances, which may give out pairs or not, none are known; nor of what a counter counts.
    """
    if path == "collections.defaultdict" and args:
        if not isinstance(args[0], (Global, Instance, type(None))):
            raise TypeError  # what makes the values that are missing has to be callable
        args = args[1:]
    if len(args) > 1:
        raise TypeError
    inner = args[0] if args else {}
    if isinstance(inner, Instance):
        return []
    if isinstance(inner, dict):
        return list(inner.items())
    if path == "collections.Counter" and isinstance(inner, (list, tuple, str, bytes, type(None))):
        if isinstance(inner, (list, tuple)) and not hashable(inner, known):
            raise TypeError
        return []
    if not isinstance(inner, (list, tuple, str, bytes)):
        raise TypeError
    pairs: list[tuple[Any, Any]] = []
    for one in inner:
        if isinstance(one, Instance):
            continue
        if not isinstance(one, (list, tuple, str, bytes, dict)) or len(one) != 2:
            raise TypeError
        pairs.append(tuple(one))
    if not hashable((key for key, _ in pairs), known):
        raise TypeError
    return pairs
