"""`Monitor`: watches a run step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..configuration import Configuration
from ..core import (
    BaseDetector,
    ConfigurationError,
    DebugReport,
    Finding,
    Severity,
    SignalSet,
    check_count,
    check_range,
)
from ..debugger import MLSystemsDebugger
from ._budget import Budget
from ._intake import Intake
from ._judges import Judges, MonitorWarning, failed_results
from ._probe import Probes
from ._recorder import Recorder
from ._troubles import Troubles
from ._watched import watch_model
from .actions import Actions, FaultFound

if TYPE_CHECKING:
    from ._trace_monitor import Tracer
    from .replicas import ReplicaAgreement
    from .tracing import TraceResult

__all__ = ["FaultFound", "Monitor", "MonitorWarning"]


class Monitor:
    """Watches a run live: every step's loss, gradients and parameters, at a cost nobody notices.

    Measuring is one native pass per step; values that are not finite are judged at
    once, everything else by the same detectors that judge finished runs, every
    `every` steps or five seconds, whichever is sooner, and every four steps while
    the loss or the gradients stand out. What is found is given back, and handed to
    `on_finding`.

    With a torch model and optimizer it reads the gradients by itself, right
    before the optimizer uses them::

        monitor = Monitor(model, optimizer)
        for x, y in batches:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            monitor.step(loss=loss)

    Parameters
    ----------
    model, optimizer : torch.nn.Module, torch.optim.Optimizer, optional
    detectors : iterable of BaseDetector, optional
        Default: all registered, as `config` sets them.
    config : Configuration, mapping or path of a TOML file, optional
    every : int
        Steps between two looks of the detectors at most; a value that is not finite
        brings one at once, five seconds since the last one do so too.
    update_every : int
        Steps between two measurements of how far the parameters moved.
    overhead : float, optional
        Part of the time of training that watching may take, as 0.01. Where it takes
        more, movements and then gradients are measured less often, at last judged
        less often (`budget` says how often, and so does the report); the loss always
        is at every step, and gradients too while it stands out or is not finite.
    on_finding : callable, optional
        Gets every new `Finding`. What it raises ends the training with `strict` alone,
        and so does what `save` raises; to end it by a finding there is `action`.
    action : str
        For findings from `at_least` on: ``warn``, ``raise`` (`FaultFound`),
        ``stop`` (sets `should_stop`) or ``none``.
    at_least : Severity or str
    skip_nonfinite : bool
        Leave out the optimizer's step where a gradient is not finite (torch).
    save : callable, optional
        Called once, at the first finding from `at_least` on, to save a checkpoint.
    recorder : path, optional
        Ring file with the last `slots` steps of everything measured; survives
        the process. `mlsd diagnose FILE` reads it.
    slots : int
    replica_id : int or str, optional
        Of this process in a job of several.
    context : mapping, optional
        Facts of the run, for detectors and attribution.
    trace : bool
        Where a step is not finite, replay it and name the operation where that
        begins (torch); see `step`.
    activations : bool
        Measure what every module gives: zeros and spread, by forward hooks (torch).
    replicas : bool or ReplicaAgreement
        With ``torch.distributed``: let the ranks of the job watch each other, for
        parameters that part, missed reductions, stragglers, and ranks that do not
        answer. All ranks make their monitors at the same place.
    strict : bool
        Let errors of the monitor itself end the training. Otherwise they are
        warned of once and the check counts as not run.

    Examples
    --------
    >>> monitor = Monitor(action="none")
    >>> for step in range(200):
    ...     found = monitor.observe(step, loss=1 / (step + 1) if step < 150 else float("nan"))
    ...     if found:
    ...         break
    >>> found[0].failure_mode.value, found[0].onset_step, step
    ('nan_detected', 150, 150)
    """

    def __init__(
        self, model: Any = None, optimizer: Any = None, *,
        detectors: Sequence[BaseDetector] | None = None,
        config: Configuration | Mapping[str, Any] | str | None = None,
        every: int = 128,
        update_every: int = 10,
        overhead: float | None = None,
        on_finding: Callable[[Finding], None] | None = None,
        action: str = "warn",
        at_least: Severity | str = Severity.HIGH,
        skip_nonfinite: bool = False,
        save: Callable[[], None] | None = None,
        recorder: str | None = None,
        slots: int = 256,
        replica_id: int | str | None = None,
        context: Mapping[str, Any] | None = None,
        trace: bool = False,
        activations: bool = False,
        replicas: bool | ReplicaAgreement = False,
        strict: bool = False,
    ) -> None:  # fmt: skip
        check_count(1, every=every, update_every=update_every)
        if overhead is not None:
            check_range("overhead", overhead, 0.0, 1.0, open_low=True)
        self.config = Configuration.of(config)
        self.context = {**self.config.context, **(context or {})}
        self._debugger = MLSystemsDebugger(detectors, config=self.config)
        self._judges = Judges(self._debugger.detectors, self.context, strict)
        self._strict, self._troubles = strict, Troubles(strict)
        failed = self._troubles.failed
        self._actions = Actions(action, Severity(at_least), on_finding, save, failed)
        self.budget = Budget(overhead, every, update_every, skip_nonfinite)
        """What is measured how often, and what that costs."""
        self._recorder = None if recorder is None else Recorder(recorder, slots)
        self.findings: list[Finding] = []
        self.cost = 0.0
        """Seconds that the monitor itself has taken."""
        self._probes = Probes(failed)
        self._intake = Intake(self.budget, self._probes, replica_id)
        self._model, optimizer = watch_model(
            model, optimizer, self,
            skip_nonfinite=skip_nonfinite, activations=activations, replicas=replicas,
        )  # fmt: skip
        self._traced = (model, optimizer)
        self._tracer: Tracer | None = None
        if trace:
            self._tracing()

    @property
    def should_stop(self) -> bool:
        """Whether a finding asked for the run to end (``action="stop"``)."""
        return self._actions.should_stop

    def observe(
        self, step: int, *, loss: Any = None, gradients: Any = None, parameters: Any = None,
        activations: Any = None, **metrics: Any,
    ) -> list[Finding]:  # fmt: skip
        """Take one step; return the findings that are new.

        Parameters
        ----------
        step : int
            Going back marks a restart.
        loss : number or array of one
        gradients, parameters, activations : mapping of name to array, or sequence of arrays
            As the kernels take them, without a copy; of activations zeros and spread, on the CPU.
        metrics : numbers by name
            Names are resolved as those of a log are: ``lr``, ``val_loss``, ...

        Raises
        ------
        FaultFound
            With ``action="raise"``, at a finding from `at_least` on.
        """
        return self._told(self._taken(step, loss, (gradients, parameters, activations), metrics))

    def _taken(
        self, step: int, loss: Any, arrays: tuple[Any, Any, Any], metrics: dict[str, Any]
    ) -> list[Finding]:
        began = time.perf_counter()
        try:
            found = self._observe(step, loss, arrays, metrics)
        except Exception as error:  # noqa: BLE001 - training is not to end for this
            found = []
            self._troubles.failed("observing a step", error)
        found += self._probes.findings(step)
        now = time.perf_counter()
        self.cost += now - began
        if self.budget.limit is not None:
            found += (
                self._troubles.safely("keeping to the budget", lambda: self._weighed(now)) or []
            )
        return found

    def _weighed(self, now: float) -> list[Finding]:
        """Compare the cost with the budget; what is measured or judged less often changes here."""
        buffer = self._intake.buffer
        if not self.budget.step(self.cost, now) or self.budget.every == buffer.capacity:
            return []
        found = self._judged()
        self._intake.buffer.resize(self.budget.every)
        return found

    def step(
        self, loss: Any = None, *, closure: Callable[[], Any] | None = None, **metrics: Any
    ) -> list[Finding]:
        """Take the next step of a watched torch model; return the findings that are new.

        Parameters
        ----------
        loss : number or array of one
        closure : callable, optional
            Computes this step's loss anew: ``lambda: criterion(model(x), y)``. Where
            the step is not finite it is replayed as it began, and the operation
            where that began is the second finding. With ``trace=True`` and no
            closure the model is replayed alone, without the loss function.
        metrics : numbers by name
        """
        step = 0 if self._intake.last_step is None else self._intake.last_step + 1
        own = self._probes.metrics()
        metrics = {**own, **metrics} if metrics else own
        found = self._taken(step, loss, (None, None, None), metrics)
        if closure is not None and self._tracer is None:
            self._tracing()
        tracer = self._tracer
        if tracer is not None:
            more = self._troubles.safely(
                "tracing a step", lambda: tracer.after(step, found, closure)
            )
            found = found + (more or [])
        return self._told(found)

    def measure(self) -> bool:
        """Measure the gradients of the watched model as they are; return whether all are finite.

        For loops that hand their optimizer a closure: its hook runs before the
        backward pass then. The next `step` or `observe` takes what was measured.
        """
        if self._model is None:
            raise ConfigurationError("there is no model whose gradients could be measured")
        self._model.measure()
        return self.gradients_finite

    @property
    def gradients_finite(self) -> bool:
        """Whether the gradients measured for the step that is under way are finite."""
        return self._model is None or not self._model.bad

    def trace(self, closure: Callable[[], Any]) -> TraceResult:
        """Replay a step now, with everything as it is; see `trace_step`.

        What it finds is a finding of this monitor and goes into the report.
        """
        result = self._tracing().replay(self._intake.last_step, closure)
        self._told(self._tracing().told(result))
        return result

    def _tracing(self) -> Tracer:
        if self._tracer is None:
            from ._trace_monitor import Tracer

            if self._traced[0] is None:
                raise ConfigurationError("a trace needs a monitor with a torch model")
            self._tracer = Tracer(*self._traced, self)
        return self._tracer

    def report(self) -> DebugReport:
        """Return a report of the run so far, with causes."""
        self._told(self._arrived(wait=True) + self._judged())
        results = self._judges.conclude()
        if self._tracer is not None:
            results += self._troubles.safely("what was traced", self._tracer.conclusions) or []
        results += self._probes.conclusions()
        results += failed_results({**self._judges.failed, **self._troubles.told})
        made = self._debugger.conclude(results, self.context, strict=self._strict)
        budget = self._troubles.safely("the report of the budget", self.budget.to_dict) or {}
        return replace(made, metadata={**made.metadata, "monitoring": budget})

    def state_dict(self) -> dict[str, Any]:
        """Return JSON terms of all that is remembered, to go into the training checkpoint."""
        self._told(self._arrived(wait=True) + self._judged())
        return {
            "version": 1, "step": self._intake.last_step, "segment": self._intake.segment,
            **self._judges.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave: the run goes on as if it had not been interrupted.

        Raises
        ------
        ValueError
            If it is damaged or of another version.
        """
        if saved.get("version") != 1:
            raise ValueError(f"a monitor's state of version {saved.get('version')!r}, known is 1")
        self._judges.load_state_dict(saved, self.context)
        self._intake.last_step, self._intake.segment = saved["step"], saved["segment"]

    def close(self) -> list[Finding]:
        """Judge what is left, take the hooks off, let the ring file go; return what is new."""
        found = self._told(self._arrived(wait=True) + self._judged() + self._probes.findings(None))
        self._probes.detach()
        if self._tracer is not None:
            self._troubles.safely("taking the trace's hooks off", self._tracer.detach)
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            self._troubles.safely("closing the flight recorder", recorder.close)
        return found

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _observe(
        self, step: int, loss: Any, arrays: tuple[Any, Any, Any], metrics: dict[str, Any]
    ) -> list[Finding]:
        found: list[Finding] = []
        intake = self._intake
        if intake.restarts(step):
            found = self._arrived(wait=True) + self._judged()  # what came before is closed
            intake.restart()
        bad = intake.take(step, loss, *arrays, metrics, self._model)
        if intake.late is None:
            return found + self._put(step, bad)
        intake.late.close(bad)
        # A trace replays the step that was taken last: there is no other to wait for.
        return found + self._arrived(wait=self._tracer is not None)

    def _put(self, step: int, bad: bool) -> list[Finding]:
        """Take that all of a step is in the buffer."""
        self._record(step)
        intake = self._intake
        return self._judged(in_time=intake.in_time) if intake.to_be_judged(bad) else []

    def _arrived(self, *, wait: bool) -> list[Finding]:
        """Take the steps whose numbers have come from a device; with `wait` all there are."""
        found: list[Finding] = []
        try:
            for step, bad in self._intake.arrived(wait):
                found += self._put(step, bad)
        except Exception as error:  # noqa: BLE001 - training is not to end for this
            self._troubles.failed("taking numbers from a device", error)
        return found

    def _judged(self, *, in_time: bool = False) -> list[Finding]:
        """Let the detectors look; `in_time` allows some of them to wait for more steps."""
        buffer = self._intake.buffer
        try:
            if not buffer.steps:
                return self._judges.flush()
            steps = len(buffer.steps) if in_time else None
            return self._judges.update(buffer.drain(), steps=steps)
        except Exception as error:  # noqa: BLE001 - training is not to end for this
            self._intake.renew()
            self._troubles.failed("judging what was measured", error)
            return []

    def _told(self, found: list[Finding]) -> list[Finding]:
        """Hand out findings; the first thing done with them, before anything else is written."""
        if found or self._actions.pending:
            self.findings += found
            self._actions.take(found)
        return found

    def _at_once(self, found: list[Finding]) -> bool:
        """Hand out findings from another thread; return whether the training is to end."""
        self.findings += found
        return self._actions.at_once(found)

    def _record(self, step: int) -> None:
        if self._recorder is None:
            return
        try:
            if left_out := self._recorder.write(step, self._intake.buffer):
                self._troubles.say(
                    "the flight recorder", "is full", f"{left_out} series have no room"
                )
        except Exception as error:  # noqa: BLE001 - likewise
            self._recorder = None
            self._troubles.failed("the flight recorder", error)

    def signals(self) -> SignalSet:
        """Return what the ring file holds, where there is one: the last steps."""
        return SignalSet() if self._recorder is None else self._recorder.signals()
