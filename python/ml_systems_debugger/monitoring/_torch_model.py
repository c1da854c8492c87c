"""A torch model and its optimizer, watched through the optimizer's own step hook."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._measures import Gradients, MakeKey, Parameters
from ._probe import Probe
from ._standing import Standing, Starved
from ._steps import StepBuffer

if TYPE_CHECKING:
    from .monitor import Monitor

__all__ = ["TorchModel"]


class TorchModel(Probe):
    """Reads the gradients where the optimizer is about to use them.

    They are measured within the hook: after it the loop may clear them.
    """

    what = "the watched model"

    def __init__(self, model: Any, optimizer: Any, monitor: Monitor, skip_nonfinite: bool) -> None:
        found = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._names = tuple(name for name, _ in found)
        self._parameters = tuple(parameter for _, parameter in found)
        self._model, self._optimizer = model, optimizer
        self._monitor = monitor
        self._skip = skip_nonfinite
        self._gradients, self._moved = Gradients(), Parameters()
        self._standing, self._starved = Standing(), Starved()
        self._measured = False
        self._looks = self._chances = 0
        self._skipped = 0.0
        self._handles = []
        if optimizer is not None:
            self._handles.append(optimizer.register_step_pre_hook(self.measure))

    def measure(self, *_: Any) -> None:
        """Measure the gradients as they are now, at the cost of the monitor."""
        monitor = self._monitor
        began = time.perf_counter()
        try:
            self._measure()
        except Exception as error:  # noqa: BLE001 - training is not to end for this
            monitor._failed("measuring gradients", error)
        monitor.cost += time.perf_counter() - began

    def _measure(self) -> None:
        self._chances += 1
        self._skipped = 0.0
        if not self._monitor._intake.due(self._chances - 1):
            self._measured = False
            return
        bad = self._gradients.read(self._names, self._parameters, "grad")
        self._measured = True
        if bad and self._skip:
            self._skipped = 1.0
            for parameter in self._parameters:
                parameter.grad = None  # optimizers pass over parameters without a gradient

    def put(self, buffer: StepBuffer, key: MakeKey) -> bool:
        """Put what the hook measured; return whether anything was not finite."""
        if not self._measured:
            return False
        self._measured = False
        if not self._gradients.any:
            return False
        self._gradients.put(buffer, key)
        now, at = self._gradients.bad, self._chances
        now |= self._starved.now(self._gradients.norms, self._gradients.there, at)
        seems = self._standing.seems(self._parameters, self._gradients.norms, at, self._replaced)
        if at > self._looks or seems:
            self._moved.measure(buffer, key, self._names, self._parameters)
            self._looks = at + self._monitor.budget.update_every - 1
            now |= self._standing.measured(self._moved.moved, at)
        return now

    def _replaced(self) -> npt.NDArray[np.bool_]:
        """Take the parameters that the model has now; return which are others than before."""
        has = dict(self._model.named_parameters())
        before = self._parameters
        self._parameters = tuple(
            has.get(name, old) for name, old in zip(self._names, before, strict=True)
        )
        pairs = zip(self._parameters, before, strict=True)
        return np.array([now is not old for now, old in pairs], np.bool_)

    @property
    def bad(self) -> bool:
        """Whether the gradients of the step that is under way are not finite."""
        return self._measured and self._gradients.bad

    def metrics(self) -> dict[str, float]:
        """Return the learning rate of the first group, and whether the step was left out."""
        found = {}
        if self._optimizer is not None and self._optimizer.param_groups:
            found["lr"] = float(self._optimizer.param_groups[0]["lr"])
        if self._skip:
            found["skipped_step"] = self._skipped
        return found

    def detach(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
