"""The monitor's own trace: what a step began with is kept until the step is found sound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..core import DetectionResult, FailureMode, Finding
from ._trace_names import parameters_of, variables
from ._trace_restore import RandomState
from ._trace_result import Producer, TraceResult
from .tracing import Before, replayed

if TYPE_CHECKING:
    from .monitor import Monitor

__all__ = ["Tracer"]

_MOST = 8  # traces of one run
_MODES = (FailureMode.NAN_DETECTED, FailureMode.INF_DETECTED)
_Hook = Callable[..., None]
_SLOPE = "the gradient of the loss by the model's output"


def _told_once(what: str) -> Callable[[_Hook], _Hook]:
    """Let errors of a hook not reach the forward pass: the monitor tells them."""

    def guard(hook: _Hook) -> _Hook:
        def guarded(self: Tracer, *given: Any) -> None:
            try:
                hook(self, *given)
            except Exception as error:  # noqa: BLE001 - training is not to end for this
                self._monitor._troubles.failed(what, error)

        return guarded

    return guard


class Tracer:
    """Replays a step that was found not to be finite, as it was when it began.

    Of every step it holds the random generators' state and the inputs of the
    model's first forward pass (references). Where the gradients are bad when the
    optimizer is about to use them, it copies the parameters: a moment later the
    optimizer has spoilt them.
    """

    def __init__(self, model: Any, optimizer: Any, monitor: Monitor) -> None:
        self._model, self._optimizer, self._monitor = model, optimizer, monitor
        self._random: RandomState | None = None
        self._given: tuple[Any, Any] | None = None
        self._outputs: list[Any] = []
        self._slopes: dict[int, Any] = {}
        self._values: dict[Any, Any] = {}
        self._before: Before | None = None
        self._busy = False
        self._bad = False  # gradients of the step under way
        self._sick = False  # the steps since the last trace were bad too: nothing new to name
        self._left = _MOST
        self.results: list[TraceResult] = []
        self._handles = [
            model.register_forward_pre_hook(self._entered, with_kwargs=True, prepend=True),
            model.register_forward_hook(self._left_forward),
        ]
        if optimizer is not None:
            self._handles.append(optimizer.register_step_pre_hook(self._stepping))

    def detach(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @_told_once("keeping a step's inputs for a trace")
    def _entered(self, model: Any, args: Any, kwargs: Any) -> None:
        if self._given is None and not self._busy and model.training:
            self._random = RandomState()
            self._given = (args, kwargs)

    @_told_once("keeping a step's outputs for a trace")
    def _left_forward(self, model: Any, _: Any, output: Any) -> None:
        if self._busy or not model.training or self._outputs:
            return
        self._outputs = list(_outputs(output))
        for at, one in enumerate(self._outputs):
            one.register_hook(lambda slope, at=at: self._slopes.__setitem__(at, slope))
        # Only where they come in the output is needed: the graph is not to live longer.
        self._outputs = [one.detach() for one in self._outputs]

    def _stepping(self, *_: Any) -> None:
        try:
            held = self._monitor._model
            if self._busy or held is None or not held.bad:
                return
            self._bad = True
            if self._left and not self._sick:
                parameters = parameters_of(self._model, self._optimizer)
                self._before = Before(parameters, self._optimizer)
                self._values = {p: p.detach().clone() for p in parameters.values()}
        except Exception as error:  # noqa: BLE001 - training is not to end for this
            self._monitor._troubles.failed("keeping the parameters for a trace", error)

    def after(
        self, step: int, found: Sequence[Finding], closure: Callable[[], Any] | None
    ) -> list[Finding]:
        """Take what was found at a step; return what a trace of it finds."""
        try:
            wrong = any(f.failure_mode in _MODES and f.onset_step == step for f in found)
            self._sick = self._sick and self._bad
            if not wrong or self._sick or not self._left:
                return []
            self._left -= 1
            self._sick = self._bad
            return self.told(self.replay(step, closure))
        except Exception as error:  # noqa: BLE001 - training is not to end for this
            self._monitor._troubles.failed("tracing a step", error)
            return []
        finally:
            self._bad = False
            self._given = self._random = self._before = None
            self._outputs, self._slopes, self._values = [], {}, {}

    def told(self, result: TraceResult) -> list[Finding]:
        """Keep a result; return its finding."""
        self.results.append(result)
        finding = result.to_finding(self._monitor._intake.replica)
        return [] if finding is None else [finding]

    def replay(self, step: int | None, closure: Callable[[], Any] | None) -> TraceResult:
        """Replay the step, with the closure or else with the model's own inputs."""
        torch = import_module("torch")
        run = closure if closure is not None else self._own
        # The closure's own words come before the places of the model's inputs.
        inputs = {**(dict(variables(closure)) if closure is not None else {}), **self._inputs()}
        values, self._busy = self._values, True
        try:
            for p, value in values.items():
                values[p], p.data = p.data, value
            result = replayed(
                self._model, run, self._optimizer, inputs, step, self._random, self._before
            )
        finally:
            with torch.no_grad():
                for p, value in values.items():
                    p.data = value
            self._busy = False
        return result if closure is not None else _outside(result)

    def conclusions(self) -> list[DetectionResult]:
        """Return what was traced, for the report."""
        found = [
            f
            for r in self.results
            if (f := r.to_finding(self._monitor._intake.replica)) is not None
        ]
        return [
            DetectionResult.of_findings(
                mode, "trace", [f for f in found if f.failure_mode is mode], judged=("loss",)
            )
            for mode in _MODES
            if any(f.failure_mode is mode for f in found)
        ]

    def _inputs(self) -> Mapping[str, Any]:
        if self._given is None:
            return {}
        args, kwargs = self._given
        named = {f"input {at}": one for at, one in enumerate(args)} | dict(kwargs)
        return named | {_SLOPE: list(self._slopes.values())}

    def _own(self) -> None:
        """Run the model on what it was given, and back from what came back."""
        if self._given is None:
            raise RuntimeError(
                "the model ran no forward pass in training mode that can be replayed; "
                "give monitor.step a closure"
            )
        args, kwargs = self._given
        outputs = list(_outputs(self._model(*args, **kwargs)))
        pairs = [(outputs[at], slope) for at, slope in self._slopes.items() if at < len(outputs)]
        if pairs:
            import_module("torch").autograd.backward(
                [one for one, _ in pairs], [slope for _, slope in pairs]
            )


def _outputs(value: Any) -> Any:
    from ._trace_tensors import tensors_in

    return (one for one in tensors_in(value) if one.requires_grad)


def _outside(result: TraceResult) -> TraceResult:
    """Say of a replay of the model alone what it can know: not which line of the loss it was."""
    one = result.producer
    if one is None or one.phase != "data" or not str(one.name).startswith(_SLOPE):
        return result
    why = "what comes back from the loss is not finite; give monitor.step a closure to see its line"
    outside = Producer("invalid_operation", "backward", value=one.value, op="the loss", why=why)
    return replace(result, producer=outside)
