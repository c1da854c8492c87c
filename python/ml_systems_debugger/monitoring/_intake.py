"""What a step brings: put into a buffer, and whether it is to be judged at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..core import SeriesKey, canonical
from ._activations import Spreads
from ._budget import Budget
from ._device_model import DeviceGradients, DeviceMoves
from ._devices import Devices
from ._late import Late, LateBuffer
from ._measures import SAMPLE, Gradients, Parameters, arrays_of
from ._probe import Probe, Probes
from ._steps import Bools, Floats, StepBuffer
from ._watch import Watch

__all__ = ["Intake"]

_ALERT_STEPS = 4  # between two looks while loss or gradients stand out
_SECONDS = 5.0
"""Between two looks of all detectors at most: where steps take so long a look costs nothing that
anybody would notice."""


class Intake:
    """Puts loss, metrics, gradients, parameters and what probes measured into a buffer.

    Parameters
    ----------
    budget : Budget
    probes : Probes
    replica_id : int or str, optional
        Of everything that is put.
    """

    def __init__(self, budget: Budget, probes: Probes, replica_id: int | str | None) -> None:
        self._budget, self._probes, self.replica = budget, probes, replica_id
        self.buffer = StepBuffer(budget.every)
        self.last_step: int | None = None
        self.segment = 0
        self._close_look = False
        self._since = time.monotonic()  # when all detectors looked last
        self._all = False
        self._chances = 0
        self._names: dict[str, SeriesKey] = {}
        self._watch = Watch()
        self._gradients, self._parameters = Gradients(), Parameters()
        self._activations: Spreads | None = None
        self.devices = Devices()
        self.late: Late | None = None
        """Where numbers come from a device: steps are put once theirs have come."""
        self._device_gradients = DeviceGradients(self.devices)
        self._device_moves = DeviceMoves(self.devices, SAMPLE)

    def restarts(self, step: int) -> bool:
        """Return whether the run went back to an earlier step."""
        return self.last_step is not None and step <= self.last_step

    def restart(self) -> None:
        """Begin a further segment; all that came before has been judged."""
        self.segment += 1
        self._names.clear()
        self.renew()

    def renew(self) -> None:
        """Begin with an empty buffer."""
        self.buffer = StepBuffer(self._budget.every)

    def take(
        self, step: int, loss: Any, gradients: Any, parameters: Any, activations: Any,
        metrics: Mapping[str, Any], model: Probe | None,
    ) -> bool:  # fmt: skip
        """Put a step; return whether it is to be judged now or something in it is not finite.

        Where gradients are handed over, those that `model` measured do not count.
        """
        self.last_step = step
        if self.late is None:
            self._look_for_devices(loss, gradients, parameters, metrics)
        buffer = self.buffer if self.late is None else self.late.before(self.buffer)
        buffer.begin(step)
        bad = False
        if loss is not None:
            bad |= self._put(buffer, "loss", loss)
        for name, value in metrics.items():
            if value is not None:
                bad |= self._put(buffer, name, value)
        if gradients is not None:
            self._chances += 1
            if self.due(self._chances - 1):
                bad |= self._put_gradients(buffer, *arrays_of(gradients))
        bad |= self._probes.put(buffer, self._key, model if gradients is not None else None)
        if activations is not None:
            bad |= self._put_activations(buffer, *arrays_of(activations))
        if parameters is not None and step % self._budget.update_every == 0:
            self._put_parameters(buffer, *arrays_of(parameters))
        return bad

    @property
    def in_time(self) -> bool:
        """Whether detectors of what takes long need not look at the last step yet.

        They do where it is not finite, to be judged at once or out of the ordinary,
        and where all looked last some seconds ago.
        """
        return not self._all

    def begin_late(self) -> None:
        """From now on numbers may come from a device: put every step once its own have come."""
        if self.late is None:
            self.late = Late(self.devices)

    def arrived(self, wait: bool) -> Iterator[tuple[int, bool]]:
        """Put the steps whose numbers have come; yield each, and whether to judge it now.

        With `wait` all of them, and what is not there is waited for.
        """
        if self.late is not None:
            yield from self.late.arrived(lambda: self.buffer, wait)

    def _look_for_devices(
        self, loss: Any, gradients: Any, parameters: Any, metrics: Mapping[str, Any]
    ) -> None:
        holds = self.devices.holds
        for value in (loss, *metrics.values()):
            if type(value) is not float and holds(value):
                self.begin_late()
        for given in (gradients, parameters):
            if given is not None and any(map(holds, arrays_of(given)[1])):
                self.begin_late()

    def to_be_judged(self, bad: bool) -> bool:
        """Return whether the detectors are to look at the buffer after this step."""
        alert = self._watch.alert(self.buffer)
        self._close_look = alert or bad
        now = time.monotonic()
        waited = now - self._since >= _SECONDS
        self._all = alert or bad or waited
        due = alert and len(self.buffer.steps) % _ALERT_STEPS == 0
        if not (bad or waited or due or self.buffer.full):
            return False
        if self._all:
            self._since = now
        return True

    def due(self, chances: int) -> bool:
        """Return whether gradients are to be measured at the `chances`-th step that has some."""
        return self._close_look or self._budget.due(chances)

    def _put_gradients(
        self, buffer: StepBuffer, names: Sequence[str], arrays: Sequence[Any]
    ) -> bool:
        if not isinstance(buffer, LateBuffer):
            bad = self._gradients.read(names, arrays)
            self._gradients.put(buffer, self._key)
            return bad
        self._device_gradients.read(arrays)

        def use(to: StepBuffer, norms: Floats, there: Bools, _: list[float]) -> bool:
            self._gradients.take(names, norms, there)
            self._gradients.put(to, self._key)
            return self._gradients.bad

        self._device_gradients.later(buffer, (), use)
        return False

    def _put_activations(
        self, buffer: StepBuffer, names: Sequence[str], arrays: Sequence[Any]
    ) -> bool:
        if self._activations is None or self._activations.names != tuple(names):
            self._activations = Spreads(names)
        for at, out in enumerate(arrays):
            self._activations.measure(at, out.detach() if hasattr(out, "detach") else out)
        return self._activations.put(buffer, self._key)

    def _put_parameters(
        self, buffer: StepBuffer, names: Sequence[str], arrays: Sequence[Any]
    ) -> None:
        if not isinstance(buffer, LateBuffer):
            self._parameters.measure(buffer, self._key, names, arrays)
            return

        def use(to: StepBuffer, norms: Floats, moved: Floats | None) -> bool:
            self._parameters.take(to, self._key, names, norms, moved)
            return False

        self._device_moves.later(buffer, arrays, use)

    def _put(self, buffer: StepBuffer, name: str, value: Any) -> bool:
        key = self._key_of(name)
        if isinstance(buffer, LateBuffer) and self.devices.holds(value):

            def taken(to: StepBuffer, came: list[Floats]) -> bool:
                number = float(came[0][0])
                to.put(key, number)
                return number - number != 0.0

            buffer.later([value.detach().reshape(1)], taken)
            return False
        if type(value) is not float:
            value = float(value.item() if hasattr(value, "detach") else value)
        number: float = value
        buffer.put(key, number)
        return number - number != 0.0  # NaN or infinite

    def _key_of(self, name: str) -> SeriesKey:
        key = self._names.get(name)
        if key is None:
            quantity = canonical(name)
            key = self._names[name] = SeriesKey(
                quantity.name, quantity.split, quantity.layer, self.replica, None, self.segment
            )
        return key

    def _key(self, name: str, layer: str | None) -> SeriesKey:
        return SeriesKey(name, None, layer, self.replica, None, self.segment)
