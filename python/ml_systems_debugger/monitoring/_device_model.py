"""Gradients and parameters that are on devices: measured there, known a step later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from ..kernels.live import live_moves, live_norms
from ._device_stats import plain, wide
from ._devices import Devices
from ._late import LateBuffer
from ._measures import SAMPLE
from ._steps import StepBuffer

__all__ = ["DeviceGradients", "DeviceModel", "DeviceMoves"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class _Split:
    """Which of some tensors are on which device, and which on the host."""

    def __init__(self, devices: Devices, tensors: Sequence[Any]) -> None:
        self.host: list[int] = []
        self.device: dict[Any, list[int]] = {}
        for at, one in enumerate(tensors):
            if one is None or getattr(one, "is_sparse", False):
                continue
            if devices.holds(one):
                self.device.setdefault(one.device, []).append(at)
            else:
                self.host.append(at)


class DeviceGradients:
    """The norm of every gradient, wherever it is; what is on the host is measured there."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._there: Bools = np.zeros(0, np.bool_)
        self._host: Floats = np.zeros(0)
        self._parts: list[tuple[list[int], Any]] = []  # of each device: places, norms

    def read(self, tensors: Sequence[Any]) -> None:
        """Begin to measure; None and sparse ones are left out. Nothing is waited for."""
        split = _Split(self._devices, tensors)
        self._there = np.zeros(len(tensors), np.bool_)
        self._host = np.zeros(len(tensors))
        if split.host:
            norms = np.zeros(len(split.host))
            live_norms(
                tuple(tensors[at] for at in split.host), norms, np.zeros(len(norms), np.bool_)
            )
            self._host[split.host], self._there[split.host] = norms, True
        self._parts = []
        for device, places in split.device.items():
            norms = self._devices.norms(device, [tensors[at] for at in places], "gradients")
            self._parts.append((places, norms))
            self._there[places] = True

    @property
    def any(self) -> bool:
        """Whether there was a gradient at all."""
        return bool(self._there.any())

    def bad(self) -> Any:
        """Return whether anything is not finite: a tensor of one, float32, on the first device.

        A bool where the host knows: nothing is on a device.
        """
        torch = import_module("torch")
        bad = not bool(np.isfinite(self._host).all())
        if not self._parts:
            return bad
        found = None
        for _, norms in self._parts:
            here = (~torch.isfinite(norms)).any().to(torch.float32)
            if found is None:
                found = here
            else:
                found = torch.maximum(found, here.to(found.device, non_blocking=True))
        return torch.ones_like(found) if bad else found

    def later(
        self, buffer: LateBuffer, numbers: Sequence[Any],
        use: Callable[[StepBuffer, Floats, Bools, list[float]], bool],
    ) -> None:  # fmt: skip
        """Hand the norms [tensors], and which gradients there were, to `use` once they came.

        `numbers`, of which some may be tensors of one on a device, come with them.
        """
        host, there = self._host, self._there
        places = [at for at, _ in self._parts]
        late = [at for at, one in enumerate(numbers) if self._devices.holds(one)]
        known = [0.0 if at in late else float(one) for at, one in enumerate(numbers)]

        def taken(to: StepBuffer, came: list[Floats]) -> bool:
            for where, values in zip(places, came, strict=False):
                host[where] = values
            for at, value in zip(late, came[len(places) :], strict=True):
                known[at] = float(value[0])
            return use(to, host, there, known)

        more = [numbers[at].detach().reshape(1) for at in late]
        buffer.later([*(norms for _, norms in self._parts), *more], taken)


class DeviceMoves:
    """How far parameters moved, by a sample of each that stays on its device.

    Parameters
    ----------
    devices : Devices
    most : int
        Elements of a tensor whose movement stands for all of it.
    """

    def __init__(self, devices: Devices, most: int) -> None:
        self._devices, self._most = devices, most
        self._shape: list[tuple[Any, ...]] = []
        self._samples: dict[Any, Any] = {}
        self._host: Floats = np.zeros((0, 0))

    def later(
        self, buffer: LateBuffer, tensors: Sequence[Any],
        use: Callable[[StepBuffer, Floats, Floats | None], bool],
    ) -> None:  # fmt: skip
        """Begin to measure; hand norms and movements [tensors] to `use` once they are known.

        There are no movements at the first look, nor where a tensor has another size or
        device than at the look before.
        """
        shape = [(one.device, tuple(one.shape)) for one in tensors]
        known, self._shape = shape == self._shape, shape
        split = _Split(self._devices, tensors)
        width = min(self._most, max([1, *(one.numel() for one in tensors)]))
        norms, moved = np.zeros(len(tensors)), np.zeros(len(tensors))
        if split.host:
            found = np.zeros((2, len(split.host)))
            if not known:
                self._host = np.zeros((len(split.host), width))
            arrays = tuple(plain(tensors[at]).contiguous() for at in split.host)
            live_moves(arrays, found[0], self._host, found[1], known=known)
            norms[split.host], moved[split.host] = found
        places, vectors = [], []
        for device, where in split.device.items():
            own = [plain(tensors[at]) for at in where]
            places.append(where)
            vectors.append(self._devices.norms(device, own, "parameters"))
            vectors += self._moved(device, own, width, known)

        def taken(to: StepBuffer, came: list[Floats]) -> bool:
            for k, where in enumerate(places):
                norms[where], away, before = came[3 * k : 3 * k + 3]
                moved[where] = _ratio(away, before)
            return use(to, norms, moved if known else None)

        buffer.later(vectors, taken)

    def _moved(self, device: Any, tensors: Sequence[Any], width: int, known: bool) -> list[Any]:
        """Return, for each tensor, how far its sample is from the last one, and that one's norm."""
        torch = import_module("torch")
        samples = torch.zeros((len(tensors), width), dtype=wide(device), device=device)
        for row, one in zip(samples, tensors, strict=True):
            stride = max(one.numel() // width, 1)
            sample = one.reshape(-1)[::stride][:width]
            row[: sample.numel()].copy_(sample)
        before = self._samples.get(device) if known else None
        self._samples[device] = samples
        if before is None:
            return [samples.new_zeros(len(tensors)) for _ in range(2)]
        norm = torch.linalg.vector_norm
        return [norm(samples - before, dim=1), norm(before, dim=1)]


def _ratio(away: Floats, before: Floats) -> Floats:
    """Return `away / before`; 0 where both are 0, infinite where only the latter is."""
    with np.errstate(all="ignore"):
        still = np.where((away == 0) & (before == 0), 0.0, away + np.inf)
        return np.where(before > 0, away / np.where(before > 0, before, 1.0), still)


class DeviceModel:
    """What a watched model has on devices, and the steps that are left out there."""

    def __init__(self, devices: Devices) -> None:
        self.gradients = DeviceGradients(devices)
        self.moves = DeviceMoves(devices, SAMPLE)
        self._by_scaler: Any = None  # whether the step is left out: a tensor of one, maybe
        self._by_us: Any = None
        self._scale: Any = None
        self._told = False
        self._handle: Any = None

    @property
    def skips(self) -> bool:
        """Whether only the device knows if the step is left out."""
        return self._by_scaler is not None or self._by_us is not None

    def read(self, parameters: Sequence[Any]) -> None:
        """Begin to measure their gradients."""
        self._by_scaler = self._by_us = self._scale = None
        self.gradients.read([one.grad for one in parameters])

    def scaled(self, found_inf: Any, scale: Any) -> None:
        """Take what a gradient scaler left with the optimizer; None where there is none."""
        self._by_scaler, self._scale = found_inf, scale

    def unscaled(self, scale: Any) -> None:
        """Take a loss scale that is to be taken off what was measured."""
        self._scale = scale

    def later(
        self, buffer: LateBuffer, numbers: Sequence[Any],
        use: Callable[[StepBuffer, Floats, Bools, list[float]], bool],
    ) -> None:  # fmt: skip
        """Hand to `use` the norms, which there were, and numbers, once they came.

        The numbers: whether a scaler left the step out, whether we did, the scale,
        and those given.
        """
        own = [
            0.0 if self._by_scaler is None else self._by_scaler,
            0.0 if self._by_us is None else self._by_us,
            1.0 if self._scale is None else self._scale,
        ]
        self.gradients.later(buffer, [*own, *numbers], use)

    def left_out(self, optimizer: Any) -> bool:
        """Let a step with bad gradients be left out; return whether the caller has to do that.

        A fused optimizer is told where the answer will be on the device, as a gradient
        scaler does it; for any other the answer is waited for, as a scaler does too.
        """
        bad = self.gradients.bad()
        if isinstance(bad, bool) or not getattr(optimizer, "_step_supports_amp_scaling", False):
            return bool(bad)
        self._by_us = bad
        if self._by_scaler is None:
            if self._handle is None:
                self._handle = optimizer.register_step_post_hook(self._stepped)
            self._told = True
        else:  # it takes its own back itself
            theirs = self._by_scaler.to(bad.device, non_blocking=True)
            bad = import_module("torch").maximum(bad, theirs)
        optimizer.found_inf = bad
        return False

    def _stepped(self, optimizer: Any, *_: Any) -> None:
        if self._told:
            self._told = False
            del optimizer.found_inf

    def detach(self) -> None:
        """Take the hook off."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
