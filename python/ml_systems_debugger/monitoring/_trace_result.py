"""What a trace of one step says: the producer, and what only passed it on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..core import FailureMode, Finding, Severity
from ..core.frozen import to_jsonable

__all__ = ["PassedOn", "Producer", "TensorSummary", "TraceResult"]

_SHOWN = 8  # places that only pass it on, in the text
_PLACES = {
    "data": "in the batch",
    "parameter": "in a parameter before the step",
    "optimizer_state": "in the optimizer's state before the step",
}


@dataclass(frozen=True, slots=True)
class TensorSummary:
    """One tensor in numbers; `min`, `max` and `absmax` are over its finite values.

    Parameters
    ----------
    name : str
        The operator's word for it (``self``, ``mat2``, ``grad_output``) or its own.
    dtype : str
        Such as ``float16``.
    shape : tuple of int
    size, nan, posinf, neginf, zeros : int
        Elements, and how many of them are such.
    min, max, absmax : float
        NaN where nothing is finite.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    zeros: int = 0
    min: float = float("nan")
    max: float = float("nan")
    absmax: float = float("nan")

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        bad = [f"{n} {word}" for n, word in (
            (self.nan, "NaN"), (self.posinf, "Inf"), (self.neginf, "-Inf"), (self.zeros, "zero"),
        ) if n]  # fmt: skip
        finite = f"{self.min:.4g} to {self.max:.4g}" if self.min == self.min else "nothing finite"
        return f"{self.name}: {self.dtype} [{shape}], {finite}" + "".join(f", {b}" for b in bad)


@dataclass(frozen=True, slots=True)
class PassedOn:
    """An operation that was handed non-finite values and gave non-finite values."""

    phase: str
    module: str | None
    op: str
    source: str | None

    def __str__(self) -> str:
        where = f" in {self.module}" if self.module else ""
        return f"{self.phase} {self.op}{where}" + (f" ({self.source})" if self.source else "")


@dataclass(frozen=True, slots=True)
class Producer:
    """Where non-finite values came into being.

    Parameters
    ----------
    kind : str
        ``invalid_operation`` (log of 0, 0/0), ``overflow``, ``fully_masked``,
        ``constant``, ``uninitialised_memory``, ``non_finite_input``,
        ``non_finite_parameter``, ``non_finite_buffer``, ``non_finite_optimizer_state``.
    phase : str
        ``forward``, ``backward``, ``data``, ``parameter`` or ``optimizer_state``.
    name : str, optional
        Of the input, the parameter, the buffer or the state.
    module : str, optional
        As `named_modules` calls it, the class's name for the outermost; None
        outside the model, as in a loss function.
    op : str, optional
        Such as ``aten.log``; of data and parameters the first that read them.
    node : str, optional
        In the backward pass, the autograd node: ``SqrtBackward0``.
    source : str, optional
        ``file:line`` of the innermost frame outside torch and the standard
        library; of a backward operation the line of its forward one.
    first_index : tuple of int
        Of the first non-finite element.
    value : str
        ``nan`` or ``inf``: what that tensor holds.
    inputs : tuple of TensorSummary
        As they were before the operation.
    output : TensorSummary, optional
    why : str
        The reason in words.
    by_design : bool
        A loss scale that was too large for this step: the scaler skips it.
    """

    kind: str
    phase: str
    name: str | None = None
    module: str | None = None
    op: str | None = None
    node: str | None = None
    source: str | None = None
    first_index: tuple[int, ...] = ()
    value: str = "nan"
    inputs: tuple[TensorSummary, ...] = ()
    output: TensorSummary | None = None
    why: str = ""
    by_design: bool = False

    @property
    def dtype(self) -> str | None:
        """Of the output, or of the tensor itself where that was handed in; None if unknown."""
        told = self.output or next(iter(self.inputs), None)
        return None if told is None else told.dtype

    def __str__(self) -> str:
        if self.phase in _PLACES:
            index = f" at index {list(self.first_index)}" if self.first_index else ""
            return f"{_PLACES[self.phase]}: {self.name}{index} ({self.why})"
        node = f" of {self.node}" if self.node else ""
        where = f"in module {self.module}" if self.module else "outside the model"
        line = f", {self.source}" if self.source else ""
        return f"{self.phase} pass, {self.op}{node} {where}{line}: {self.why}"


@dataclass(frozen=True, slots=True)
class TraceResult:
    """One step, replayed with every operation checked.

    Parameters
    ----------
    step : int, optional
    loss : float, optional
        Of the replay; None where the closure gave none.
    producer : Producer, optional
        The first; None where loss and gradients are finite and so is the state.
    others : tuple of Producer
        Further ones that reached the loss or a gradient on their own, in order.
    passed_on : tuple of PassedOn
        Between the producer and the loss or the gradients, in order, each once.
    nonfinite_gradients : tuple of str
        Parameters whose gradient is not finite after the replay.
    notes : tuple of str
        What else was seen, such as parameters that hold NaN and were not read.
    operations : int
        How many were checked.
    loss_scale : float, optional
        Of a gradient scaler within the closure.
    """

    step: int | None
    loss: float | None
    producer: Producer | None
    others: tuple[Producer, ...] = ()
    passed_on: tuple[PassedOn, ...] = ()
    nonfinite_gradients: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    operations: int = 0
    loss_scale: float | None = None

    @property
    def found(self) -> bool:
        """Whether anything is not finite."""
        return self.producer is not None

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms."""
        plain: dict[str, Any] = _plain(self)
        return plain

    def to_finding(self, replica_id: int | str | None = None) -> Finding | None:
        """Return the producer as a finding of a report; None where nothing was found."""
        one = self.producer
        if one is None:
            return None
        mode = FailureMode.NAN_DETECTED if one.value == "nan" else FailureMode.INF_DETECTED
        layer = one.name if one.phase in ("parameter", "optimizer_state") else one.module
        told = self.to_dict()
        at = "" if self.step is None else f"step {self.step}: "
        return Finding(
            mode,
            Severity.LOW if one.by_design else Severity.CRITICAL,
            1.0,
            onset_step=self.step,
            layer=layer,
            replica_id=replica_id,
            message=f"{at}non-finite values begin {_in(one)}",
            evidence={
                "producer_kind": one.kind,
                "producer_phase": one.phase,
                "producer_where": _in(one),
                "producer_op": one.op,
                "producer_module": one.module,
                "producer_source": one.source,
                "producer_name": one.name,
                "producer_dtype": one.dtype,
                **{k: told[k] for k in ("producer", "others", "passed_on", "notes", "loss")},
            },
            finding_id=f"trace:{self.step}:{one.phase}:{one.op}:{one.name or one.module}",
        )

    def __str__(self) -> str:
        at = "the step" if self.step is None else f"step {self.step}"
        if self.producer is None:
            lines = [f"{at}: loss and gradients are finite, {self.operations} operations checked"]
        else:
            lines = [f"{at}: non-finite values begin {_in(self.producer)}"]
            lines += [f"    {one}" for one in self.producer.inputs]
            if self.producer.output is not None:
                lines.append(f"    -> {self.producer.output}")
            lines += [f"  also {_in(one)}" for one in self.others]
            lines += [f"  passed on by {one}" for one in self.passed_on[:_SHOWN]]
            if len(self.passed_on) > _SHOWN:
                lines.append(f"  and {len(self.passed_on) - _SHOWN} more")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def _in(one: Producer) -> str:
    return str(one) if one.phase in _PLACES else f"in the {one}"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, TensorSummary | PassedOn | Producer | TraceResult):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return to_jsonable(value)
