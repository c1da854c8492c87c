"""What the tensors that a step begins with are called: parameters, buffers, state, the batch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from ._trace_tensors import bad, first_bad, floating, span, storage_of

__all__ = ["Names", "Origin", "nonfinite_states", "parameters_of", "states_of", "variables"]

_DEPTH = 4  # of nested batches


class Origin(NamedTuple):
    """A tensor that was there before the step."""

    phase: str  # "parameter", "buffer", "optimizer_state", "gradient" or "data"
    name: str
    tensor: Any


def parameters_of(model: Any, optimizer: Any) -> dict[str, Any]:
    """Return the parameters of the model, and those that the optimizer alone knows."""
    found = dict(model.named_parameters())
    known = {id(p) for p in found.values()}
    for g, group in enumerate(optimizer.param_groups if optimizer is not None else ()):
        for at, p in enumerate(group["params"]):
            if id(p) not in known:
                found[f"param_groups[{g}][{at}]"] = p
    return found


class Names:
    """Finds the name of a tensor by the memory that it lies in."""

    def __init__(self, model: Any, parameters: Mapping[str, Any], optimizer: Any) -> None:
        self._found: dict[int, list[Origin]] = {}
        for name, p in parameters.items():
            self._add("parameter", name, p)
        for name, one in model.named_buffers():
            self._add("buffer", name, one)
        for owner, held in states_of(parameters, optimizer).items():
            for key, one in held.items():
                self._add("optimizer_state", f"{owner}.{key}", one)

    def batch(self, name: str, value: Any) -> None:
        """Name the tensors of a batch, where they have no name yet."""
        for label, tensor in _named(name, value, _DEPTH):
            self._add("data", label, tensor)

    def of(self, tensor: Any) -> Origin | None:
        """Return what is known of the memory of `tensor`."""
        found = self._found.get(storage_of(tensor), [])
        low, high = span(tensor)
        # A batch is often a part of a larger tensor: the smallest that holds it is meant.
        around = [
            one for one in found if span(one.tensor)[0] <= low and high <= span(one.tensor)[1]
        ]
        return min(around or found, key=lambda one: one.tensor.numel(), default=None)

    def _add(self, phase: str, name: str, tensor: Any) -> None:
        if str(tensor.layout) != "torch.strided" or tensor.device.type == "meta":
            return
        self._found.setdefault(storage_of(tensor), []).append(Origin(phase, name, tensor.detach()))


def states_of(parameters: Mapping[str, Any], optimizer: Any) -> dict[str, dict[str, Any]]:
    """Return the tensors that the optimizer keeps, by parameter and by key."""
    tensor = import_module("torch").Tensor
    if optimizer is None:
        return {}
    owners = {p: name for name, p in parameters.items()}
    return {
        owners[p]: {k: v for k, v in held.items() if isinstance(v, tensor)}
        for p, held in optimizer.state.items()
        if p in owners
    }


def nonfinite_states(
    parameters: Mapping[str, Any], optimizer: Any
) -> list[tuple[str, str, Any, bool]]:
    """Return parameter, key and tensor of every bad state, and whether it was the first to be.

    A gradient that was not finite leaves its mark in every average of it. So
    where one average holds a bad value and its sibling is finite at the same
    place, no gradient brought it.
    """
    found = []
    for owner, held in states_of(parameters, optimizer).items():
        same = {k: v for k, v in held.items() if floating(v) and v.numel()}
        for key, one in same.items():
            if not bad(one):
                continue
            at = first_bad(one)
            first = any(
                k != key and v.shape == one.shape and at and bool(v[at].isfinite())
                for k, v in same.items()
            )
            found.append((owner, key, one, first))
    return found


def variables(closure: Callable[[], Any]) -> Iterator[tuple[str, Any]]:
    """Yield the variables that a closure reads, those of functions it was made from too."""
    seen: set[int] = set()
    waiting: list[Any] = [closure]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, functools.partial):
            for at, value in enumerate(one.args):
                yield f"argument {at}", value
            yield from one.keywords.items()
            waiting.append(one.func)
            continue
        if hasattr(one, "__self__") and hasattr(one, "__func__"):
            yield from vars(one.__self__).items() if hasattr(one.__self__, "__dict__") else ()
            waiting.append(one.__func__)
            continue
        code = getattr(one, "__code__", None)
        if code is None:
            continue
        for name, cell in zip(code.co_freevars, one.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # a variable that has no value yet
                continue
            yield name, value
            waiting.append(value)
        for name, value in zip(
            reversed(code.co_varnames[: code.co_argcount]),
            reversed(one.__defaults__ or ()),
            strict=False,
        ):
            yield name, value
        for name in code.co_names:
            if name in one.__globals__:
                value = one.__globals__[name]
                yield name, value
                if inspect.isfunction(value):
                    waiting.append(value)


def _named(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, import_module("torch").Tensor):
        yield name, value
    elif depth and isinstance(value, Mapping):
        for key, one in value.items():
            yield from _named(f"{name}[{key!r}]", one, depth - 1)
    elif depth and isinstance(value, list | tuple):
        for at, one in enumerate(value):
            yield from _named(f"{name}[{at}]", one, depth - 1)
