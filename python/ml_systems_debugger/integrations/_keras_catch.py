"""Catches the loss and the gradients of every batch that a Keras model is trained with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from ..monitoring import Monitor
from ._measured import Measured, Row

__all__ = ["Batch", "Catch", "JaxCatch", "TorchCatch", "Weights"]

Batch = tuple[float, Row | None, dict[str, float]]
"""Its own loss, what was measured of it, further numbers."""


class Weights:
    """The trainable variables of a Keras model, as a model of torch has its parameters."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def named_parameters(self) -> list[tuple[str, Any]]:
        """Return names and tensors."""
        return [(one.path, one.value) for one in self._model.trainable_variables]


class Catch:
    """Undoes the running mean that Keras reports: the loss alone, for any backend."""

    def __init__(self, model: Any, monitor: Monitor, update_every: int) -> None:
        self.model, self.monitor, self.update_every = model, monitor, update_every
        self.batches: deque[Batch] = deque()
        self._before = 0.0, 0.0

    def epoch_begins(self) -> None:
        """Take that the running mean begins anew."""
        self._before = 0.0, 0.0

    def batch_ends(self, rate: float | None) -> None:
        """Take that a batch was trained."""
        tracker = next((one for one in self.model.metrics if one.name == "loss"), None)
        if tracker is None:
            return
        total, count = float(tracker.total), float(tracker.count)
        before, self._before = self._before, (total, count)
        if count > before[1]:
            loss = (total - before[0]) / (count - before[1])
            self.batches.append((loss, None, {} if rate is None else {"lr": rate}))

    def settle(self) -> None:
        """Wait for what is under way."""

    def detach(self) -> None:
        """Leave the optimizer as it was."""


class _Wrapped(Catch):
    """Puts itself around methods of the optimizer."""

    def __init__(self, model: Any, monitor: Monitor, update_every: int) -> None:
        super().__init__(model, monitor, update_every)
        self.optimizer = model.optimizer
        self._names: list[str] = []

    def around(self, name: str, wrapper: Callable[..., Any]) -> None:
        """Have `wrapper` called in place of a method of the optimizer."""
        vars(self.optimizer)[name] = wrapper
        self._names.append(name)

    def detach(self) -> None:
        """Leave the optimizer as it was."""
        for name in self._names:
            vars(self.optimizer).pop(name, None)
        self._names.clear()

    def factor(self) -> Any:
        """Return the loss scale, a variable or a number; None where there is none."""
        dynamic = getattr(self.optimizer, "dynamic_scale", None)
        return getattr(self.optimizer, "loss_scale_factor", None) if dynamic is None else dynamic


class TorchCatch(_Wrapped):
    """Reads values as they are made: torch runs one batch after the other."""

    def __init__(
        self, model: Any, monitor: Monitor, update_every: int, skip_nonfinite: bool
    ) -> None:
        super().__init__(model, monitor, update_every)
        self._skip = skip_nonfinite
        self._loss: float | None = None
        self._extra: dict[str, float] = {}
        scale_loss, apply = self.optimizer.scale_loss, self.optimizer.apply

        def scaled(loss: Any) -> Any:
            self._loss = self.monitor._troubles.safely(
                "reading the loss", lambda: float(loss.detach())
            )
            return scale_loss(loss)

        def applied(grads: Any, trainable_variables: Any = None) -> Any:
            self.monitor._troubles.safely("measuring gradients", self._measure)
            if self._skip and not self.monitor.gradients_finite:
                return None
            return apply(grads, trainable_variables)

        self.around("scale_loss", scaled)
        self.around("apply", applied)

    def _measure(self) -> None:
        watched = self.monitor._model
        factor = self.factor()
        self.monitor.measure()
        self._extra = {}
        if factor is None or watched is None:
            return
        scale = float(factor)
        self._extra = {"loss_scale": scale}
        if watched.bad and hasattr(self.optimizer, "dynamic_scale"):
            watched.left_out()
        else:
            watched.unscale(scale)

    def batch_ends(self, rate: float | None) -> None:
        """Take that a batch was trained."""
        if self._loss is not None:
            extra = self._extra if rate is None else {**self._extra, "lr": rate}
            self.batches.append((self._loss, None, extra))
        self._loss = None


class JaxCatch(_Wrapped):
    """Has the compiled step hand out its loss and the norms of its gradients."""

    def __init__(self, model: Any, monitor: Monitor, update_every: int) -> None:
        super().__init__(model, monitor, update_every)
        import jax

        self._losses: deque[float] = deque()
        self._rows: deque[tuple[Row, dict[str, float]]] = deque()
        self._alone = False  # what measures gradients failed
        self.probe = Measured()
        monitor._probes.add(self.probe)
        self._jax: Any = jax
        scale_loss, apply = self.optimizer.scale_loss, self.optimizer.stateless_apply

        def scaled(loss: Any) -> Any:
            jax.debug.callback(lambda value: self._losses.append(float(value)), loss)
            return scale_loss(loss)

        def applied(optimizer_variables: Any, grads: Any, trainable_variables: Any) -> Any:
            made = apply(optimizer_variables, grads, trainable_variables)
            sent = self.monitor._troubles.safely(
                "measuring gradients",
                lambda: self._send(optimizer_variables, grads, trainable_variables, made[0]),
            )
            self._alone = not sent
            return made

        self.around("scale_loss", scaled)
        self.around("stateless_apply", applied)
        model.train_function = None  # it may have been compiled without this

    def _send(self, state: Any, grads: Any, before: Any, after: Any) -> bool:
        import keras  # type: ignore[import-untyped, unused-ignore]  # it has no types

        from ._jax_norms import moves, norms

        there = [k for k, grad in enumerate(grads) if grad is not None]
        names = tuple(self.model.trainable_variables[k].path for k in there)
        mapping = list(zip(self.optimizer.variables, state, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            rate = self.optimizer.learning_rate
            rate = rate.value if hasattr(rate, "value") else rate
            factor = self.factor()
            factor = factor.value if hasattr(factor, "value") else factor
            due = self.optimizer.iterations.value % self.update_every == 0
        seen = norms([grads[k] for k in there])
        pairs = [before[k] for k in there], [after[k] - before[k] for k in there]
        moved = moves(due, *pairs)
        dynamic = hasattr(self.optimizer, "dynamic_scale")

        def arrived(seen: Any, moved: Any, rate: Any, factor: Any) -> None:
            row = Row(names, np.asarray(seen, np.float64))
            extra = {"lr": float(rate)}
            if factor is not None:
                extra["loss_scale"] = float(factor)
                row.grad_norms = row.grad_norms / float(factor)
            if dynamic:
                row.skipped = not row.finite
            row.moves(np.asarray(moved, np.float64))
            self._rows.append((row, extra))

        self._jax.debug.callback(arrived, seen, moved, rate, factor)
        return True

    def batch_ends(self, rate: float | None) -> None:
        """Take what has come; a step under way comes with the next."""
        while self._losses and self._alone:
            self.batches.append((self._losses.popleft(), None, {}))
        while self._losses and self._rows:
            row, extra = self._rows.popleft()
            self.batches.append((self._losses.popleft(), row, extra))

    def settle(self) -> None:
        """Wait for what is under way."""
        self._jax.effects_barrier()
        self.batch_ends(None)

    def detach(self) -> None:
        """Leave the optimizer as it was, and have the step compiled without this."""
        super().detach()
        self.model.train_function = None
