"""`MonitorCallback`: the monitor in `fit` of Keras 3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..core import ConfigurationError, MissingDependencyError
from ..core.files import written_whole
from ..monitoring import Monitor
from ._feed import StepFeed, missing
from ._keras_catch import Catch, JaxCatch, TorchCatch, Weights

try:
    import keras  # type: ignore[import-untyped, unused-ignore]  # it has no types
except ImportError as error:  # pragma: no cover - said where it is absent
    if error.name in (None, "keras"):
        raise missing("Keras 3", "keras") from error
    raise MissingDependencyError(
        f"Keras is here, but not its backend: there is no {error.name}; set KERAS_BACKEND to "
        f"torch or jax, whichever is installed"
    ) from error

__all__ = ["MonitorCallback"]


class MonitorCallback(keras.callbacks.Callback):  # type: ignore[misc, unused-ignore]
    """Watches a training that `fit` of Keras runs, with the backends torch and JAX.

    Keras reports the mean of the loss since the epoch began; what is judged is the loss
    of each batch itself. Gradients are those that the optimizer is given, before it
    clips them, without the loss scale. With JAX they are measured inside the compiled
    step, and a finding may come a batch later. With another backend the losses alone
    are judged.

    With ``action="stop"`` the training stops behind the batch; ``action="raise"`` ends
    it with `FaultFound`.

    Parameters
    ----------
    state_path : path, optional
        File for the state of the monitor, written behind every epoch; where it is
        there when `fit` begins, the run goes on from it. Best beside the checkpoint
        that `keras.callbacks.BackupAndRestore` keeps.
    skip_nonfinite : bool
        Leave out a step whose gradients are not finite; with torch alone, elsewhere
        `keras.optimizers.LossScaleOptimizer` does that.
    **options
        As for `Monitor`, but for the model and the optimizer.

    Attributes
    ----------
    monitor : Monitor or None
        Once training has begun.

    Examples
    --------
    ::

        from ml_systems_debugger.integrations.keras import MonitorCallback

        model.fit(x, y, callbacks=[MonitorCallback(action="stop")])
    """

    def __init__(
        self, *, state_path: str | Path | None = None, skip_nonfinite: bool = False, **options: Any
    ) -> None:
        super().__init__()
        if skip_nonfinite and keras.backend.backend() != "torch":
            raise ConfigurationError(
                "skip_nonfinite is for the torch backend; use keras.optimizers.LossScaleOptimizer"
            )
        self._skip = skip_nonfinite
        self._update_every = int(options.get("update_every", 10))
        self._feed = StepFeed(options)
        self._path = None if state_path is None else Path(state_path)
        self._catch: Catch | None = None
        self._made = 0

    @property
    def monitor(self) -> Monitor | None:
        """The monitor, once training has begun."""
        return self._feed.monitor

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin to watch; where there is a state, the run goes on from it."""
        if self._catch is not None:  # of a training that was broken off
            self._catch.detach()
        backend = keras.backend.backend()
        if self._path is not None and self._path.is_file():
            self._feed.load_state_dict(json.loads(self._path.read_text(encoding="utf-8")))
        model = self.model
        monitor = self._feed.begin(Weights(model) if backend == "torch" else None, None)
        last = monitor._intake.last_step
        self._made = 0 if last is None else last
        if backend == "torch":
            self._catch = TorchCatch(model, monitor, self._update_every, self._skip)
        elif backend == "jax":
            self._catch = JaxCatch(model, monitor, self._update_every)
            model.make_train_function()
        else:
            self._catch = Catch(model, monitor, self._update_every)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Take that Keras begins its means anew."""
        if self._catch is not None:
            self._catch.epoch_begins()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Judge the step before this one, before the gradients of this one are measured."""
        self._feed.flush()
        self.model.stop_training |= self._feed.should_stop

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Take the batches that have come."""
        if self._catch is not None:
            self._catch.batch_ends(self._rate())
            self._take(self._catch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Take what was evaluated; keep the state."""
        if self._catch is None:
            return
        self._catch.settle()
        self._take(self._catch)
        self._feed.add({k: v for k, v in (logs or {}).items() if k.startswith("val_")})
        self._feed.flush()
        if self._path is not None:
            with written_whole(self._path) as aside:
                Path(aside).write_text(json.dumps(self._feed.state_dict()), encoding="utf-8")
        self.model.stop_training |= self._feed.should_stop

    def on_train_end(self, logs: Any = None) -> None:
        """Judge what is left and leave the optimizer as it was."""
        if self._catch is not None:
            self._catch.settle()
            self._take(self._catch)
            self._catch.detach()
            self._catch = None
        self._feed.end()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the monitor, in terms of JSON."""
        return self._feed.state_dict()

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take what `state_dict` gave, now or when the training begins."""
        self._feed.load_state_dict(saved)

    def _rate(self) -> float | None:
        if keras.backend.backend() == "jax":
            return None  # the variables are with the compiled step, which tells the rate itself
        return float(self.model.optimizer.learning_rate)

    def _take(self, catch: Catch) -> None:
        while catch.batches:
            loss, row, extra = catch.batches.popleft()
            self._made += 1
            if isinstance(catch, JaxCatch):
                self._feed.flush()
                catch.probe.row = None if row is None or row.skipped else row
                if row is not None and row.skipped is not None:
                    extra["skipped_step"] = float(row.skipped)
            self._feed.take(self._made, loss, extra)
            if isinstance(catch, JaxCatch) and row is not None and not row.finite:
                self._feed.flush()
        self.model.stop_training |= self._feed.should_stop
