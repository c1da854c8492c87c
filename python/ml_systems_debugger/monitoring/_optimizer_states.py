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
_FOUND_ANEW = 8  # looks after which places are looked for again, whatever seems to be
_MODES = (FailureMode.NAN_DETECTED, FailureMode.INF_DETECTED)


class _Places:
    """Where the averages of some parameters are; they are taken from there at every look.

    Only the places are kept: an optimizer may well make new tensors at every step.

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
        self._of, self._count, self._tensor = of, len(of), tensor
        self._states = [state for _, state in states]
        self._sizes = list(map(len, self._states))
        self._places = [
            (owner, key, state)
            for owner, state in states
            for key, one in state.items()
            if key != "step" and isinstance(one, tensor) and one.dim() and part_of(one).is_cpu
        ]
        self._sharded = any(part_of(state[key]) is not state[key] for _, key, state in self._places)
        self._norms = np.zeros(len(self._places))
        self._there = np.zeros(len(self._places), np.bool_)
        self._left = _FOUND_ANEW

    def hold(self, of: Any) -> bool:
        """Return whether these are still all places there are, as far as is seen at a glance."""
        self._left -= 1
        return (
            of is self._of
            and len(of) == self._count
            and list(map(len, self._states)) == self._sizes
            and self._left > 0
        )

    def _parts(self) -> tuple[Any, ...]:
        """Return what is there now, of sharded tensors the part on this rank."""
        found = tuple([state.get(key) for _, key, state in self._places])
        return tuple(map(part_of, found)) if self._sharded else found

    def suspect(self) -> bool:
        """Return whether any may hold a bad value: one native pass over all."""
        if not self._places:
            return False
        try:
            total = live_norms(self._parts(), self._norms, self._there)
        except (TypeError, ValueError):  # a type that it does not take
            return True
        return not math.isfinite(total)

    def averages(self) -> Iterator[tuple[str, str, Any]]:
        """Yield parameter, key and the part of every average."""
        for (owner, key, _), part in zip(self._places, self._parts(), strict=True):
            if isinstance(part, self._tensor):
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
        self._places: list[_Places | None] = [None] * _TURNS
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
        if hasattr(optimizer, "register_load_state_dict_post_hook"):
            self._hooks.add(optimizer.register_load_state_dict_post_hook, self._forget)

    def _forget(self, *_: Any) -> None:
        """Let go of states that the optimizer has others for."""
        self._places = [None] * _TURNS

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
            places = self._of(turn)
            if places.suspect():
                for owner, key, one in places.averages():
                    if (owner, key) not in known and floating(one) and bad(one):
                        known.add((owner, key))
                        tell(owner, key, one, self._seen[turn] + 1, step)
            self._seen[turn] = max(step, self._seen[turn])

    def _of(self, turn: int) -> _Places:
        """Return where the averages of a turn are."""
        state, places = self._optimizer.state, self._places[turn]
        if places is None or not places.hold(state):
            states = [(name, state[p]) for name, p in self._parameters[turn] if p in state]
            self._places[turn] = places = _Places(state, states, self._tensor)
        return places

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
