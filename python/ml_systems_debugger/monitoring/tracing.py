"""`trace_step`: one step replayed with every operation checked, to name where NaN begins."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from ..core import ConfigurationError, MissingDependencyError
from ._trace_names import Names, nonfinite_states, parameters_of, variables
from ._trace_record import Recorder
from ._trace_restore import RandomState, Untouched
from ._trace_result import PassedOn, Producer, TensorSummary, TraceResult
from ._trace_source import Locator
from ._trace_tensors import bad, first_bad, floating, summary
from ._trace_walk import walk

__all__ = [
    "Before",
    "PassedOn",
    "Producer",
    "RandomState",
    "TensorSummary",
    "TraceResult",
    "replayed",
    "trace_step",
]


def trace_step(
    model: Any,
    closure: Callable[[], Any],
    optimizer: Any = None,
    *,
    inputs: Mapping[str, Any] | None = None,
    step: int | None = None,
    random_state: RandomState | None = None,
) -> TraceResult:
    """Replay one training step and name the operation where non-finite values begin.

    Every operation of the forward and the backward pass is checked, inputs and
    outputs. From a loss or a gradient that is not finite it walks back to the
    first operation with finite inputs; what lies off that way, as -Inf in an
    attention mask, is left alone. Afterwards parameters, gradients, buffers,
    the optimizer and the random generators are as they were before.

    Parameters
    ----------
    model : torch.nn.Module
    closure : callable
        Runs the forward pass and returns the loss, a tensor of one element;
        where it does not call `backward`, that is done for it. It may also do
        all of a step, as closures for `Optimizer.step` do. Gradients begin
        as None.
    optimizer : torch.optim.Optimizer, optional
        So that its state is looked at, and put back.
    inputs : mapping of name to tensors, optional
        The batch, by name. Without it the variables that the closure reads
        give the names.
    step : int, optional
        For the report.
    random_state : RandomState, optional
        The random generators at the beginning of the step, so that dropout
        drops the same; default: as they are now.

    Returns
    -------
    TraceResult

    Raises
    ------
    TypeError
        If the closure returns something that is no loss.
    MissingDependencyError
        Without torch.

    Notes
    -----
    The step runs several times slower than usual, on one rank: gradients are
    not reduced over replicas meanwhile.

    Examples
    --------
    >>> import torch
    >>> model, x = torch.nn.Linear(2, 1), torch.tensor([[0.5, float("inf")]])
    >>> result = trace_step(model, lambda: model(x).mean(), step=7)
    >>> result.producer.phase, result.producer.name, result.producer.first_index
    ('data', 'x', (0, 1))
    """
    if not callable(closure):
        raise ConfigurationError(f"closure is a function without arguments, got {closure!r}")
    return replayed(model, closure, optimizer, inputs or {}, step, random_state, None)


class Before:
    """What of parameters and optimizer is not finite before a step: in words, and the states."""

    def __init__(self, parameters: Mapping[str, Any], optimizer: Any) -> None:
        self.notes = []
        for name, p in parameters.items():
            if floating(p) and bad(p):
                index = list(first_bad(p))
                self.notes.append(f"parameter {name} is not finite at index {index}")
        self.states: list[tuple[str, Producer, bool]] = []
        for owner, key, tensor, first in nonfinite_states(parameters, optimizer):
            told = summary(f"{owner}.{key}", tensor)
            self.notes.append(f"optimizer state {key} of {owner} is not finite")
            state = Producer(
                "non_finite_optimizer_state", "optimizer_state", f"{owner}.{key}",
                first_index=first_bad(tensor), value="nan" if told.nan else "inf", inputs=(told,),
                why=f"{told.nan} NaN, {told.posinf + told.neginf} Inf of {told.size} values",
            )  # fmt: skip
            self.states.append((owner, state, first))

    def first(self, producers: list[Producer], notes: list[str]) -> list[Producer]:
        """Put a state of the optimizer first that was bad before the parameter it updates."""
        if not producers:
            return [one for _, one, _ in self.states]
        first = producers[0]
        if first.phase != "parameter":
            return producers
        for owner, one, came_first in self.states:
            if owner == first.name and came_first:
                return [one, *producers]
        if any(owner == first.name for owner, _, _ in self.states):
            notes.append(f"all states of {first.name} are bad: an earlier gradient was not finite")
        return producers


def replayed(
    model: Any,
    closure: Callable[[], Any],
    optimizer: Any,
    inputs: Mapping[str, Any],
    step: int | None,
    random_state: RandomState | None,
    before: Before | None,
) -> TraceResult:
    """Do what `trace_step` says; `before` is what was wrong when the step began, if known."""
    try:
        torch = import_module("torch")
    except ImportError as error:
        raise MissingDependencyError("tracing a step needs torch") from error
    parameters = parameters_of(model, optimizer)
    names = Names(model, parameters, optimizer)
    for name, value in (*inputs.items(), *variables(closure)):
        names.batch(name, value)
    before = before or Before(parameters, optimizer)
    untouched = Untouched(model, parameters, optimizer)
    if random_state is not None:
        random_state.put_back()
    locator = Locator(model)
    recorder = Recorder(names, locator, untouched.protect)
    try:
        with contextlib.ExitStack() as stack:
            for context in _quiet(torch, model):
                stack.enter_context(context)
            stack.enter_context(recorder.mode())
            loss = _loss_of(torch, closure())
            if loss is not None and loss.requires_grad and not locator.went_back:
                loss.backward()
        targets: set[int] = set()
        finite = loss is None or not bad(loss)
        if not finite:
            targets.update(recorder.lineage.writers(loss))
        wrong = _bad_gradients(parameters, recorder, targets)
    finally:
        locator.close()
        untouched.put_back()
    producers, passed_on = walk(recorder.operations, targets)
    if not producers and (wrong or not finite):
        producers = [_unseen("the loss" if not finite else f"the gradient of {wrong[0]}")]
    notes = list(before.notes)
    producers = before.first(producers, notes)
    scale = recorder.loss_scale
    if finite and scale is not None and scale > 1:
        producers = [_scaled(one, scale) for one in producers]
    return TraceResult(
        step,
        None if loss is None else float(loss.detach()),
        producers[0] if producers else None,
        tuple(producers[1:]),
        tuple(passed_on),
        tuple(wrong),
        tuple(notes),
        recorder.count,
        scale,
    )


def _bad_gradients(
    parameters: Mapping[str, Any], recorder: Recorder, targets: set[int]
) -> list[str]:
    """Return the parameters whose gradient is bad; add who wrote those gradients to `targets`."""
    wrong = []
    for name, p in parameters.items():
        gradient = p.grad
        if gradient is not None and gradient.is_sparse:
            gradient = gradient._values()
        if gradient is not None and floating(gradient) and bad(gradient):
            wrong.append(name)
            targets.update(recorder.lineage.writers(gradient))
    return wrong


def _loss_of(torch: Any, given: Any) -> Any:
    """Return the loss as a tensor of one element, or None."""
    found = given
    if isinstance(given, Mapping) and "loss" in given:
        found = given["loss"]
    elif not isinstance(given, torch.Tensor) and hasattr(given, "loss"):
        found = given.loss
    if found is None:
        return None
    if isinstance(found, float):
        return torch.tensor(found)
    if not isinstance(found, torch.Tensor) or found.numel() != 1:
        shape = f" of shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else ""
        raise TypeError(f"the closure returns the loss, one number, got {type(found)}{shape}")
    return found


def _quiet(torch: Any, model: Any) -> Iterator[Any]:
    """Yield contexts: as written, not as compiled; no talk with other replicas."""
    yield torch.enable_grad()
    if hasattr(torch.compiler, "set_stance"):
        yield torch.compiler.set_stance("force_eager")
    for module in model.modules():
        if hasattr(module, "no_sync"):
            yield module.no_sync()


def _unseen(name: str) -> Producer:
    why = "it was made outside of torch's operations, where nothing can be seen"
    return Producer("non_finite_input", "data", name, why=why)


def _scaled(one: Producer, scale: float) -> Producer:
    if one.kind != "overflow" or one.phase != "backward":
        return one
    why = f"{one.why}; the loss scale of {scale:g} was too large, its scaler skips such a step"
    return replace(one, why=why, by_design=True)
