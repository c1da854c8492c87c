"""A torch model and its optimizer, watched through the optimizer's own step hook."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._clipping import Factor, listen, unlisten
from ._device_model import DeviceModel
from ._late import LateBuffer
from ._measures import Gradients, MakeKey, Parameters, part_of
from ._probe import Probe
from ._standing import LOOKS, Standing, Starved
from ._steps import Bools, Floats, StepBuffer

if TYPE_CHECKING:
    from .monitor import Monitor

__all__ = ["TorchModel", "bare_optimizer"]


class TorchModel(Probe):
    """Reads the gradients where the optimizer is about to use them.

    They are measured within its hook: after it the loop may clear them. Where torch
    clips them first, they are measured right before that: what is judged is what the
    backward pass gave, and what clipping left is put beside it. A loss scale that the
    optimizer itself takes off is taken off here too, and gradients of a step that
    the scaler leaves out are not judged: that is how it finds its scale.

    Of sharded parameters (`DTensor`, as FSDP2 makes them) the part that is on this
    rank is measured, under the name of the whole; one of which nothing is here is not.
    """

    what = "the watched model"

    def __init__(self, model: Any, optimizer: Any, monitor: Monitor, skip_nonfinite: bool) -> None:
        found = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._sharded = any(part_of(p) is not p for _, p in found)
        if self._sharded:
            found = [(n, p) for n, p in found if part_of(p).numel()]
        self._names = tuple(name for name, _ in found)
        self._parameters = tuple(parameter for _, parameter in found)
        self._model, self._optimizer = model, bare_optimizer(optimizer)
        # Accelerate's wrapper knows the loss scale, and whether it left a step out.
        scaled = getattr(optimizer, "scaler", None) is not None
        self._wrapper = optimizer if scaled and hasattr(optimizer, "step_was_skipped") else None
        self._monitor = monitor
        self._skip = skip_nonfinite
        self._gradients, self._moved = Gradients(), Parameters()
        self._standing, self._starved = Standing(), Starved()
        self._device: DeviceModel | None = None
        self._measured = False
        self._fresh = True
        self._looks = self._chances = 0
        self._skipped, self._tells_skips = False, skip_nonfinite
        self._clips: list[tuple[slice | list[int], Factor]] = []
        self._waits = False  # measured for a step that the optimizer has not made yet
        self._handles = []
        self._on_optimizer: dict[str, Any] = getattr(self._optimizer, "__dict__", {})
        if optimizer is not None:
            self._handles.append(self._optimizer.register_step_pre_hook(self.measure))
            listen(self)

    def measure(self, *_: Any) -> None:
        """Measure the gradients as they are now, at the cost of the monitor."""
        self._guarded(self._step)

    def clipping(self, parameters: Sequence[Any], factor: Factor) -> None:
        """Measure before the first clipping of a step; keep what it multiplies, and by what."""

        def take() -> None:
            own = self._parameters
            places: slice | list[int]
            if len(own) == len(parameters) and all(own[k] is parameters[k] for k in (0, -1)):
                places = slice(None)
            else:  # of a part of the model
                given = set(map(id, parameters))
                places = [at for at, one in enumerate(own) if id(one) in given]
                if not places:
                    return
            if not self._waits:
                self._measure()
                self._waits = True
            self._clips.append((places, factor))

        if parameters:
            self._guarded(take)

    def _step(self) -> None:
        """Take that the optimizer is about to make its step."""
        if not self._waits:
            self._measure()
        self._waits = False
        # What a gradient scaler leaves on the optimizer: `getattr` is slow where there is nothing.
        left = self._on_optimizer
        found, scale = left.get("found_inf"), left.get("grad_scale")
        device = self._device
        if device is not None:
            device.scaled(found, scale)
        elif found is not None and float(found):  # a fused optimizer leaves the step out itself
            self.left_out()
            return
        elif scale is not None:
            self.unscale(float(scale))
        if self._skip and self._measured and self._to_leave_out():
            self._skipped = True
            for parameter in self._parameters:
                parameter.grad = None  # optimizers pass over parameters without a gradient

    def _to_leave_out(self) -> bool:
        if self._device is not None:
            return self._device.left_out(self._optimizer)
        return self._gradients.bad

    def _measure(self) -> None:
        self._chances += 1
        self._skipped = False
        self._clips = []
        self._measured = self._fresh = self._monitor._intake.due(self._chances - 1)
        if self._measured:
            self._read()

    def _read(self) -> None:
        if self._device is None:
            try:
                if self._sharded:
                    self._gradients.read(self._names, _parts([p.grad for p in self._parameters]))
                    # A zero here says nothing of the whole: rows of an embedding may well rest.
                    self._gradients.there[self._gradients.norms == 0] = False
                else:
                    self._gradients.read(self._names, self._parameters, "grad")
            except TypeError:
                if not any(map(self._monitor._intake.devices.holds, self._parameters)):
                    raise
                self.use_devices()
        if self._device is not None:
            self._device.read(self._parameters)

    def use_devices(self) -> None:
        """Measure on the devices that the parameters are on, from now on."""
        self._device = DeviceModel(self._monitor._intake.devices)
        self._monitor._intake.begin_late()

    def unscale(self, scale: float) -> None:
        """Take a loss scale off what was measured."""
        if self._device is not None:
            self._device.unscaled(scale)
        else:
            self._gradients.unscale(scale)

    def left_out(self) -> None:
        """Take that the step was left out for a loss scale that was too large."""
        self._measured = False
        self._skipped = self._tells_skips = True

    def _guarded(self, call: Callable[[], None]) -> None:
        monitor = self._monitor
        began = time.perf_counter()
        try:
            call()
        except Exception as error:  # noqa: BLE001 - training is not to end for this
            self._measured = False
            monitor._troubles.failed("measuring gradients", error)
        monitor.cost += time.perf_counter() - began

    def put(self, buffer: StepBuffer, key: MakeKey) -> bool:
        """Put what the hook measured; return whether anything was not finite."""
        if self._waits:  # clipped, and then no step of the optimizer: the scaler left it out
            self._waits = False
            self.left_out()
        if self._wrapper is not None:
            self._skipped, self._tells_skips = bool(self._wrapper.step_was_skipped), True
        device = self._device
        if self._tells_skips and not (self._measured and device is not None and device.skips):
            buffer.put(key("skipped_step", None), float(self._skipped))
            self._skipped = False
        if not self._measured:
            return False
        self._measured = False
        if device is not None:
            if device.gradients.any:
                self._put_later(buffer, key, device)
            return False
        if not self._gradients.any:
            return False
        self._gradients.put(buffer, key)
        if self._clips:
            factors = [factor() for _, factor in self._clips]
            buffer.put(key("clipped_grad_norm", None), self._clipped(self._clips, factors))
        now, at = self._gradients.bad, self._chances
        seems = False
        if at % LOOKS == 0 or self._standing.looking:
            norms = self._gradients.norms
            now |= self._starved.now(norms, self._gradients.there, at)
            seems = self._standing.seems(self._here(), norms, at, self._replaced)
        if at > self._looks or seems:
            self._moved.measure(buffer, key, self._names, self._here())
            self._looks = at + self._monitor.budget.update_every - 1
            now |= self._standing.measured(self._moved.moved, at)
        return now

    def _put_later(self, buffer: StepBuffer, key: MakeKey, device: DeviceModel) -> None:
        """Put what is still to come from the devices, once it has: as `put` does it at once."""
        if not isinstance(buffer, LateBuffer):
            raise TypeError("numbers of a device need a buffer that waits for them")
        at, clips, skips = self._chances, self._clips, device.skips
        moves = at > self._looks or self._standing.looking
        if moves:
            self._looks = at + self._monitor.budget.update_every - 1
        left_out = False

        def gradients(to: StepBuffer, norms: Floats, there: Bools, numbers: list[float]) -> bool:
            nonlocal left_out
            by_scaler, by_us, scale, *totals = numbers
            left_out = by_scaler > 0
            self._tells_skips |= left_out
            if skips and self._tells_skips:
                to.put(key("skipped_step", None), float(left_out or by_us > 0))
            if left_out:
                return False
            self._gradients.take(self._names, norms / scale, there)
            self._gradients.put(to, key)
            if clips:
                factors = [one(total) for (_, one), total in zip(clips, totals, strict=True)]
                to.put(key("clipped_grad_norm", None), self._clipped(clips, factors))
            now = self._gradients.bad | self._starved.now(self._gradients.norms, there, at)
            self._standing.seems(self._parameters, self._gradients.norms, at, self._replaced)
            return now

        def moved(to: StepBuffer, norms: Floats, moved: Floats | None) -> bool:
            if left_out:  # nothing moved: the next step is looked at instead
                self._looks = 0
                return False
            self._moved.take(to, key, self._names, norms, moved)
            return self._standing.measured(self._moved.moved, at)

        device.later(buffer, [factor.total_norm for _, factor in clips], gradients)
        if moves:
            device.moves.later(buffer, self._parameters, moved)

    def _clipped(
        self, clips: Sequence[tuple[slice | list[int], Factor]], factors: Sequence[float]
    ) -> float:
        """Return the norm of all gradients as clipping left them."""
        if len(clips) == 1 and isinstance(clips[0][0], slice):
            return self._gradients.total * factors[0]
        left = self._gradients.norms.copy()
        for (places, _), factor in zip(clips, factors, strict=True):
            left[places] *= factor
        return float(np.linalg.norm(left))

    def _here(self) -> tuple[Any, ...]:
        """Return the parameters, of sharded ones the part that is here."""
        return _parts(self._parameters) if self._sharded else self._parameters

    def _replaced(self) -> npt.NDArray[np.bool_]:
        """Take the parameters that the model has now; return which are others than before."""
        has = dict(self._model.named_parameters())
        before = self._parameters
        self._parameters = tuple(
            has.get(name, old) for name, old in zip(self._names, before, strict=True)
        )
        pairs = zip(self._parameters, before, strict=True)
        return np.array([now is not old for now, old in pairs], np.bool_)

    @property
    def bad(self) -> bool:
        """Whether the gradients of the step that is under way are not finite."""
        if self._measured and self._device is not None:
            return bool(self._device.gradients.bad())  # waits: whoever asks wants to know now
        return self._measured and self._gradients.bad

    @property
    def left_bad(self) -> bool:
        """Whether the gradients that were measured last were not finite."""
        return self._gradients.bad

    @property
    def fresh(self) -> bool:
        """Whether those of the last step of the optimizer were measured."""
        return self._fresh

    def metrics(self) -> dict[str, Any]:
        """Return the learning rate of the first group, and the loss scale where it is known."""
        found: dict[str, Any] = {}  # tensors too, where a device holds them
        if self._optimizer is not None and self._optimizer.param_groups:
            found["lr"] = self._optimizer.param_groups[0]["lr"]
        if self._wrapper is not None:
            scaler = self._wrapper.scaler
            # The public way waits for the device.
            held = getattr(scaler, "_scale", None) if self._device is not None else None
            found["loss_scale"] = float(scaler.get_scale()) if held is None else held
        return found

    def detach(self) -> None:
        """Take the hooks off."""
        unlisten(self)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._device is not None:
            self._device.detach()


def _parts(tensors: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(map(part_of, tensors))


def bare_optimizer(optimizer: Any) -> Any:
    """Return the optimizer within the wrappers of accelerators."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer
