"""From a loss or gradients that are not finite back to where that began."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ._trace_reasons import reason
from ._trace_record import External, Operation
from ._trace_result import PassedOn, Producer
from ._trace_tensors import bad, first_bad, summary

__all__ = ["walk"]

# Where infinities of a mask turn into NaN: a row in which nothing is left.
_MASKED = ("softmax", "logsumexp", "scaled_dot_product", "attention", "sub", "logcumsumexp")

_REAL, _DESIGN, _EMPTY = 0, 1, 2


class _Root(NamedTuple):
    rank: int  # real ones first: masks and raw memory only where nothing else is there
    at: int
    external: int  # -1: the operation itself; else the place among its externals


def walk(
    operations: Sequence[Operation], targets: Iterable[int]
) -> tuple[list[Producer], list[PassedOn]]:
    """Return the producers, first one first, and what passed on what the first one made.

    Parameters
    ----------
    operations : sequence of Operation
        All that gave non-finite values, in order.
    targets : iterable of int
        Those that wrote the loss or a gradient. Only what leads to them is
        judged: an infinity that a softmax took away harmed nobody.
    """
    reached = _ancestors(operations, targets)
    masks = _masks(operations, reached)
    roots: list[_Root] = []
    for index in reached:
        roots += _roots(operations[index], masks)
    if not roots:
        return [], []
    best = min(root.rank for root in roots)
    roots = sorted(root for root in roots if root.rank == best)
    producers: list[Producer] = []
    for root in roots:
        one = _producer(operations[root.at], root)
        if all(_place(one) != _place(other) for other in producers):
            producers.append(one)
    return producers, _passed_on(operations, reached, roots[0])


def _place(one: Producer) -> tuple[str | None, ...]:
    if one.name is not None:  # a tensor that was there before, whoever reads it
        return one.phase, one.name
    return one.phase, one.module, one.op, one.source


def _ancestors(operations: Sequence[Operation], targets: Iterable[int]) -> list[int]:
    waiting, seen = list(targets), set[int]()
    while waiting:
        index = waiting.pop()
        if index not in seen:
            seen.add(index)
            waiting += operations[index].parents
    return sorted(seen)


def _masks(operations: Sequence[Operation], reached: Iterable[int]) -> set[int]:
    """Return the operations whose infinities all come from a constant or from a mask."""
    found: set[int] = set()
    for index in reached:
        one = operations[index]
        if one.output.nan or one.empty:
            continue
        handed = all(p in found for p in one.parents) and all(e.mask_like for e in one.externals)
        if handed and (one.parents or one.externals or _by_design(one)):
            found.add(index)
    return found


def _by_design(one: Operation) -> bool:
    return one.constant is not None and one.constant == one.constant


def _roots(one: Operation, masks: set[int]) -> list[_Root]:
    if one.empty:
        return [_Root(_EMPTY, one.index, -1)]
    found = [
        _Root(_DESIGN if external.mask_like else _REAL, one.index, at)
        for at, external in enumerate(one.externals)
    ]
    if not one.parents and not one.externals:
        found.append(_Root(_DESIGN if _by_design(one) else _REAL, one.index, -1))
    elif _fully_masked(one, masks):
        found.append(_Root(_REAL, one.index, -1))
    return found


def _fully_masked(one: Operation, masks: set[int]) -> bool:
    return (
        one.index not in masks
        and all(p in masks for p in one.parents)
        and all(e.mask_like for e in one.externals)
        and one.output.nan > 0
        and any(word in one.name for word in _MASKED)
    )


def _producer(one: Operation, root: _Root) -> Producer:
    if root.external >= 0:
        return _handed_in(one, one.externals[root.external])
    if one.empty:
        kind, why = "uninitialised_memory", "memory that was never written to is read"
    elif one.parents or one.externals:
        kind, why = "fully_masked", "every value of a row is masked with -Inf"
    elif one.constant is not None:
        kind, why = "constant", f"the constant {one.constant} is among its arguments"
    else:
        kind, why = reason(one.op, one.inputs, one.output, one.numbers)
    return Producer(
        kind, one.at.phase, None, one.at.module, one.op, one.at.node, one.at.source,
        one.first_index, _value(one.output.nan), one.inputs, one.output, why,
    )  # fmt: skip


def _handed_in(one: Operation, external: External) -> Producer:
    origin, told = external.origin, external.told
    whole, index = told, external.first_index
    if origin is not None and bad(origin.tensor):  # all of it, not the part that was read
        whole, index = summary(origin.name, origin.tensor), first_bad(origin.tensor)
    phase = origin.phase if origin is not None else "data"
    kinds = {
        "data": "non_finite_input", "parameter": "non_finite_parameter",
        "buffer": "non_finite_buffer", "optimizer_state": "non_finite_optimizer_state",
    }  # fmt: skip
    name = origin.name if origin is not None else f"a tensor given to {one.op}"
    wrong = ", ".join(
        f"{n} {word}"
        for n, word in ((whole.nan, "NaN"), (whole.posinf, "Inf"), (whole.neginf, "-Inf"))
        if n
    )
    where = f" in module {one.at.module}" if one.at.module else ""
    return Producer(
        kinds[phase], "parameter" if phase == "buffer" else phase, name, one.at.module, one.op,
        one.at.node, one.at.source, index, _value(whole.nan), (whole,), None,
        f"{wrong} of {whole.size} values, first read by {one.op}{where}",
    )  # fmt: skip


def _passed_on(
    operations: Sequence[Operation], reached: Iterable[int], root: _Root
) -> list[PassedOn]:
    descend = {root.at}
    found: dict[PassedOn, None] = {}
    for index in reached:
        one = operations[index]
        handed = index != root.at and descend.intersection(one.parents)
        if handed:
            descend.add(index)
        if handed or (index == root.at and root.external >= 0):
            found.setdefault(PassedOn(one.at.phase, one.at.module, one.op, one.at.source))
    return list(found)


def _value(nan: int) -> str:
    return "nan" if nan else "inf"
