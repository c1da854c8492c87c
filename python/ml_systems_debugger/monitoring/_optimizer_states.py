"""What the optimizer keeps of every parameter, looked at for values that are not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import DetectionResult, FailureMode, Finding, Severity
from ..kernels.live import live_norms
from ._hooks import Hooks
from ._measures import part_of
from ._probe import Probe
from ._trace_tensors import bad, first_bad, floating, summary

if TYPE_CHECKING:
    from ._torch_model import TorchModel
    from .monitor import Monitor

__all__ = ["OptimizerStates"]

_TURNS = 16  # looks within which every state is looked at once
_EVERY = 2  # steps from one to the next
_MODES = (FailureMode.NAN_DETECTED, FailureMode.INF_DETECTED)


class _Held:
    """The averages of some parameters, and what they are read from.

    Parameters
    ----------
    of : mapping
        All states of the optimizer: another one after `load_state_dict`.
    states : list of (str, mapping)
        Name of each parameter, and its states by their keys.
    tensor : type
        What counts as an average.
    """

    def __init__(self, of: Any, states: list[tuple[str, Any]], tensor: Any) -> None:
        self.of, self._states, self._count = of, states, len(of)
        self._entries = [
            (owner, state, key, one)
            for owner, state in states
            for key, one in state.items()
            if key != "step" and isinstance(one, tensor) and one.dim()
        ]
        self._sizes = [len(state) for _, state in states]
        parts = [part_of(one) for _, _, _, one in self._entries]
        self._here = [at for at, part in enumerate(parts) if part.is_cpu]
        self.parts = tuple(parts[at] for at in self._here)
        """Of each average what is on this rank, of those on the CPU."""
        self._norms = np.zeros(len(self.parts))
        self._there = np.zeros(len(self.parts), np.bool_)

    def same(self, of: Any) -> bool:
        """Return whether the optimizer's states are still these very tensors."""
        return (
            of is self.of
            and len(of) == self._count
            and [len(state) for _, state in self._states] == self._sizes
            and all(state.get(key) is one for _, state, key, one in self._entries)
        )

    def suspect(self) -> bool:
        """Return whether any may hold a bad value: one native pass over all."""
        try:
            total = live_norms(self.parts, self._norms, self._there)
        except (TypeError, ValueError):  # a type that it does not take
            return True
        return not math.isfinite(total)

    def named(self) -> Iterator[tuple[str, str, Any]]:
        """Yield parameter, key and the part of every average."""
        for at, part in zip(self._here, self.parts, strict=True):
            owner, _, key, _ = self._entries[at]
            yield owner, key, part


class OptimizerStates(Probe):
    """Finds averages and other states of the optimizer that are not finite.

    A square of a finite gradient overflows, a load or a write damages an average: the
    loss and the gradients do not show it at that step, some of it never (a second
    moment that is infinite stops its weight for good). Every second step a sixteenth of
    the parameters has its turn, on the CPU; where gradients are not finite all
    states are looked at before the optimizer takes them, since whatever is bad then
    was bad before. What such gradients themselves leave in the states is not told: it
    is the gradients' finding. States of one number, as ``step``, are no averages.
    """

    what = "looking at the optimizer's states"

    def __init__(self, model: Any, optimizer: Any, watched: TorchModel, monitor: Monitor) -> None:
        self._optimizer, self._watched, self._monitor = optimizer, watched, monitor
        self._tensor = import_module("torch").Tensor
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._parameters = [named[turn::_TURNS] for turn in range(_TURNS)]
        self._last: list[_Held | None] = [None] * _TURNS
        self._seen = [-1] * _TURNS  # the last step at which each turn's states were looked at
        self._turn = self._steps = 0
        self._step = -1
        self._unmeasured = -1  # the last step of which nobody knows whether its gradients were bad
        self._bad = False
        self._known: set[tuple[str, str]] = set()
        self._new: list[Finding] = []
        self._all: list[Finding] = []
        self._hooks = Hooks(self, monitor._probes)
        self._hooks.add(optimizer.register_step_pre_hook, self._stepping)

    def _stepping(self, *_: Any) -> None:
        watched = self._watched
        if watched._device is not None or not watched.bad:
            return
        began = time.perf_counter()
        self._bad = True
        self._look(range(_TURNS), self._step, self._tell)
        self._monitor.cost += time.perf_counter() - began

    def findings(self, step: int) -> list[Finding]:
        """Look at the states whose turn it is, as the optimizer left them at this step."""
        if self._watched._device is not None:
            return []
        if step <= self._step:  # the run went back
            self._seen, self._unmeasured = [step - 1] * _TURNS, -1
        self._step = step
        if not self._watched.fresh:
            self._unmeasured = step
        if self._bad or self._watched.left_bad:
            self._look(range(_TURNS), step, lambda *_: None)
        else:
            self._steps = (self._steps + 1) % _EVERY
            if self._steps == 0:
                self._look((self._turn,), step, self._tell)
                self._turn = (self._turn + 1) % _TURNS
        self._bad = False
        new, self._new = self._new, []
        return new

    def _look(
        self, turns: Iterable[int], step: int, tell: Callable[[str, str, Any, int, int], None]
    ) -> None:
        known = self._known
        for turn in turns:
            held = self._held(turn)
            if held.parts and held.suspect():
                for owner, key, one in held.named():
                    if (owner, key) not in known and floating(one) and bad(one):
                        known.add((owner, key))
                        tell(owner, key, one, self._seen[turn] + 1, step)
            self._seen[turn] = max(step, self._seen[turn])

    def _held(self, turn: int) -> _Held:
        """Return the averages of a turn, as they were found before where they are the same."""
        state, last = self._optimizer.state, self._last[turn]
        if last is None or not last.same(state):
            states = [(name, state[p]) for name, p in self._parameters[turn] if p in state]
            self._last[turn] = last = _Held(state, states, self._tensor)
        return last

    def _tell(self, owner: str, key: str, state: Any, low: int, high: int) -> None:
        told, name = summary(f"{owner}.{key}", state), f"{owner}.{key}"
        mode = _MODES[0] if told.nan else _MODES[1]
        sure = self._unmeasured < low  # all gradients since then were measured, and finite
        kind = "non_finite_optimizer_state" if told.nan else "overflow"
        began = f"at step {high}" if low >= high else f"between steps {low} and {high}"
        finding = Finding(
            mode, Severity.HIGH, 1.0, onset_step=high, layer=owner,
            replica_id=self._monitor._intake.replica,
            message=f"the optimizer's {key} of {owner} is not finite: {told.nan} NaN, "
                    f"{told.posinf + told.neginf} Inf of {told.size} values, {began}",
            evidence={
                "state": key, "index": first_bad(state), "nan": told.nan,
                "inf": told.posinf + told.neginf, "size": told.size,
                "onset_low": min(low, high), "onset_high": high,
                **({"producer_kind": kind, "producer_phase": "optimizer_state",
                    "producer_where": f"in the optimizer's {key} of {owner}",
                    "producer_name": name, "producer_dtype": told.dtype} if sure else {}),
            },
            finding_id=f"optimizer_state:{high}:{name}",
        )  # fmt: skip
        self._new.append(finding)
        self._all.append(finding)

    def drain(self) -> list[Finding]:
        """Look at all states once more, at the end of the run."""
        if self._watched._device is None and not self._watched.left_bad and self._step >= 0:
            self._look(range(_TURNS), self._step, self._tell)
        new, self._new = self._new, []
        return new

    def conclusions(self) -> list[DetectionResult]:
        """Return what was found."""
        return [
            DetectionResult.of_findings(
                mode, "optimizer_state", [f for f in self._all if f.failure_mode is mode],
                judged=("optimizer_state",),
            )
            for mode in _MODES
            if any(f.failure_mode is mode for f in self._all)
        ]  # fmt: skip

    def detach(self) -> None:
        """Take the hook off."""
        self._hooks.detach()
