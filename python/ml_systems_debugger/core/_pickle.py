"""The machine that reads a pickle without running it: a stack, marks, a memo, a budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from ._opcodes import TABLE
from ._standins import (
    Global,
    Instance,
    Members,
    Persistent,
    built,
    hashable,
    holds_items,
    is_plain_data,
    is_tensor,
    safe_key,
)
from .errors import SchemaError

__all__ = ["Machine"]

MAX_INT_BYTES = 4096


class Machine:
    """A stack, marks and a memo, as pickle has them; steps are in `_opcodes`."""

    def __init__(
        self, data: bytes, source: str, offset: int, budget: int, *,
        references: list[Persistent] | None = None,
        tensors: list[Instance] | None = None,
    ) -> None:  # fmt: skip
        self.data = data
        self.source = source
        self.offset = offset
        self.budget = budget
        self.references = references
        self.tensors = tensors
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.globals: dict[tuple[str, str], Global] = {}
        self.hashed: dict[int, tuple[Any, ...]] = {}  # tuples that were looked at
        self.used = bytearray(256)  # by opcode, whether it was met
        self.done = False

    def fail(self, reason: str, value: object = None) -> NoReturn:
        raise SchemaError(
            f"pickle: {reason}", source=self.source, offset=self.offset + self.at, value=value
        )

    def spend(self, amount: int) -> None:
        self.budget -= amount
        if self.budget < 0:
            self.fail("needs far more memory than a file of this size")

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
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) <= floor:
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
        table = TABLE
        data, size, used = self.data, len(self.data), self.used
        while not self.done:
            if self.at >= size:
                self.fail("is cut off")
            code = data[self.at]
            step = table[code]
            self.at += 1
            if step is None:
                self.at -= 1
                self.fail("holds an opcode that no plain data needs", f"0x{code:02x}")
            used[code] = 1
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
            # Every writer makes UTF-8, and every loader refuses what is none: bytes were damaged.
            self.fail("holds text that is no UTF-8", raw[:40])

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
        line = self.line()
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError:
            self.fail("holds a name that is no UTF-8", line[:40])

    def refer(self, to: Any) -> None:
        """Push what stands for something that lies beside the pickle."""
        if self.references is None:
            self.fail("refers to what lies outside of it, and there is nothing")
        self.references.append(Persistent(to))
        self.push(self.references[-1], 70)

    # ---- building ---------------------------------------------------------------------------

    def build_call(self, maker: Any, args: Any) -> None:
        if not isinstance(maker, (Global, Instance)):
            self.fail("calls what cannot be called", type(maker).__name__)
        if not isinstance(args, tuple):
            self.fail("calls with arguments that are no tuple", type(args).__name__)
        if isinstance(maker, Instance) and is_plain_data(maker.path):
            self.fail("calls what cannot be called", maker)
        if isinstance(maker, Global):
            maker.called = True
            try:
                plain = built(maker.path, args, self.hashed)
            except TypeError:
                self.fail(f"builds a {maker.name} of what it cannot be built of", args)
            if plain is not None:
                self.push(plain, 80 + (60 if isinstance(plain, dict) else 8) * len(plain))
                return
            if maker.module.startswith("pathlib") and not _all_text(args):
                self.fail("builds a path of what is no text")
        self.push(Instance(maker, args), 100)
        if self.tensors is not None and isinstance(maker, Global) and is_tensor(maker.path):
            self.tensors.append(self.stack[-1])

    def set_items(self, target: Any, items: list[Any]) -> None:
        if len(items) % 2:
            self.fail("holds a dict with a key and no value")
        if isinstance(target, Instance) and holds_items(target.path):
            if not isinstance(target.items, dict):
                target.items = {}
            target = target.items
        if not isinstance(target, dict):
            self.fail("sets an item of what is no dict")
        self.spend(60 * len(items))
        for at in range(0, len(items), 2):
            if not hashable((items[at],), self.hashed):
                self.fail("holds a dict with a key that has no hash", items[at])
            target[safe_key(items[at])] = items[at + 1]

    def append_all(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, Instance) and holds_items(target.path):
            if not isinstance(target.items, list):
                target.items = []
            target = target.items
        if not isinstance(target, list) or isinstance(target, Members):
            self.fail("appends to what is no list")
        self.spend(9 * len(items))
        target.extend(items)

    def members(self, items: list[Any]) -> list[Any]:
        """Return what a set or a frozen set is to hold."""
        if not hashable(items, self.hashed):
            self.fail("holds a set of what has no hash")
        self.spend(9 * len(items))
        return items

    def add_all(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, Members):
            target.extend(self.members(items))
        elif not isinstance(target, Instance) or not holds_items(target.path):
            self.fail("adds to what is no set")

    def build_state(self) -> None:
        state = self.pop()
        target = self.top()
        if isinstance(target, Instance):
            if is_tensor(target.path):  # a loader would put it elsewhere in its storage
                self.fail("gives a tensor another state than it was built with")
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
        self.spend(90)
        self.memo[index] = self.top()


def _all_text(args: tuple[Any, ...]) -> bool:
    return all(isinstance(part, str) for part in args)
