"""Every operation of one step, forward and backward, checked as it runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ._trace_names import Names, Origin
from ._trace_result import TensorSummary
from ._trace_source import Location, Locator
from ._trace_tensors import Lineage, bad, first_bad, floating, summary, tensors_in

__all__ = ["External", "Operation", "Recorder"]

# In-place operations that do not read what they write to.
_OVERWRITES = frozenset({
    "copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_", "random_", "exponential_",
    "geometric_", "cauchy_", "log_normal_", "set_",
})  # fmt: skip
_EMPTY = frozenset({
    "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "resize_",
    "empty_permuted",
})  # fmt: skip
_ITEM = "_local_scalar_dense"
# Batch normalisation in training updates these and does not read them; no schema says so.
_RUNNING = frozenset({"running_mean", "running_var"})


@dataclass(frozen=True, slots=True)
class External:
    """A non-finite tensor that no recorded operation made, as some operation read it."""

    origin: Origin | None
    first_index: tuple[int, ...]
    told: TensorSummary

    @property
    def mask_like(self) -> bool:
        """Whether it holds -Inf alone, as masks that are added to scores do."""
        return bool(self.told.neginf and not self.told.nan and not self.told.posinf)


@dataclass(slots=True)
class Operation:
    """An operation that gave non-finite values."""

    index: int
    op: str
    at: Location
    parents: tuple[int, ...]
    externals: tuple[External, ...]
    numbers: tuple[float, ...]  # among its arguments
    constant: float | None  # a non-finite number among its arguments
    empty: bool  # it hands out memory as it is
    inputs: tuple[TensorSummary, ...]
    output: TensorSummary
    first_index: tuple[int, ...]

    @property
    def name(self) -> str:
        """The operator without its namespace."""
        return self.op.rpartition(".")[2]


class _Plan:
    """What is known of an operator from its schema, once."""

    def __init__(self, func: Any) -> None:
        schema = func._schema
        self.op = schema.name.replace("::", ".")
        self.name = self.op.rpartition(".")[2]
        self.labels = [a.name for a in schema.arguments]
        self.written = {
            a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write
        }
        out_of = {a.name for a in schema.arguments if a.kwarg_only} & self.written
        self.normalises = _RUNNING.issubset(self.labels)
        if self.normalises and "backward" not in self.name:
            self.written |= _RUNNING
        self.unread = out_of | ({self.labels[0]} if self.name in _OVERWRITES else set())
        # A view reads nothing: who reads the view finds the writer by the memory.
        self.view = func.is_view and not self.written
        self.empty = self.name in _EMPTY

    def trains(self, args: Any) -> bool:
        """Return whether batch statistics are used, of an operator that normalises."""
        return any(
            label in ("training", "train") and bool(value)
            for label, value in zip(self.labels, args, strict=False)
        )


class Recorder:
    """Keeps the operations that gave non-finite values, and who handed them on."""

    def __init__(self, names: Names, locator: Locator, protect: Any) -> None:
        self._names, self._locator, self._protect = names, locator, protect
        self._plans: dict[Any, _Plan] = {}
        self.lineage = Lineage()
        self.operations: list[Operation] = []
        self.count = 0
        self.loss_scale: float | None = None
        self._items: list[tuple[float, int]] = []

    def mode(self) -> Any:
        """Return the context in which every operation comes by here."""
        base = import_module("torch.utils._python_dispatch").TorchDispatchMode
        torch = import_module("torch")
        plain = torch.Tensor.__torch_dispatch__, torch._C._disabled_torch_dispatch_impl
        recorder = self

        class Recording(base):  # type: ignore[misc,valid-type]
            def __torch_dispatch__(
                self, func: Any, types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                if any(t.__torch_dispatch__ not in plain for t in types):
                    # A tensor subclass: what it does inside comes by again.
                    return NotImplemented
                return recorder.run(func, args, kwargs or {})

        return Recording()

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run one operation between the check of its inputs and of its outputs."""
        plan = self._plans.get(func)
        if plan is None:
            plan = self._plans[func] = _Plan(func)
        at = self._locator.locate()
        self.count += 1
        if plan.view:
            return func(*args, **kwargs)
        given = list(_labelled(plan, args, kwargs))
        unread = plan.unread | (_RUNNING if plan.normalises and plan.trains(args) else set())
        wrong, written, before = [], [], {}
        for label, tensor in given:
            writes = label in plan.written
            if writes:
                self._protect(tensor)
                written.append(tensor)
            if label in unread or not floating(tensor):
                continue
            if bad(tensor):
                wrong.append((label, tensor, self.lineage.writers(tensor)))
            elif writes:
                before[id(tensor)] = tensor.clone()  # what it held, should the result be bad
        externals = tuple(
            External(self._names.of(t), first_bad(t), summary(label, t))
            for label, t, by in wrong
            if not by
        )
        out = func(*args, **kwargs)
        results = [t for t in tensors_in(out) if floating(t)]
        results += [t for t in written if floating(t) and all(t is not r for r in results)]
        broken = []
        for tensor in results:
            if bad(tensor):
                broken.append(tensor)
            else:
                self.lineage.wrote(tensor, None)
        item = plan.name == _ITEM and bool(wrong)
        if self._locator.scaling and plan.name == "mul":
            self._scaled(args)
        if not broken and not item:
            return out
        parents = {event for _, _, by in wrong for event in by}
        numbers = _numbers(args, kwargs)
        constant = next((one for one in numbers if not math.isfinite(one)), None)
        if constant is not None and not wrong:
            parents |= {e for value, e in self._items[-1:] if _same(value, constant)}
        first = broken[0] if broken else wrong[0][1]
        clean = [(label, before.get(id(t), t)) for label, t in given if label not in unread]
        index = len(self.operations)
        self.operations.append(Operation(
            index, plan.op, at, tuple(sorted(parents)), externals, numbers,
            None if parents else constant, plan.empty,
            tuple(summary(label, t) for label, t in clean) if not parents else (),
            summary("result", first), first_bad(first),
        ))  # fmt: skip
        if item:
            self._items.append((float(first), index))
        for tensor in broken:
            self.lineage.wrote(tensor, index)
        return out

    def _scaled(self, args: Any) -> None:
        for scale in args[1:2]:
            if hasattr(scale, "numel") and scale.numel() == 1:
                self.loss_scale = float(scale)


def _labelled(plan: _Plan, args: Any, kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for label, value in zip(plan.labels, args, strict=False):
        for tensor in tensors_in(value):
            yield label, tensor
    for label, value in kwargs.items():
        for tensor in tensors_in(value):
            yield label, tensor


def _numbers(args: Any, kwargs: dict[str, Any]) -> tuple[float, ...]:
    """Return the numbers among the arguments, also those in lists."""
    given = (*args, *kwargs.values())
    flat = (one for v in given for one in (v if isinstance(v, list | tuple) else (v,)))
    return tuple(float(v) for v in flat if isinstance(v, int | float) and not isinstance(v, bool))


def _same(a: float, b: float) -> bool:
    return a == b or (a != a and b != b)
