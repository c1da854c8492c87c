"""Steps whose numbers are still on their way from a device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import SeriesKey
from ._device_stats import wide
from ._devices import Copy, Devices
from ._steps import Bools, Place, StepBuffer

__all__ = ["Late", "LateBuffer"]

Floats = npt.NDArray[np.float64]
Put = Callable[[StepBuffer, dict[Any, Floats]], bool]
Taken = Callable[[StepBuffer, list[Floats]], bool]

_MOST = 64  # steps under way: a device is rarely ten behind


class _Step:
    """What was put at one step, in order, and what it still waits for."""

    def __init__(self, step: int, behind: StepBuffer) -> None:
        self.step, self.behind = step, behind
        self.bad = False
        self.puts: list[Put] = []
        self.parts: dict[Any, list[Any]] = {}  # of each device: vectors to be copied
        self.sizes: dict[Any, int] = {}
        self.copies: dict[Any, Copy] = {}

    def add(self, vector: Any) -> tuple[Any, slice]:
        """Take a vector to be copied; return where its values will be."""
        device = vector.device
        begin = self.sizes.get(device, 0)
        self.sizes[device] = begin + vector.numel()
        self.parts.setdefault(device, []).append(vector.reshape(-1))
        return device, slice(begin, self.sizes[device])


class LateBuffer(StepBuffer):
    """Takes what is put at a step, for the buffer behind it: there once all of it has come."""

    def __init__(self, behind: StepBuffer) -> None:
        super().__init__(1)
        self.behind = behind
        self.open: _Step | None = None
        self._now: list[tuple[SeriesKey, float]] = []

    def begin(self, step: int) -> None:
        """Begin a step."""
        self.open = _Step(step, self.behind)
        self._now = []

    @property
    def _step(self) -> _Step:
        if self.open is None:
            raise RuntimeError("no step was begun")
        return self.open

    def group(self, name: str, keys: Sequence[SeriesKey]) -> Place:
        """Return where the values of `keys` belong in a group of the buffer behind."""
        return self.behind.group(name, keys)

    def put_group(
        self, name: str, where: Place, values: Floats, there: Bools | None = None
    ) -> None:
        """Put values of a group, as they are now."""
        values = np.array(values)
        there = None if there is None else np.array(there)
        behind = self.behind

        def put(buffer: StepBuffer, _: dict[Any, Floats]) -> bool:
            place = where
            if buffer is not behind:  # it was replaced since: the places are others
                keys = behind.keys_of(name, where)
                place = buffer.group(name, keys)
            buffer.put_group(name, place, values, there)
            return False

        self._step.puts.append(put)

    def put(self, key: SeriesKey, value: float) -> None:
        """Put one value that is known."""
        self._now.append((key, value))

        def put(buffer: StepBuffer, _: dict[Any, Floats]) -> bool:
            buffer.put(key, value)
            return False

        self._step.puts.append(put)

    def scalars(self) -> Sequence[tuple[SeriesKey, float]]:
        """Return what was put one by one and is known already."""
        return self._now

    def later(self, vectors: Sequence[Any], taken: Taken) -> None:
        """Hand the values of tensors to `taken` once they are there, in the order of all puts.

        It is called with the buffer behind, whose newest step is this one, and
        returns whether something is to be judged at once.
        """
        step = self._step
        places = [step.add(one) for one in vectors]

        def put(buffer: StepBuffer, came: dict[Any, Floats]) -> bool:
            return taken(buffer, [came[device][where] for device, where in places])

        step.puts.append(put)


class Late:
    """The steps under way, oldest first; none overtakes another.

    Parameters
    ----------
    devices : Devices
    most : int
        Steps under way; beyond that the oldest is waited for (`waited` counts it).
    """

    def __init__(self, devices: Devices, most: int = _MOST) -> None:
        self._devices, self._most = devices, most
        self._steps: deque[_Step] = deque()
        self._buffer: LateBuffer | None = None
        self.waited = 0

    def __len__(self) -> int:
        return len(self._steps)

    def before(self, buffer: StepBuffer) -> LateBuffer:
        """Return what takes a step for `buffer`."""
        if self._buffer is None or self._buffer.behind is not buffer:
            self._buffer = LateBuffer(buffer)
        return self._buffer

    def close(self, bad: bool) -> None:
        """Let the step go that was begun last: its numbers are copied from now on."""
        if self._buffer is None or (step := self._buffer.open) is None:
            return
        self._buffer.open = None
        step.bad = bad
        torch = import_module("torch")
        for device, vectors in step.parts.items():
            kind = wide(device)
            flat = torch.cat([one.to(kind) for one in vectors])
            step.copies[device] = self._devices.copy(device, flat)
        step.parts.clear()
        self._steps.append(step)

    def arrived(self, buffer: Callable[[], StepBuffer], wait: bool) -> Iterator[tuple[int, bool]]:
        """Put the steps that are complete, one by one; yield each and whether to judge it now.

        Parameters
        ----------
        buffer : callable
            Returns the buffer they go to: it may be another after each.
        wait : bool
            For all that are under way.
        """
        while self._steps:
            oldest = self._steps[0]
            if not all(one.query() for one in oldest.copies.values()):
                if not wait and len(self._steps) <= self._most:
                    return
                self.waited += not wait
                for one in oldest.copies.values():
                    one.synchronize()
            self._steps.popleft()
            came = {device: one.values() for device, one in oldest.copies.items()}
            to = buffer()
            to.begin(oldest.step)
            bad = oldest.bad
            for put in oldest.puts:
                bad |= put(to, came)
            yield oldest.step, bad
