"""What a step brings: put into a buffer, and whether it is to be judged at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core import SeriesKey, canonical
from ._budget import Budget
from ._measures import Gradients, Parameters, arrays_of
from ._probe import Probe, Probes
from ._steps import StepBuffer
from ._watch import Watch

__all__ = ["Intake"]

_ALERT_STEPS = 4  # between two looks while loss or gradients stand out


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
        self._chances = 0
        self._names: dict[str, SeriesKey] = {}
        self._watch = Watch()
        self._gradients, self._parameters = Gradients(), Parameters()

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
        self, step: int, loss: Any, gradients: Any, parameters: Any, metrics: Mapping[str, Any],
        model: Probe | None,
    ) -> bool:  # fmt: skip
        """Put a step; return whether it is to be judged now or something in it is not finite.

        Where gradients are handed over, those that `model` measured do not count.
        """
        self.last_step = step
        buffer = self.buffer
        buffer.begin(step)
        bad = False
        if loss is not None:
            bad |= self._put("loss", loss)
        for name, value in metrics.items():
            if value is not None:
                bad |= self._put(name, value)
        if gradients is not None:
            self._chances += 1
            if self.due(self._chances - 1):
                bad |= self._gradients.read(*arrays_of(gradients))
                self._gradients.put(buffer, self._key)
        bad |= self._probes.put(buffer, self._key, model if gradients is not None else None)
        if parameters is not None and step % self._budget.update_every == 0:
            self._parameters.measure(buffer, self._key, *arrays_of(parameters))
        return bad

    @property
    def stands_out(self) -> bool:
        """Whether the last step did: not finite, to be judged at once, or out of the ordinary."""
        return self._close_look

    def to_be_judged(self, bad: bool) -> bool:
        """Return whether the detectors are to look at the buffer after this step."""
        alert = self._watch.alert(self.buffer)
        self._close_look = alert or bad
        return bad or self.buffer.full or (alert and len(self.buffer.steps) % _ALERT_STEPS == 0)

    def due(self, chances: int) -> bool:
        """Return whether gradients are to be measured at the `chances`-th step that has some."""
        return self._close_look or self._budget.due(chances)

    def _put(self, name: str, value: Any) -> bool:
        number = float(value.detach() if hasattr(value, "detach") else value)
        key = self._names.get(name)
        if key is None:
            quantity = canonical(name)
            key = self._names[name] = SeriesKey(
                quantity.name, quantity.split, quantity.layer, self.replica, None, self.segment
            )
        self.buffer.put(key, number)
        return number - number != 0.0  # NaN or infinite

    def _key(self, name: str, layer: str | None) -> SeriesKey:
        return SeriesKey(name, None, layer, self.replica, None, self.segment)
