"""`MonitorCallback`: the monitor in Hugging Face's `Trainer`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from ..core.files import written_whole
from ..monitoring import Monitor, MonitorWarning
from ._feed import StepFeed, missing, rate_of

try:
    from transformers import TrainerCallback
except ImportError as error:  # pragma: no cover - said where it is absent
    raise missing("transformers", "transformers") from error

__all__ = ["MonitorCallback"]

_STATE = "mlsd_monitor.json"


class MonitorCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Watches a training that Hugging Face's `Trainer` runs.

    Gradients are read where the optimizer uses them, the loss of every step
    where the model returns it: of steps made of several batches the mean.
    The `Trainer` logs a loss that is not finite as 0.0 unless
    ``logging_nan_inf_filter=False``; what is judged here is the loss itself,
    and the setting is warned of, since everything that reads the log is misled.

    The state goes into every checkpoint that the `Trainer` saves, and a resumed
    training goes on from it. With ``action="stop"`` the `Trainer` stops after
    the step; ``action="raise"`` ends it with `FaultFound`.

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

        from ml_systems_debugger.integrations.transformers import MonitorCallback

        trainer = Trainer(model, args, train_dataset=data, callbacks=[MonitorCallback()])
    """

    def __init__(self, **options: Any) -> None:
        self._feed = StepFeed(options)
        self._losses: list[Any] = []
        self._hook: Any = None

    @property
    def monitor(self) -> Monitor | None:
        """The monitor, once training has begun."""
        return self._feed.monitor

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None,
        **_: Any,
    ) -> None:  # fmt: skip
        """Begin to watch; a resumed training goes on where its checkpoint was saved."""
        saved = Path(args.output_dir, f"checkpoint-{state.global_step}", _STATE)
        if state.global_step and saved.is_file():
            self._feed.load_state_dict(json.loads(saved.read_text(encoding="utf-8")))
        self._feed.begin(model, optimizer)
        self._hook = model.register_forward_hook(self._returned)
        if getattr(args, "logging_nan_inf_filter", False):
            warnings.warn(
                "logging_nan_inf_filter writes 0.0 for a loss that is not finite: everything that "
                "reads the log is misled; set logging_nan_inf_filter=False",
                MonitorWarning,
                stacklevel=2,
            )

    def _returned(self, model: Any, _: Any, output: Any) -> None:
        loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
        if loss is not None and model.training:
            self._losses.append(loss.detach())

    def on_step_end(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any
    ) -> Any:
        """Take the step."""
        losses, self._losses = [float(one.mean()) for one in self._losses], []
        loss = sum(losses) / len(losses) if losses else None
        self._feed.take(state.global_step, loss, rate_of(optimizer))
        return self._ended(control)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Take what was evaluated; the rest of a log is known better."""
        found = {k: v for k, v in (logs or {}).items() if k.startswith(("eval_", "test_"))}
        self._feed.add({k: v for k, v in found.items() if not k.endswith("_per_second")})

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Judge the step before this one with all that became known of it."""
        self._feed.flush()
        return self._ended(control)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Put the state of the monitor into the checkpoint."""
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        if folder.is_dir() and state.is_world_process_zero:
            with written_whole(folder / _STATE) as aside:
                Path(aside).write_text(json.dumps(self._feed.state_dict()), encoding="utf-8")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Judge what is left and take the hooks off."""
        if self._hook is not None:
            self._hook.remove()
        self._feed.end()

    def _ended(self, control: Any) -> Any:
        control.should_training_stop |= self._feed.should_stop
        return control
