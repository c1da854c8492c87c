"""`Probe`: something that measures by itself, beside what the loop hands to the monitor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..core import DetectionResult, Finding
from ._measures import MakeKey
from ._steps import StepBuffer

__all__ = ["Probe", "Probes"]


class Probe:
    """Measures a part of the run at every step; a monitor has any number of them.

    What one raises does not end the training: it is told once, the probe is left
    out from then on, and the report names it as a check that did not run.
    """

    what = "a probe"
    """What it measures, for the message when that fails."""
    failed = False
    """Whether it raised, and is asked no more."""

    def metrics(self) -> dict[str, Any]:
        """Return numbers of the step that is being closed, by their names in logs.

        Numbers, or tensors of one on a device.
        """
        return {}

    def put(self, buffer: StepBuffer, key: MakeKey) -> bool:  # noqa: ARG002
        """Put what was measured at the newest step; return whether that is to be judged at once.

        `key` makes the key of a quantity, and a layer of it, on this replica.
        """
        return False

    def findings(self, step: int) -> list[Finding]:  # noqa: ARG002
        """Return what it has found by itself that is new at the end of a step."""
        return []

    def drain(self) -> list[Finding]:
        """Return what it found that is new, at the end of the run."""
        return []

    def conclusions(self) -> list[DetectionResult]:
        """Return what it found that is no matter of series, for the report."""
        return []

    def detach(self) -> None:
        """Let go of the model and of everything else; may be called twice."""


class Probes:
    """The probes of a monitor; each is left out where it fails.

    Parameters
    ----------
    failed : callable
        Told what failed, and the error; raises it again where that is asked for.
    """

    def __init__(self, failed: Callable[[str, Exception], None]) -> None:
        self._all: tuple[Probe, ...] = ()  # another one where that changes: loops go on
        self._asked: dict[str, tuple[Probe, ...]] = {}  # by the method that they are asked by
        self._over: tuple[Probe, ...] = ()  # left out
        self._failed = failed
        self._are(())

    def add(self, probe: Probe) -> None:
        """Ask it too from now on."""
        self._are((*self._all, probe))

    def _are(self, probes: tuple[Probe, ...]) -> None:
        self._all = probes
        self._asked = {
            name: tuple(one for one in probes if _has_own(one, name))
            for name in ("metrics", "put", "findings")
        }

    def __iter__(self) -> Iterator[Probe]:
        return iter(self._all)

    def metrics(self) -> dict[str, Any]:
        """Return the numbers of all."""
        found: dict[str, Any] = {}
        for probe in self._asked["metrics"]:
            try:
                found.update(probe.metrics())
            except Exception as error:  # noqa: BLE001, PERF203 - training is not to end for this
                self.leave_out(probe, error)
        return found

    def put(self, buffer: StepBuffer, key: MakeKey, but: Probe | None = None) -> bool:
        """Let all put what they measured, `but` one; return whether it is to be judged now."""
        now = False
        for probe in self._asked["put"]:
            if probe is but:
                continue
            try:
                now |= probe.put(buffer, key)
            except Exception as error:  # noqa: BLE001 - likewise
                self.leave_out(probe, error)
        return now

    def findings(self, step: int | None) -> list[Finding]:
        """Return what is new of all, at the end of a step; at the end of the run with None."""
        found: list[Finding] = []
        for probe in self._asked["findings"] if step is not None else self._all:
            try:
                found += probe.drain() if step is None else probe.findings(step)
            except Exception as error:  # noqa: BLE001, PERF203 - likewise
                self.leave_out(probe, error)
        return found

    def conclusions(self) -> list[DetectionResult]:
        """Return what all found."""
        found: list[DetectionResult] = []
        for probe in self._all:
            try:
                found += probe.conclusions()
            except Exception as error:  # noqa: BLE001, PERF203 - likewise
                self.leave_out(probe, error)
        return found

    def detach(self) -> None:
        """Let all let go."""
        for probe in (*self._all, *self._over):
            try:
                probe.detach()
            except Exception as error:  # noqa: BLE001, PERF203 - likewise
                self.leave_out(probe, error)

    def leave_out(self, probe: Probe, error: Exception) -> None:
        """Ask it no more, and say once what it raised."""
        probe.failed = True
        if probe not in self._over:
            self._over = (*self._over, probe)
        self._are(tuple(one for one in self._all if one is not probe))
        self._failed(probe.what, error)


def _has_own(probe: Probe, method: str) -> bool:
    """Return whether it does not leave a method as it is, which does nothing."""
    bound = getattr(probe, method)
    return getattr(bound, "__func__", bound) is not getattr(Probe, method)
