"""What happens when something is found."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Sequence

from ..core import ConfigurationError, Finding, Severity

__all__ = ["ACTIONS", "Actions", "FaultFound"]

_LOG = logging.getLogger("ml_systems_debugger.monitoring")

ACTIONS = ("warn", "raise", "stop", "none")


class FaultFound(RuntimeError):  # noqa: N818 - it is no error of the monitor
    """Raised by the monitor where it was asked to; has the `findings`."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("; ".join(f.message for f in findings))


class Actions:
    """Hands findings out and does what was asked for the grave ones.

    What `on_finding` or `save` raise goes to `failed`: the rest is done all the same.
    """

    def __init__(
        self,
        action: str,
        at_least: Severity,
        on_finding: Callable[[Finding], None] | None,
        save: Callable[[], None] | None,
        failed: Callable[[str, Exception], None],
    ) -> None:
        if action not in ACTIONS:
            raise ConfigurationError(f"action is one of {', '.join(ACTIONS)}, got {action!r}")
        self.action, self.at_least = action, at_least
        self.should_stop = False
        self._pending: list[Finding] = []
        self._on_finding, self._save, self._failed = on_finding, save, failed

    @property
    def pending(self) -> bool:
        """Whether something said from another thread is still to be raised."""
        return bool(self._pending)

    def take(self, found: Sequence[Finding]) -> None:
        """Say what is grave, call back, save; then stop or raise.

        It is said, and flushed, before anything else is written: whatever happens to the
        process while it saves a checkpoint, the finding is known. One step that fails
        leaves out none behind it.
        """
        if self._pending:
            pending, self._pending = self._pending, []
            raise FaultFound(pending)
        grave = [one for one in found if one.severity >= self.at_least]
        try:
            self._say(grave)
        finally:
            try:
                self._call(found)
            finally:
                if grave:
                    self._keep()
        if not grave:
            return
        if self.action == "stop":
            self.should_stop = True
        elif self.action == "raise":
            raise FaultFound(grave)

    def at_once(self, found: Sequence[Finding]) -> bool:
        """Say and call back from another thread; return whether the training is to end.

        It ends at the next `take`: nothing is raised here, and nothing saved while
        the training may be writing.
        """
        grave = [one for one in found if one.severity >= self.at_least]
        try:
            self._say(grave)
        finally:
            self._call(found)
        if self.action == "stop" and grave:
            self.should_stop = True
        elif self.action == "raise":
            self._pending += grave
        return bool(grave) and self.action in ("stop", "raise")

    def _say(self, grave: Sequence[Finding]) -> None:
        for one in grave:
            text = f"[{one.severity}] {one.message}"
            if self.action == "warn":
                warnings.warn(text, RuntimeWarning, stacklevel=5)
            elif self.action != "none":
                _LOG.warning("%s", text)
        if grave and sys.stderr is not None:
            sys.stderr.flush()

    def _call(self, found: Sequence[Finding]) -> None:
        if self._on_finding is None:
            return
        for one in found:
            try:
                self._on_finding(one)
            except FaultFound:  # noqa: PERF203 - one finding's is not the next one's
                raise
            except Exception as error:  # noqa: BLE001 - training is not to end for this
                self._failed("calling on_finding", error)

    def _keep(self) -> None:
        if self._save is None:
            return
        save, self._save = self._save, None
        try:
            save()
        except Exception as error:  # noqa: BLE001 - likewise
            self._failed("calling save", error)
