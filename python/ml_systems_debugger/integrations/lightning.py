"""`MonitorCallback`: the monitor in Lightning's `Trainer`."""

from __future__ import annotations

from typing import Any

from ..monitoring import Monitor
from ._feed import StepFeed, missing, rate_of

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback  # type: ignore[assignment, no-redef, unused-ignore]
    except ImportError as error:  # pragma: no cover - said where it is absent
        raise missing("Lightning", "lightning") from error

__all__ = ["MonitorCallback"]


class MonitorCallback(Callback):  # type: ignore[misc, unused-ignore]
    """Watches a training that Lightning's `Trainer` runs.

    Gradients are read before the optimizer's step and before they are clipped,
    the loss from what ``training_step`` returns: of steps made of several batches
    the mean. What validation logs comes with the step behind which it ran.

    The state goes into Lightning's checkpoints, and a resumed training goes on
    from it. With ``action="stop"`` the `Trainer` stops after the batch;
    ``action="raise"`` ends it with `FaultFound`.

    Parameters
    ----------
    **options
        As for `Monitor`, but for the model and the optimizer.

    Attributes
    ----------
    monitor : Monitor or None
        Once training has begun.

    Examples
    --------
    ::

        from ml_systems_debugger.integrations.lightning import MonitorCallback

        trainer = Trainer(callbacks=[MonitorCallback(action="stop")])
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._feed = StepFeed(options)
        self._losses: list[Any] = []
        self._made = 0

    @property
    def monitor(self) -> Monitor | None:
        """The monitor, once training has begun."""
        return self._feed.monitor

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to watch."""
        self._made = trainer.global_step
        # Lightning's optimizers step with a closure, their own hooks would come too early.
        self._feed.begin(pl_module, None)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Measure the gradients."""
        if self.monitor is not None:
            self.monitor.measure()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the step, where this batch made one."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None:
            # Lightning has divided it by the number of batches that make a step.
            self._losses.append(float(loss.detach().mean()) * trainer.accumulate_grad_batches)
        if trainer.global_step == self._made:
            return
        self._made = trainer.global_step
        losses, self._losses = self._losses, []
        rates = rate_of(trainer.optimizers[0] if trainer.optimizers else None)
        self._feed.take(self._made, sum(losses) / len(losses) if losses else None, rates)
        trainer.should_stop |= self._feed.should_stop

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Judge the step before this one with all that became known of it."""
        self._feed.flush()
        trainer.should_stop |= self._feed.should_stop

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Take what validation logged."""
        if not trainer.sanity_checking:
            found = trainer.callback_metrics.items()
            self._feed.add({name: value for name, value in found if name.startswith("val")})

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Judge what is left and take the hooks off."""
        self._feed.end()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the monitor; Lightning puts it into its checkpoints."""
        return self._feed.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what `state_dict` gave; Lightning calls it where a training is resumed."""
        self._feed.load_state_dict(state_dict)
