"""The opcodes of pickle, each as a step of the machine that reads one."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._standins import Members

if TYPE_CHECKING:
    from ._pickle import Machine

__all__ = ["TABLE"]


def _unsigned(size: int) -> Callable[[Machine], int]:
    return lambda m: int.from_bytes(m.take(size), "little")


_u1, _u2, _u4, _u8 = (_unsigned(n) for n in (1, 2, 4, 8))


def _signed4(m: Machine) -> int:
    return int.from_bytes(m.take(4), "little", signed=True)


def _mark(m: Machine) -> None:
    m.spend(16)
    m.marks.append(len(m.stack))


def _drop(m: Machine) -> None:
    # POP takes a mark where that is the topmost thing.
    if m.marks and m.marks[-1] == len(m.stack):
        m.marks.pop()
    else:
        m.pop()


def _stop(m: Machine) -> None:
    m.done = True


def _frame(m: Machine) -> None:
    if _u8(m) > len(m.data) - m.at:
        m.fail("is cut off inside a frame")


def _protocol(m: Machine) -> None:
    if (found := _u1(m)) > 5:
        m.fail("is of a protocol that is not known", found)


def _tuple(count: int) -> Callable[[Machine], None]:
    def make(m: Machine) -> None:
        items = [m.pop() for _ in range(count)]
        m.push(tuple(reversed(items)), 56 + 8 * count)

    return make


def _dict_of_mark(m: Machine) -> None:
    items = m.since_mark()
    m.push({}, 80)
    m.set_items(m.top(), items)


def _set_item(m: Machine) -> None:
    value, key = m.pop(), m.pop()
    m.set_items(m.top(), [key, value])


def _append(m: Machine) -> None:
    value = m.pop()
    m.append_all(m.top(), [value])


def _set_items(m: Machine) -> None:
    items = m.since_mark()
    m.set_items(m.top(), items)


def _append_all(m: Machine) -> None:
    items = m.since_mark()
    m.append_all(m.top(), items)


def _add_all(m: Machine) -> None:
    items = m.since_mark()
    m.add_all(m.top(), items)


def _stack_global(m: Machine) -> None:
    name, module = m.pop(), m.pop()
    m.global_of(module, name)


def _inst(m: Machine) -> None:
    module, name = m.text_line(), m.text_line()
    args = tuple(m.since_mark())
    m.global_of(module, name)
    m.build_call(m.pop(), args)


def _obj(m: Machine) -> None:
    items = m.since_mark()
    if not items:
        m.fail("builds an object of nothing")
    m.build_call(items[0], tuple(items[1:]))


def _reduce(m: Machine) -> None:
    args = m.pop()
    m.build_call(m.pop(), args)


def _new_object_ex(m: Machine) -> None:
    keywords, args, cls = m.pop(), m.pop(), m.pop()
    m.build_call(cls, (*args, keywords) if isinstance(args, tuple) else args)


def _quoted(m: Machine) -> None:
    text = m.line().strip(b"'\"").decode("utf-8", "backslashreplace")
    m.push(text, 60 + len(text))


def _escaped(m: Machine) -> None:
    # Text of protocol 0: what ASCII lacks stands there as an escape.
    raw = m.line()
    try:
        text = raw.decode("raw-unicode-escape")
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "backslashreplace")
    m.push(text, 60 + len(text))


def _integer(raw: bytes) -> int | bool:
    if raw in (b"00", b"01"):
        return raw == b"01"
    return int(raw.rstrip(b"L"))


def _extension(size: int) -> Callable[[Machine], None]:
    def step(m: Machine) -> None:
        # A number in the process's extension registry: it could stand for any global.
        m.global_of("copyreg extension", str(int.from_bytes(m.take(size), "little")))

    return step


def _table() -> list[Callable[[Machine], None] | None]:
    steps: dict[bytes, Callable[[Machine], None]] = {
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
        b"\x8d": lambda m: m.text(_u8(m)), b"V": _escaped, b"S": _quoted,
        b"U": lambda m: m.text(_u1(m)), b"T": lambda m: m.text(_signed4(m)),
        b"C": lambda m: m.raw(_u1(m)), b"B": lambda m: m.raw(_u4(m)),
        b"\x8e": lambda m: m.raw(_u8(m)), b"\x96": lambda m: m.raw(_u8(m)),
        b")": lambda m: m.push((), 8), b"]": lambda m: m.push([], 72),
        b"}": lambda m: m.push({}, 80), b"\x8f": lambda m: m.push(Members(), 72),
        b"t": lambda m: m.push(tuple(m.since_mark()), 56), b"\x85": _tuple(1),
        b"\x86": _tuple(2), b"\x87": _tuple(3),
        b"l": lambda m: m.push(m.since_mark(), 72), b"d": _dict_of_mark,
        b"\x91": lambda m: m.push(tuple(m.members(m.since_mark())), 72), b"\x90": _add_all,
        b"s": _set_item, b"u": _set_items, b"a": _append, b"e": _append_all,
        b"c": lambda m: m.global_of(m.text_line(), m.text_line()), b"\x93": _stack_global,
        b"R": _reduce, b"\x81": _reduce, b"\x92": _new_object_ex, b"i": _inst, b"o": _obj,
        b"b": lambda m: m.build_state(),
        b"q": lambda m: m.put(_u1(m)), b"r": lambda m: m.put(_u4(m)),
        b"p": lambda m: m.put(m.index_line()), b"\x94": lambda m: m.put(len(m.memo)),
        b"h": lambda m: m.get(_u1(m)), b"j": lambda m: m.get(_u4(m)),
        b"g": lambda m: m.get(m.index_line()),
        b"Q": lambda m: m.refer(m.pop()), b"P": lambda m: m.refer(m.text_line()),
        b"\x82": _extension(1), b"\x83": _extension(2), b"\x84": _extension(4),
    }  # fmt: skip
    return [steps.get(bytes([code])) for code in range(256)]


TABLE = _table()
"""The step for each code, None where no plain data needs it."""
