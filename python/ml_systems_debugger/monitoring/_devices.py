"""Devices beside the CPU: what is on one, and copies from it that nobody waits for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

from ._device_stats import norms_of, plain

__all__ = ["Copy", "Devices"]

_LOG = logging.getLogger("ml_systems_debugger.monitoring")


class Copy(Protocol):
    """A copy to the host that is under way."""

    def query(self) -> bool:
        """Return whether it is there; never waits."""

    def synchronize(self) -> None:
        """Wait for it."""

    def values(self) -> Any:
        """Return what was copied, float64 [n]; only once it is there, and once."""


class _EventCopy:
    """A copy into pinned memory, with an event behind it on the device's own stream."""

    def __init__(self, device: Any, flat: Any, free: list[Any]) -> None:
        torch = import_module("torch")
        self._n, self._free = flat.numel(), free
        fit = [at for at, one in enumerate(free) if one.numel() >= self._n]
        if fit:
            self._room = free.pop(fit[0])
        else:  # some room to grow: pinning memory is dear
            self._room = torch.empty(self._n + 64, dtype=flat.dtype, pin_memory=True)
        self._room[: self._n].copy_(flat, non_blocking=True)
        self._event = torch.get_device_module(device).Event()
        self._event.record()

    def query(self) -> bool:
        return bool(self._event.query())

    def synchronize(self) -> None:
        self._event.synchronize()

    def values(self) -> Any:
        found = self._room[: self._n].double().numpy().copy()
        self._free.append(self._room)
        return found


class Devices:
    """Says what is on a device, measures it there, and copies numbers from it."""

    def __init__(self) -> None:
        self._free: dict[Any, list[Any]] = {}
        self._fused: dict[Any, Any] = {}

    def holds(self, value: Any) -> bool:
        """Return whether a value is a tensor on a device other than the CPU."""
        return getattr(value, "is_cpu", True) is False

    def copy(self, device: Any, flat: Any) -> Copy:
        """Begin to copy a vector of this device; nothing is waited for."""
        return _EventCopy(device, flat, self._free.setdefault(device, []))

    def norms(self, device: Any, tensors: Sequence[Any], use: str) -> Any:
        """Return the norm of each tensor of one device, on it; see `norms_of`.

        In one pass by Triton where that is installed and the device is NVIDIA's or AMD's,
        else by torch's own operations. `use` keeps the tables of different sets apart.
        """
        if self.capturing(device):
            raise RuntimeError(
                "gradients cannot be measured while a CUDA graph is captured; "
                "leave optimizer.step() out of the graph, or measure before it"
            )
        tensors = [plain(one) for one in tensors]
        fused = self._fused.get((device, use), self)
        if fused is self:  # not tried yet
            fused = self._fused[device, use] = self.fused(device)
        if fused is not None:
            try:
                return fused(tensors)[0]
            except Exception as error:  # noqa: BLE001 - whatever a compiler may lack
                _LOG.warning("Triton is of no use here, torch measures instead: %r", error)
                self._fused[device, use] = None
        return norms_of(tensors)

    def capturing(self, device: Any) -> bool:
        """Return whether work is being recorded rather than done."""
        torch = import_module("torch")
        return device.type == "cuda" and bool(torch.cuda.is_current_stream_capturing())

    def fused(self, device: Any) -> Callable[[Sequence[Any]], Any] | None:
        """Return the kernel for a device, where there is one."""
        if device.type != "cuda":
            return None
        try:
            from ._device_kernel import FusedStats
        except ImportError:
            return None
        return FusedStats()
