"""A replay leaves nothing behind: random state, parameters, gradients, buffers, optimizer."""

from __future__ import annotations

import random
from importlib import import_module
from typing import Any

import numpy as np

from ._trace_tensors import storage_of, tensors_in

__all__ = ["RandomState", "Untouched"]


class RandomState:
    """The random generators of Python, NumPy and torch (every device), as they are now."""

    def __init__(self) -> None:
        torch = import_module("torch")
        self._python = random.getstate()
        self._numpy = np.random.get_state()  # noqa: NPY002 - the one that user code may draw from
        self._torch = torch.random.get_rng_state()
        self._devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None

    def put_back(self) -> None:
        """Set the generators to this state."""
        torch = import_module("torch")
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002 - likewise
        torch.random.set_rng_state(self._torch)
        if self._devices is not None:
            torch.cuda.set_rng_state_all(self._devices)


class Untouched:
    """What a step changes of model and optimizer, to be put back after the replay.

    Buffers are copied at once, since some operators write to them without
    saying so (batch normalisation). Parameters, gradients and the optimizer's
    tensors are copied when an operation is about to write to one, `protect`: a
    replay that only goes forward and backward copies none of them.
    """

    def __init__(self, model: Any, parameters: dict[str, Any], optimizer: Any) -> None:
        self._random = RandomState()
        self._parameters = [(p, p.detach(), p.grad) for p in parameters.values()]
        self._modes = [(m, m.training) for m in model.modules()]
        self._buffers = [(m, dict(m._buffers), _copies(m)) for m in model.modules() if m._buffers]
        self._optimizer = optimizer
        self._state: list[tuple[Any, dict[str, Any]]] = []
        self._groups: list[dict[str, Any]] = []
        watched = [t for p, _, g in self._parameters for t in (p, g) if t is not None]
        if optimizer is not None:
            self._state = [(p, dict(held)) for p, held in optimizer.state.items()]
            self._groups = [dict(group) for group in optimizer.param_groups]
            for _, held in self._state:
                watched += tensors_in(held)
        self._watched = {storage_of(t): t.detach() for t in watched}
        self._copies: list[tuple[Any, Any]] = []
        for p, _, _ in self._parameters:
            p.grad = None  # a step begins without gradients

    def protect(self, tensor: Any) -> None:
        """Copy what is about to be written to, if it is the run's own."""
        held = self._watched.pop(storage_of(tensor), None)
        if held is not None:
            self._copies.append((held, held.clone()))

    def put_back(self) -> None:
        """Make everything as it was."""
        torch = import_module("torch")
        with torch.no_grad():
            for held, copy in self._copies:
                held.copy_(copy)
            for p, values, gradient in self._parameters:
                if p.data_ptr() != values.data_ptr():
                    p.data = values
                p.grad = gradient
            for module, buffers, copies in self._buffers:
                for name, one in buffers.items():
                    module._buffers[name] = one
                    if one is not None:
                        one.copy_(copies[name])
        for module, training in self._modes:
            module.training = training
        if self._optimizer is not None:
            self._optimizer.state.clear()
            self._optimizer.state.update(self._state)
            for group, before in zip(self._optimizer.param_groups, self._groups, strict=True):
                group.clear()
                group.update(before)
        self._random.put_back()


def _copies(module: Any) -> dict[str, Any]:
    return {name: b.detach().clone() for name, b in module._buffers.items() if b is not None}
