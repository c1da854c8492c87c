"""What of the monitor itself did not work."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

from ._judges import MonitorWarning

__all__ = ["Troubles"]

_T = TypeVar("_T")


class Troubles:
    """Says each of them once; they count as checks that did not run.

    Parameters
    ----------
    strict : bool
        Raise what was raised: the training may end for it.
    """

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self.told: dict[str, str] = {}
        """What did not work, and why."""

    def failed(self, what: str, error: Exception) -> None:
        """Take that something raised."""
        if self._strict:
            raise error
        self.say(what, "failed and is left out", f"{type(error).__name__}: {error}")

    def say(self, what: str, happened: str, why: str) -> None:
        """Warn, where nothing was said of `what` before."""
        if what not in self.told:
            self.told[what] = why
            warnings.warn(f"{what} {happened}: {why}", MonitorWarning, stacklevel=5)

    def safely(self, what: str, call: Callable[[], _T]) -> _T | None:
        """Return what `call` gives; None where it fails, and say so."""
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - training is not to end for this
            self.failed(what, error)
            return None
