"""Gradients that are carried over from one step of the optimizer to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core import SeriesKey
from ._devices import Devices
from ._hooks import Hooks
from ._late import LateBuffer
from ._measures import MakeKey
from ._probe import Probe
from ._steps import StepBuffer

if TYPE_CHECKING:
    from .monitor import Monitor

__all__ = ["CarriedGradients"]

_NEEDED = 3  # steps in a row: what the detector asks for


class _Followed:
    """One parameter: whether its gradient was cleared since the optimizer's last step.

    Nothing is read while all is well: that the tensor is another one, or was
    written to since the optimizer's step (its version), says that somebody
    cleared it. Only where it was not are its values looked at; on a device, the
    answer stays there.
    """

    def __init__(self, name: str, parameter: Any, devices: Devices, hooks: Hooks) -> None:
        self.name, self.parameter, self._devices = name, parameter, devices
        self._left: Any = None  # the gradient as the optimizer's step left it
        self._version = -1
        self.backwards = 0
        self._carried: Any = False  # or a tensor of one
        hooks.add(parameter.register_hook, self._entered)

    def stepped(self) -> None:
        """Take the end of an optimizer's step."""
        self._left = self.parameter.grad
        self._version = -1 if self._left is None else self._left._version
        self.backwards, self._carried = 0, False

    def _entered(self, _: Any) -> None:
        """Look at the gradient as it is right before a backward pass adds to it."""
        now = self.parameter.grad
        if self.backwards == 0:
            same = now is not None and now is self._left and now._version == self._version
            self._carried = same and self._something(now)
        elif self._carried is not False:  # cleared between two backward passes: all is well
            self._carried = now is not None and self._something(now) & self._carried
        self.backwards += 1

    def _something(self, gradient: Any) -> Any:
        any_value = gradient.any()
        return any_value if self._devices.holds(gradient) else bool(any_value)

    @property
    def carried(self) -> Any:
        """Whether what the optimizer is about to use holds what it used before.

        A tensor of one where only a device knows.
        """
        return self._carried


class CarriedGradients(Probe):
    """Says of every step of the optimizer whether its gradients hold those of the step before.

    Two parameters of the optimizer stand for all. Several backward passes for one
    step are well as long as the first finds nothing, or something that was cleared;
    so are gradients that a backward pass in between leaves and that are cleared
    before the next one. Nothing is said of a step with no backward pass before it.
    """

    what = "looking for gradients that are carried over"

    def __init__(self, model: Any, optimizer: Any, monitor: Monitor) -> None:
        self._model, self._optimizer, self._monitor = model, optimizer, monitor
        self._followed: list[_Followed] | None = None
        self._said: dict[str, Any] = {}
        self._runs: dict[str, int] = {}
        self._hooks = Hooks(self, monitor._probes)
        self._hooks.add(optimizer.register_step_pre_hook, self._stepping)
        self._hooks.add(optimizer.register_step_post_hook, self._stepped)

    def _follow(self) -> list[_Followed]:
        stepped = {id(p) for group in self._optimizer.param_groups for p in group["params"]}
        there = [
            (name, p) for name, p in self._model.named_parameters()
            if id(p) in stepped and p.grad is not None and p.requires_grad
            and not p.grad.is_sparse
        ]  # fmt: skip
        # The smallest of either half: their values are read where something is wrong.
        devices = self._monitor._intake.devices
        halves = there[: len(there) // 2], there[len(there) // 2 :]
        return [
            _Followed(*min(half, key=lambda pair: int(pair[1].numel())), devices, self._hooks)
            for half in halves
            if half
        ]

    def _stepping(self, *_: Any) -> None:
        if self._followed is not None:
            self._said = {one.name: one.carried for one in self._followed if one.backwards}

    def _stepped(self, *_: Any) -> None:
        if not self._followed:
            self._followed = self._follow()
        for one in self._followed:
            one.stepped()

    def put(self, buffer: StepBuffer, key: MakeKey) -> bool:
        """Put 1 where gradients were carried over, else 0; judged at the third in a row."""
        now = False
        holds = self._monitor._intake.devices.holds
        for name, carried in self._said.items():
            own = key("carried_gradient", name)
            if isinstance(buffer, LateBuffer) and holds(carried):
                self._later(buffer, own, name, carried)
            else:
                now |= self._put(buffer, own, name, float(carried))
        self._said = {}
        return now

    def _put(self, buffer: StepBuffer, key: SeriesKey, name: str, carried: float) -> bool:
        self._runs[name] = run = self._runs.get(name, 0) + 1 if carried else 0
        buffer.put(key, carried)
        return run == _NEEDED

    def _later(self, buffer: LateBuffer, key: SeriesKey, name: str, carried: Any) -> None:
        buffer.later(
            [carried.reshape(1)], lambda to, came: self._put(to, key, name, float(came[0][0]))
        )

    def detach(self) -> None:
        """Take the hooks off."""
        self._hooks.detach()
        self._followed = []
