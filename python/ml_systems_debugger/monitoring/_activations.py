"""What the modules of a torch model give: how much of it is zero, and how far it spreads."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..kernels.tensor_stats import tensor_stats
from ._hooks import Hooks
from ._measures import Layers, MakeKey
from ._probe import Probe
from ._steps import StepBuffer

if TYPE_CHECKING:
    from .monitor import Monitor

__all__ = ["Activations", "Spreads"]


class Spreads:
    """How much of each output of a step is zero, and how far it spreads.

    Parameters
    ----------
    names : sequence of str
        Of what gives the outputs, as modules.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._there: npt.NDArray[np.bool_] = np.zeros(len(names), np.bool_)
        self._zeros, self._spread = np.zeros(len(names)), np.zeros(len(names))
        self._bad = self._any = False
        self._put_zeros = Layers("activation_zero_fraction")
        self._put_spread = Layers("activation_std")

    def measure(self, at: int, out: Any) -> None:
        """Measure the output of the `at`-th name; of several in a step the last counts."""
        found = tensor_stats(out)
        if not found.size:
            return
        spread = found.std
        if found.nan:
            spread = math.nan
        elif found.posinf or found.neginf:
            spread = math.inf
        self._zeros[at], self._spread[at] = found.zero / found.size, spread
        self._there[at] = self._any = True
        self._bad |= spread - spread != 0.0  # NaN or infinite

    def put(self, buffer: StepBuffer, key: MakeKey) -> bool:
        """Put what was measured at this step; return whether any of it is not finite."""
        if not self._any:
            return False
        self._put_zeros(buffer, key, self.names, self._zeros, self._there)
        self._put_spread(buffer, key, self.names, self._spread, self._there)
        bad, self._bad, self._any = self._bad, False, False
        self._there[:] = False
        return bad


class Activations(Probe):
    """Measures the output of every module without modules of its own, in training mode.

    Within the forward pass, by one native call for each: nothing is kept of it. Of
    several forward passes in a step the last counts. What is not finite makes
    ``activation_std`` of that module NaN or infinite, and is judged at once.
    """

    what = "measuring activations"

    def __init__(self, model: Any, monitor: Monitor) -> None:
        leaves = [(n, m) for n, m in model.named_modules() if next(m.children(), None) is None]
        self._spreads = Spreads([name for name, _ in leaves])
        self._monitor = monitor
        self._hooks = Hooks(self, monitor._probes)
        for at, (_, module) in enumerate(leaves):
            self._hooks.add(module.register_forward_hook, self._hook(at))

    def _hook(self, at: int) -> Callable[[Any, Any, Any], None]:
        def given(module: Any, _: Any, out: Any) -> None:
            if not module.training or not getattr(out, "is_cpu", False):
                return
            began = time.perf_counter()
            self._measure(at, out)
            self._monitor.cost += time.perf_counter() - began

        return given

    def _measure(self, at: int, out: Any) -> None:
        if not out.dtype.is_floating_point or not out.numel():
            return
        self._spreads.measure(at, out.detach())

    def put(self, buffer: StepBuffer, key: MakeKey) -> bool:
        """Put what this step's forward pass gave."""
        return self._spreads.put(buffer, key)

    def detach(self) -> None:
        """Take the hooks off."""
        self._hooks.detach()
