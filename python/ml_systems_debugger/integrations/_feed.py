"""Gives a monitor the steps of a trainer that tells of one step in several calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core import ConfigurationError, MissingDependencyError
from ..monitoring import Monitor
from ..monitoring._torch_model import bare_optimizer

__all__ = ["StepFeed", "missing", "rate_of"]

_OWN = ("model", "optimizer")


class StepFeed:
    """Holds what is known of the newest step until the next begins.

    A trainer tells the loss of a step first, and what it logged or evaluated
    behind it later. What is not finite does not wait.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        for name in _OWN:
            if name in options:
                raise ConfigurationError(f"the trainer gives the {name} itself")
        self._options = dict(options)
        self.monitor: Monitor | None = None
        self._saved: Mapping[str, Any] | None = None
        self._step: int | None = None
        self._loss: float | None = None
        self._metrics: dict[str, float] = {}

    def begin(self, model: Any, optimizer: Any) -> Monitor:
        """Make the monitor; it goes on where a saved state ended."""
        if self.monitor is not None:
            self.end()
        self.monitor = Monitor(model, optimizer, **self._options)
        if self._saved is not None:
            self.monitor.load_state_dict(self._saved)
            self._saved = None
        return self.monitor

    def take(self, step: int, loss: float | None, metrics: Mapping[str, Any]) -> None:
        """Take a step that was made; the one before it is judged."""
        self.flush()
        self._step, self._loss = step, loss
        self.add(metrics)
        finite = loss is None or abs(loss) < float("inf")
        if self.monitor is not None and not (finite and self.monitor.gradients_finite):
            self.flush()

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Take numbers that belong to the newest step; what is no number is left out."""
        for name, value in metrics.items():
            number = value.item() if hasattr(value, "item") and _single(value) else value
            if isinstance(number, (int, float)):
                self._metrics[name] = float(number)

    def flush(self) -> None:
        """Judge the newest step with all that is known of it."""
        if self.monitor is None or self._step is None:
            return
        step, loss, metrics = self._step, self._loss, self._metrics
        self._step, self._loss, self._metrics = None, None, {}
        metrics.pop("loss", None)
        metrics.pop("step", None)
        self.monitor.observe(step, loss=loss, **metrics)

    def end(self) -> None:
        """Judge what is left and take the hooks off; the report can still be asked for."""
        self.flush()
        if self.monitor is not None:
            self.monitor.close()

    @property
    def should_stop(self) -> bool:
        """Whether a finding asked for the run to end."""
        return self.monitor is not None and self.monitor.should_stop

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the monitor, for the framework's checkpoint."""
        self.flush()
        return {} if self.monitor is None else {"monitor": self.monitor.state_dict()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave, now or when the training begins."""
        self._saved = saved.get("monitor")
        if self.monitor is not None and self._saved is not None:
            self.monitor.load_state_dict(self._saved)
            self._saved = None


def _single(value: Any) -> bool:
    size = getattr(value, "numel", None)
    return bool(size() == 1) if callable(size) else getattr(value, "size", 0) == 1


def rate_of(optimizer: Any) -> dict[str, float]:
    """Return the learning rate of the first group of an optimizer, where it has one."""
    groups = getattr(bare_optimizer(optimizer), "param_groups", None)
    return {"lr": float(groups[0]["lr"])} if groups else {}


def missing(library: str, package: str) -> MissingDependencyError:
    """Return the error that says what is needed."""
    return MissingDependencyError(f"this callback needs {library}: pip install {package}")
