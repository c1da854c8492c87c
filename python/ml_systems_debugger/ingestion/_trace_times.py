"""What the events of a trace say of each step: how long it, its data and its collectives took."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["StepTimes", "TraceTimes"]

_STEP = re.compile(r"ProfilerStep\s?#?(\d{1,18})$")
_DATA = re.compile(r"enumerate\(DataLoader\)#|dataloader_next\b|\[dataloader\b", re.IGNORECASE)
_KERNEL = re.compile(r"(?:void )?[nr]ccl|mscclpp?|oneccl", re.IGNORECASE)
_CALL = re.compile(r"(?:nccl|gloo|mpi|ucc|xccl|hccl):|c10d::")
_SECONDS = 1e-6  # times of a Chrome trace are microseconds

Floats = npt.NDArray[np.float64]
StepTimes = dict[str, tuple[npt.NDArray[np.int64], Floats]]
"""Quantity -> (steps, values)."""


class _Spans:
    """Intervals in time, by their start and end."""

    def __init__(self) -> None:
        self.starts = array("d")
        self.ends = array("d")

    def add(self, start: float, duration: float) -> None:
        self.starts.append(start)
        self.ends.append(start + duration)

    def __bool__(self) -> bool:
        return len(self.starts) > 0

    def within(self, starts: Floats, ends: Floats) -> Floats:
        """Return how much of each window lies in any of the intervals; overlaps count once."""
        order = np.argsort(np.array(self.starts), kind="stable")
        first = np.array(self.starts)[order]
        last = np.maximum.accumulate(np.array(self.ends)[order])
        opens = np.ones(len(first), bool)
        opens[1:] = first[1:] > last[:-1]
        begin = first[opens]
        end = last[np.append(np.flatnonzero(opens)[1:] - 1, len(last) - 1)]
        sums = np.concatenate([[0.0], np.cumsum(end - begin)])

        def covered(times: Floats) -> Floats:
            at = np.searchsorted(begin, times, "right")
            inside = np.where(at > 0, np.minimum(times, end[at - 1]) - begin[at - 1], 0.0)
            return np.where(at > 0, sums[np.maximum(at - 1, 0)] + inside, 0.0)

        found: Floats = covered(ends) - covered(starts)
        return found


class TraceTimes:
    """Takes the events of one trace, in any order, and keeps what times are made of.

    Steps are ``ProfilerStep#N`` of the PyTorch profiler, or events with a
    ``step_num`` as JAX writes them. Communication is the time in which a kernel
    of NCCL or RCCL ran on the device; where the trace has none, the time in
    calls of ``torch.distributed``. What overlaps counts once.
    """

    def __init__(self) -> None:
        self.steps: dict[int, tuple[float, float]] = {}
        self.device_steps: dict[int, tuple[float, float]] = {}
        self.data = _Spans()
        self.kernels = _Spans()
        self.calls = _Spans()
        self.memory: dict[str, tuple[array[float], array[float]]] = {}
        self.origin: float | None = None
        self.first = math.inf
        self.last = -math.inf
        self.events = 0
        self.malformed = 0

    def add(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take some more events."""
        for event in events:
            self.events += 1
            name = event.get("name")
            if not isinstance(name, str):
                continue
            kind = event.get("ph")
            if kind == "X":
                self._complete(name, event)
            elif name == "[memory]":
                self._memory(event)

    def _complete(self, name: str, event: Mapping[str, Any]) -> None:
        start, duration = event.get("ts"), event.get("dur", 0.0)
        try:
            start, duration = float(start), float(duration)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            self.malformed += 1
            return
        if not (math.isfinite(start) and 0.0 <= duration < math.inf):
            self.malformed += 1
            return
        # From the first event on: sums of times since the boot would lose nanoseconds.
        if self.origin is None:
            self.origin = start
        start -= self.origin
        self.first = min(self.first, start)
        self.last = max(self.last, start + duration)
        if (step := _step_of(name, event)) is not None:
            device = str(event.get("cat", "")).startswith("gpu_")
            steps = self.device_steps if device else self.steps
            known = steps.get(step)
            if known is None or duration > known[1]:
                steps[step] = (start, duration)
        elif _DATA.search(name):
            self.data.add(start, duration)
        elif event.get("cat") == "kernel":
            if _KERNEL.match(name):
                self.kernels.add(start, duration)
        elif _CALL.match(name):
            self.calls.add(start, duration)

    def _memory(self, event: Mapping[str, Any]) -> None:
        arguments = event.get("args")
        if not isinstance(arguments, dict) or not arguments.get("Device Type"):
            return  # 0 is the CPU
        try:
            time = float(event["ts"])
            if self.origin is None:
                self.origin = time
            found = [float(arguments[f"Total {kind}"]) for kind in ("Allocated", "Reserved")]
        except (KeyError, TypeError, ValueError):
            self.malformed += 1
            return
        for name, value in zip(("memory_allocated", "memory_reserved"), found, strict=True):
            times, values = self.memory.setdefault(name, (array("d"), array("d")))
            times.append(time - self.origin)
            values.append(value)

    def times(self) -> StepTimes:
        """Return the quantities that the trace tells of, by step.

        ``step_time``, ``data_time`` and ``comm_time`` in seconds, the peak of
        ``memory_allocated`` and ``memory_reserved`` in bytes. Without marked
        steps, sums over the whole trace stand at step 0.
        """
        out: StepTimes = {}
        numbers, starts, lengths = _windows(self.steps)
        ends = starts + lengths
        if not self.steps:
            if not math.isfinite(self.first):
                return out
            numbers = np.zeros(1, np.int64)
            starts, ends = np.array([self.first]), np.array([self.last])
        else:
            out["step_time"] = numbers, lengths * _SECONDS
        if self.data:
            out["data_time"] = numbers, self.data.within(starts, ends) * _SECONDS
        if self.kernels and self.device_steps:
            there, begun, lasted = _windows(self.device_steps)
            out["comm_time"] = there, self.kernels.within(begun, begun + lasted) * _SECONDS
        elif self.kernels or self.calls:
            spans = self.kernels or self.calls
            out["comm_time"] = numbers, spans.within(starts, ends) * _SECONDS
        for name, (moments, values) in self.memory.items():
            out[name] = _peaks(np.array(moments), np.array(values), numbers, starts, ends)
        return out

    def started(self) -> Floats:
        """Return when each step began, in the microseconds of the trace."""
        return _windows(self.steps)[1] + (self.origin or 0.0)


def _step_of(name: str, event: Mapping[str, Any]) -> int | None:
    found = _STEP.match(name)
    if found:
        return int(found[1])
    arguments = event.get("args")
    number = arguments.get("step_num") if isinstance(arguments, dict) else None
    text = str(number) if isinstance(number, (int, str)) else ""
    return int(text) if text.isdigit() and len(text) < 19 else None


def _windows(steps: Mapping[int, tuple[float, float]]) -> tuple[Any, Floats, Floats]:
    """Return the numbers of the steps, in order, their starts and their lengths."""
    numbers = sorted(steps)
    spans = np.array([steps[n] for n in numbers], np.float64).reshape(-1, 2)
    return np.array(numbers, np.int64), spans[:, 0], spans[:, 1]


def _peaks(
    times: Floats, values: Floats, numbers: Any, starts: Floats, ends: Floats
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return the largest value within each window; windows with none are left out."""
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    low, high = np.searchsorted(times, starts, "left"), np.searchsorted(times, ends, "right")
    held = high > low
    peaks = [values[a:b].max() for a, b in zip(low[held], high[held], strict=True)]
    return numbers[held], np.array(peaks, np.float64)
