"""The CPU in the part of another device: what it gives comes late, and reading it early is seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ml_systems_debugger.monitoring._device_stats import norms_of, plain
from ml_systems_debugger.monitoring._devices import Devices


class LateCopy:
    """A copy that is there once `lag` further ones were begun, or it was waited for."""

    def __init__(self, flat: Any, lag: int, all_copies: list[Any]) -> None:
        self._flat, self._due, self._all = flat.clone(), len(all_copies) + lag, all_copies
        self.waited = False

    def query(self) -> bool:
        return len(self._all) > self._due

    def synchronize(self) -> None:
        self.waited = True

    def values(self) -> Any:
        there = self.waited or self.query()
        return self._flat.numpy() if there else np.full(len(self._flat), 12345.678)


class CpuAsDevice(Devices):
    """Says that tensors are on a device, all or those that `which` picks.

    What is copied from it is there `lag` steps later.
    """

    def __init__(self, lag: int = 1, which: Callable[[Any], bool] = lambda _: True) -> None:
        super().__init__()
        self._lag, self._which = lag, which
        self.copies: list[LateCopy] = []

    def holds(self, value: Any) -> bool:
        return isinstance(value, torch.Tensor) and self._which(value)

    def copy(self, device: Any, flat: Any) -> LateCopy:
        self.copies.append(LateCopy(flat, self._lag, self.copies))
        return self.copies[-1]

    def norms(self, device: Any, tensors: Sequence[Any], use: str) -> Any:
        return norms_of([plain(one) for one in tensors])


def on_device(monitor: Any, devices: Devices | None = None) -> Any:
    """Let a monitor take the tensors of the CPU as those of a device."""
    intake = monitor._intake
    intake.devices = intake._device_gradients._devices = devices or CpuAsDevice()
    intake._device_moves._devices = intake.devices
    if monitor._model is not None:
        monitor._model.use_devices()
    return monitor
