"""Hooks on a model and its optimizer that do not end the training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._probe import Probe, Probes

__all__ = ["Hooks"]


class Hooks:
    """The hooks of a probe: where one raises the probe is left out, and none does anything more.

    They come off at `detach` only, and not where one fails: torch goes through its live
    list of an optimizer's hooks while they run, and raises where that becomes another.

    Parameters
    ----------
    probe : Probe
    probes : Probes
        Of the monitor that it belongs to.
    """

    def __init__(self, probe: Probe, probes: Probes) -> None:
        self._probe, self._probes = probe, probes
        self._handles: list[Any] = []

    def add(
        self, register: Callable[..., Any], hook: Callable[..., object], **options: Any
    ) -> None:
        """Hang `hook` where `register` does: ``module.register_forward_hook``, for one.

        What it returns is not handed on: these hooks look, and change nothing.
        """
        probe, probes = self._probe, self._probes

        def guarded(*given: Any) -> None:
            if probe.failed:
                return
            try:
                hook(*given)
            except Exception as error:  # noqa: BLE001 - training is not to end for this
                probes.leave_out(probe, error)

        self._handles.append(register(guarded, **options))

    def detach(self) -> None:
        """Take them off; may be called twice."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
