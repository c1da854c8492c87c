"""A pickle read without running it: opcodes in, plain values and inert stand-ins out.

Nothing is imported and nothing called. A global becomes a `Global`, what a
loader would build or call with it an `Instance` that only remembers how. The
few builders of plain containers that checkpoints are made of (`OrderedDict`,
`torch.Size`, ...) give the container. Work and memory are bounded by a budget
that grows with the file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NoReturn

from ..core import SchemaError
from ._names import shown

__all__ = ["Global", "Instance", "Persistent", "read_pickle"]

MAX_INT_BYTES = 4096


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


class _Mark:
    __slots__ = ()


_MARK = _Mark()
_DICTS = {"collections.OrderedDict", "collections.defaultdict", "builtins.dict",
          "__builtin__.dict", "collections.Counter"}  # fmt: skip
_LISTS = {"builtins.list", "__builtin__.list"}
_TUPLES = {"torch.Size", "builtins.tuple", "__builtin__.tuple"}
_SETS = {"builtins.set", "builtins.frozenset", "__builtin__.set", "__builtin__.frozenset"}


def read_pickle(data: bytes, source: str, offset: int, budget: int) -> tuple[Any, list[Global]]:
    """Return the object in `data` and every global that it names, in order.

    Parameters
    ----------
    data : bytes
        One pickle, and nothing behind it.
    source, offset
        File and place of `data`, for messages.
    budget : int
        Bytes of memory that the result may take, about.

    Raises
    ------
    SchemaError
        Where it is cut off, malformed, uses an unknown opcode or too much memory.
    """
    return _Machine(data, source, offset, budget).run()


class _Machine:
    def __init__(self, data: bytes, source: str, offset: int, budget: int) -> None:
        self.data = data
        self.source = source
        self.offset = offset
        self.budget = budget
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.globals: dict[tuple[str, str], Global] = {}
        self.done = False

    def fail(self, reason: str, value: object = None) -> NoReturn:
        raise SchemaError(
            f"pickle: {reason}", source=self.source, offset=self.offset + self.at, value=value
        )

    def spend(self, amount: int) -> None:
        self.budget -= amount
        if self.budget < 0:
            self.fail("needs far more memory than a checkpoint of this size")

    def take(self, count: int) -> bytes:
        end = self.at + count
        if count < 0 or end > len(self.data):
            self.fail("is cut off")
        out = self.data[self.at : end]
        self.at = end
        return out

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at, self.at + 4096)
        if end < 0:
            self.fail("has a line without end")
        out = self.data[self.at : end]
        self.at = end + 1
        return out

    def push(self, value: Any, cost: int = 16) -> None:
        self.spend(cost)
        self.stack.append(value)

    def pop(self) -> Any:
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) <= floor:
            self.fail("takes from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            self.fail("takes from an empty stack")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        if not self.marks:
            self.fail("has no mark where one is needed")
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        self.spend(8 * len(items))
        return items

    def run(self) -> tuple[Any, list[Global]]:
        table = _TABLE
        data, size = self.data, len(self.data)
        while not self.done:
            if self.at >= size:
                self.fail("is cut off")
            code = data[self.at]
            step = table[code]
            self.at += 1
            if step is None:
                self.at -= 1
                self.fail("holds an opcode that no checkpoint needs", f"0x{code:02x}")
            step(self)
        if self.at != size:
            self.fail("is followed by further bytes", size - self.at)
        return self.pop(), list(self.globals.values())

    # ---- values -----------------------------------------------------------------------------

    def text(self, length: int) -> None:
        raw = self.take(length)
        self.spend(60 + length)
        try:
            self.stack.append(raw.decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            self.stack.append(raw.decode("utf-8", "backslashreplace"))

    def raw(self, length: int) -> None:
        self.push(self.take(length), 40 + length)

    def long(self, length: int) -> None:
        if length > MAX_INT_BYTES:
            self.fail("holds an integer without measure", length)
        self.push(int.from_bytes(self.take(length), "little", signed=True), 32 + length)

    def number(self, convert: Callable[[bytes], Any]) -> None:
        text = self.line()
        try:
            self.push(convert(text), 32)
        except ValueError:
            self.fail("holds a number that is none", text)

    def index_line(self) -> int:
        text = self.line()
        if not text.isdigit() or len(text) > 10:
            self.fail("holds an index that is none", text)
        return int(text)

    def global_of(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            self.fail("names a global by something that is no text")
        found = self.globals.get((module, name))
        if found is None:
            self.spend(300)
            found = self.globals[(module, name)] = Global(module, name)
        self.push(found)

    def text_line(self) -> str:
        return self.line().decode("utf-8", "backslashreplace")

    # ---- building ---------------------------------------------------------------------------

    def build_call(self, maker: Any, args: Any) -> None:
        if isinstance(maker, Global):
            maker.called = True
            plain = _plain_container(maker.path, args)
            if plain is not None:
                self.push(plain, 80 + 8 * len(plain))
                return
        self.push(Instance(maker, args), 100)

    def set_items(self, target: Any, items: list[Any]) -> None:
        if len(items) % 2:
            self.fail("holds a dict with a key and no value")
        if isinstance(target, Instance):
            if not isinstance(target.items, dict):
                target.items = {}
            target = target.items
        if not isinstance(target, dict):
            self.fail("sets an item of what is no dict")
        self.spend(60 * len(items))
        for at in range(0, len(items), 2):
            target[_key(items[at])] = items[at + 1]

    def append_all(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, Instance):
            if not isinstance(target.items, list):
                target.items = []
            target = target.items
        if not isinstance(target, list):
            self.fail("appends to what is no list")
        self.spend(9 * len(items))
        target.extend(items)

    def build_state(self) -> None:
        state = self.pop()
        target = self.top()
        if isinstance(target, Instance):
            target.state = state
        elif isinstance(target, dict) and isinstance(state, dict):
            # An OrderedDict with attributes, as a state dict's `_metadata`: nothing to judge.
            pass
        elif not isinstance(target, (dict, list, Global)):
            self.fail("gives a state to what can have none")

    def get(self, index: int) -> None:
        if index not in self.memo:
            self.fail("asks for what was never remembered", index)
        self.push(self.memo[index], 8)

    def put(self, index: int) -> None:
        if not self.stack:
            self.fail("remembers nothing")
        self.spend(90)
        self.memo[index] = self.stack[-1]


def _key(key: Any) -> Any:
    """Return a key whose hash is cheap; nested tuples could overflow the C stack."""
    if isinstance(key, (str, bytes, bool, type(None), float, Instance, Global, Persistent)):
        return key
    if isinstance(key, int):
        return key if -(1 << 63) <= key < (1 << 64) else f"<integer of {key.bit_length()} bits>"
    if isinstance(key, tuple) and len(key) <= 16 and all(
        isinstance(k, (str, bytes, int, float, type(None))) for k in key
    ):  # fmt: skip
        return key
    return Instance(None, key)


def _plain_container(path: str, args: Any) -> Any:
    """Return the container that a well-known builder makes, or None."""
    if not isinstance(args, tuple):
        return None
    if path in _DICTS:
        if len(args) == 1 and isinstance(args[0], (list, tuple)):
            pairs = args[0]
            if all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
                return {_key(k): v for k, v in pairs}
        return {}
    for paths, kind in ((_LISTS, list), (_TUPLES, tuple), (_SETS, list)):
        if path in paths and len(args) <= 1:
            inner = args[0] if args else ()
            return kind(inner) if isinstance(inner, (list, tuple)) else None
    return None


def _unsigned(size: int) -> Callable[[_Machine], int]:
    return lambda m: int.from_bytes(m.take(size), "little")


_u1, _u2, _u4, _u8 = (_unsigned(n) for n in (1, 2, 4, 8))


def _signed4(m: _Machine) -> int:
    return int.from_bytes(m.take(4), "little", signed=True)


def _mark(m: _Machine) -> None:
    m.spend(16)
    m.marks.append(len(m.stack))


def _drop(m: _Machine) -> None:
    # POP takes a mark where that is the topmost thing.
    if m.marks and m.marks[-1] == len(m.stack):
        m.marks.pop()
    else:
        m.pop()


def _stop(m: _Machine) -> None:
    m.done = True


def _frame(m: _Machine) -> None:
    if _u8(m) > len(m.data) - m.at:
        m.fail("is cut off inside a frame")


def _protocol(m: _Machine) -> None:
    if (found := _u1(m)) > 5:
        m.fail("is of a protocol that is not known", found)


def _tuple(count: int) -> Callable[[_Machine], None]:
    def make(m: _Machine) -> None:
        items = [m.pop() for _ in range(count)]
        m.push(tuple(reversed(items)), 56 + 8 * count)

    return make


def _dict_of_mark(m: _Machine) -> None:
    items = m.since_mark()
    m.push({}, 80)
    m.set_items(m.top(), items)


def _set_item(m: _Machine) -> None:
    value, key = m.pop(), m.pop()
    m.set_items(m.top(), [key, value])


def _append(m: _Machine) -> None:
    value = m.pop()
    m.append_all(m.top(), [value])


def _set_items(m: _Machine) -> None:
    items = m.since_mark()
    m.set_items(m.top(), items)


def _append_all(m: _Machine) -> None:
    items = m.since_mark()
    m.append_all(m.top(), items)


def _stack_global(m: _Machine) -> None:
    name, module = m.pop(), m.pop()
    m.global_of(module, name)


def _inst(m: _Machine) -> None:
    module, name = m.text_line(), m.text_line()
    args = tuple(m.since_mark())
    m.global_of(module, name)
    m.build_call(m.pop(), args)


def _obj(m: _Machine) -> None:
    items = m.since_mark()
    if not items:
        m.fail("builds an object of nothing")
    m.build_call(items[0], tuple(items[1:]))


def _reduce(m: _Machine) -> None:
    args = m.pop()
    m.build_call(m.pop(), args)


def _new_object_ex(m: _Machine) -> None:
    keywords, args, cls = m.pop(), m.pop(), m.pop()
    m.build_call(cls, (*args, keywords) if isinstance(args, tuple) else args)


def _quoted(m: _Machine) -> None:
    text = m.line().strip(b"'\"").decode("utf-8", "backslashreplace")
    m.push(text, 60 + len(text))


def _integer(raw: bytes) -> int | bool:
    if raw in (b"00", b"01"):
        return raw == b"01"
    return int(raw.rstrip(b"L"))


def _extension(size: int) -> Callable[[_Machine], None]:
    def step(m: _Machine) -> None:
        # A number in the process's extension registry: it could stand for any global.
        m.global_of("copyreg extension", str(int.from_bytes(m.take(size), "little")))

    return step


def _table() -> list[Callable[[_Machine], None] | None]:
    steps: dict[bytes, Callable[[_Machine], None]] = {
        b"\x80": _protocol, b"\x95": _frame, b".": _stop, b"(": _mark, b"0": _drop,
        b"1": lambda m: (m.since_mark(), None)[1],
        b"2": lambda m: m.push(m.top()),
        b"N": lambda m: m.push(None, 8), b"\x88": lambda m: m.push(True, 8),
        b"\x89": lambda m: m.push(False, 8),
        b"K": lambda m: m.push(_u1(m), 16), b"M": lambda m: m.push(_u2(m), 36),
        b"J": lambda m: m.push(_signed4(m), 36),
        b"\x8a": lambda m: m.long(_u1(m)), b"\x8b": lambda m: m.long(_signed4(m)),
        b"I": lambda m: m.number(_integer), b"L": lambda m: m.number(_integer),
        b"F": lambda m: m.number(float),
        b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0], 32),
        b"X": lambda m: m.text(_u4(m)), b"\x8c": lambda m: m.text(_u1(m)),
        b"\x8d": lambda m: m.text(_u8(m)), b"V": _quoted, b"S": _quoted,
        b"U": lambda m: m.text(_u1(m)), b"T": lambda m: m.text(_signed4(m)),
        b"C": lambda m: m.raw(_u1(m)), b"B": lambda m: m.raw(_u4(m)),
        b"\x8e": lambda m: m.raw(_u8(m)), b"\x96": lambda m: m.raw(_u8(m)),
        b")": lambda m: m.push((), 8), b"]": lambda m: m.push([], 72),
        b"}": lambda m: m.push({}, 80), b"\x8f": lambda m: m.push([], 72),
        b"t": lambda m: m.push(tuple(m.since_mark()), 56), b"\x85": _tuple(1),
        b"\x86": _tuple(2), b"\x87": _tuple(3),
        b"l": lambda m: m.push(m.since_mark(), 72), b"d": _dict_of_mark,
        b"\x91": lambda m: m.push(m.since_mark(), 72), b"\x90": _append_all,
        b"s": _set_item, b"u": _set_items, b"a": _append, b"e": _append_all,
        b"c": lambda m: m.global_of(m.text_line(), m.text_line()), b"\x93": _stack_global,
        b"R": _reduce, b"\x81": _reduce, b"\x92": _new_object_ex, b"i": _inst, b"o": _obj,
        b"b": lambda m: m.build_state(),
        b"q": lambda m: m.put(_u1(m)), b"r": lambda m: m.put(_u4(m)),
        b"p": lambda m: m.put(m.index_line()), b"\x94": lambda m: m.put(len(m.memo)),
        b"h": lambda m: m.get(_u1(m)), b"j": lambda m: m.get(_u4(m)),
        b"g": lambda m: m.get(m.index_line()),
        b"Q": lambda m: m.push(Persistent(m.pop()), 60),
        b"P": lambda m: m.push(Persistent(m.text_line()), 60),
        b"\x82": _extension(1), b"\x83": _extension(2), b"\x84": _extension(4),
    }  # fmt: skip
    return [steps.get(bytes([code])) for code in range(256)]


_TABLE = _table()
