"""Where in the model, and where in the source, the running operation is."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from bisect import bisect_right
from importlib import import_module
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

__all__ = ["Location", "Locator"]

_PACKAGE = str(Path(__file__).parents[1]) + os.sep
_STDLIB = sysconfig.get_path("stdlib") + os.sep
_SITES = tuple(
    path + os.sep for path in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
)
_ENGINE = "_engine_run_backward"
_SCALER = os.path.join("amp", "grad_scaler.py")  # noqa: PTH118 - the end of a path


class Location(NamedTuple):
    """Where an operation runs."""

    phase: str
    module: str | None
    node: str | None
    source: str | None


class Locator:
    """Follows the modules through their hooks, and backward nodes to their forward operation.

    A node of the backward pass bears the sequence number that was the newest
    when its forward operation ran; so the place of the latter is noted under it.
    """

    def __init__(self, model: Any) -> None:
        torch: Any = import_module("torch")
        self._node = torch._C._current_autograd_node
        self._sequence = torch.autograd._get_sequence_nr
        self._torch = str(Path(torch.__file__).parent) + os.sep
        self._stack: list[str] = []
        self._outside = 0  # depth of the stack when the backward pass began
        self._backward = False
        self._forward: dict[int, tuple[str | None, str | None]] = {}
        self._order: list[int] = []
        self._kinds: dict[CodeType, str] = {}
        self._handles: list[Any] = []
        self._began = self._sequence()
        self._thread = threading.get_ident()
        self.went_back = False
        """Whether a backward pass ran."""
        self.scaling = False
        """Whether a gradient scaler runs the operation."""
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # takes no hooks once compiled
            label = name or type(module).__name__
            self._handles += [
                module.register_forward_pre_hook(self._entering(label), prepend=True),
                module.register_forward_hook(self._left, always_call=True),
            ]

    def _entering(self, label: str) -> Any:
        def entered(*_: Any) -> None:
            self._stack.append(label)

        return entered

    def _left(self, *_: Any) -> None:
        if self._stack:
            self._stack.pop()

    def locate(self) -> Location:
        """Return where the operation is that runs now."""
        node = self._node()
        inner = self._stack[-1] if self._stack else None
        source, within = self._source()
        if node is None:
            self._backward = False
            place = (inner, source)
        else:
            if not self._backward:
                self._backward, self._outside = True, len(self._stack)
                self.went_back = True
            if len(self._stack) > self._outside:  # checkpointing runs the forward pass anew
                place, node = (inner, source), None
            else:
                place = self._of_node(node)
                # Within the engine the user's own frames are those of hooks and functions.
                if within or place[1] is None:
                    place = (place[0], source)
        if threading.get_ident() == self._thread:  # the numbers are those of a thread
            self._note(place)
        return Location("forward" if node is None else "backward", place[0],
                        None if node is None else node.name(), place[1])  # fmt: skip

    def _note(self, place: tuple[str | None, str | None]) -> None:
        newest = self._sequence() - 1
        if newest >= self._began and newest not in self._forward:
            self._forward[newest] = place
            self._order.append(newest)

    def _of_node(self, node: Any) -> tuple[str | None, str | None]:
        number = node._sequence_nr()
        place = self._forward.get(number)
        if place is None and self._began <= number < 2**62 and self._order:
            # Some operations make two nodes: the place of the one before is theirs too.
            at = bisect_right(self._order, number) - 1
            place = self._forward[self._order[max(at, 0)]]
        return place or (None, None)

    def _source(self) -> tuple[str | None, bool]:
        """Return ``file:line`` of the innermost frame of the user, and whether it is in backward.

        Torch, the standard library and this package are passed over.
        """
        self.scaling = False
        frame: FrameType | None = sys._getframe(2)
        engine = False
        while frame is not None:
            code = frame.f_code
            kind = self._kinds.get(code)
            if kind is None:
                kind = self._kinds[code] = self._kind(code)
            if kind == "user":
                return f"{code.co_filename}:{frame.f_lineno}", not engine
            if kind == "engine":
                engine = True
            elif kind == "scaler":
                self.scaling = True
            frame = frame.f_back
        return None, False

    def _kind(self, code: CodeType) -> str:
        name = code.co_filename
        if name.startswith(self._torch):
            if code.co_name == _ENGINE:
                return "engine"
            return "scaler" if name.endswith(_SCALER) else "torch"
        if name.startswith((_PACKAGE, "<frozen ")):
            return "ours"
        if name.startswith(_STDLIB) and not name.startswith(_SITES):
            return "library"
        return "user"

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
