"""What stands for the objects of a pickle that is read and not run: inert, and only data."""

from __future__ import annotations

from typing import Any

from .shown import shown

__all__ = ["Global", "Instance", "Persistent", "cannot_build", "hashable", "is_plain_data",
           "plain_container", "safe_key"]  # fmt: skip


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


_DICTS = {"collections.OrderedDict", "collections.defaultdict", "builtins.dict",
          "__builtin__.dict", "collections.Counter"}  # fmt: skip
_LISTS = {"builtins.list", "__builtin__.list"}
_TUPLES = {"torch.Size", "builtins.tuple", "__builtin__.tuple"}
_SETS = {"builtins.set", "__builtin__.set"}
_FROZEN_SETS = {"builtins.frozenset", "__builtin__.frozenset"}
_DISTRIBUTED = "torch.distributed.checkpoint."
# Data classes that compare by value and may change: Python gives them no hash.
_WITHOUT_HASH = {
    *(f"{_DISTRIBUTED}metadata.{name}" for name in (
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "StorageMeta",
        "TensorProperties", "TensorStorageMetadata")),
    f"{_DISTRIBUTED}filesystem._StorageInfo",
}  # fmt: skip
_DEEPEST = 16
_MOST_LOOKED_AT = 1000
_MOST_PARTS = 32  # a tuple may hold another many times over, and is hashed as often
# Makers of tensors, arrays and what describes them: nothing that can be called in turn.
_PLAIN_DATA = ("torch._utils._rebuild_", "torch._tensor._rebuild_", "torch.nn.parameter.",
               "torch.device", "torch.serialization._get_layout", "numpy.dtype", "numpy.ndarray",
               "numpy.core.", "numpy._core.")  # fmt: skip


def is_plain_data(path: str) -> bool:
    """Return whether what a callable makes is a tensor, an array, or what describes one."""
    return path.startswith(_PLAIN_DATA)


def hashable(key: Any) -> bool:
    """Return False where a loader fails, since no dict can hold such a key.

    Instances of classes that are not known count as hashable, as most objects are; and so
    does what a tuple holds beyond a thousand different parts.
    """
    left = [key]
    seen: set[int] = set()
    while left and len(seen) < _MOST_LOOKED_AT:
        one = left.pop()
        if isinstance(one, (list, dict)):
            return False
        if isinstance(one, Instance) and one.path in _WITHOUT_HASH:
            return False
        if isinstance(one, tuple) and id(one) not in seen:
            seen.add(id(one))  # a tuple may hold another many times over
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


def cannot_build(path: str, args: tuple[Any, ...]) -> bool:
    """Return True where a loader fails, since no container is built of such arguments."""
    if path not in _LISTS | _TUPLES | _SETS | _FROZEN_SETS:
        return False
    if len(args) > 1:
        return True
    inner = args[0] if args else ()
    if isinstance(inner, (int, float, type(None), Global)):
        return True
    sizes = inner if path == "torch.Size" and isinstance(inner, (list, tuple)) else ()
    return any(isinstance(one, (str, bytes, float, list, tuple, dict, type(None))) for one in sizes)


def plain_container(path: str, args: tuple[Any, ...]) -> Any:
    """Return the container that a well-known builder makes, or None."""
    if path in _DICTS:
        if len(args) == 1 and isinstance(args[0], (list, tuple)):
            pairs = args[0]
            if all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
                return {safe_key(k): v for k, v in pairs}
        return {}
    for paths, kind in ((_LISTS, list), (_TUPLES, tuple), (_SETS, list), (_FROZEN_SETS, tuple)):
        if path in paths:
            inner = args[0] if args else ()
            return kind(inner) if isinstance(inner, (list, tuple)) else None
    return None
