"""What happens when something is found, in which order, and whatever fails in between."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import pytest

from ml_systems_debugger import Monitor
from ml_systems_debugger.monitoring import FaultFound, MonitorWarning

BAD = float("nan")


@pytest.mark.parametrize("action", ["warn", "stop", "raise"])
def test_a_finding_is_told_before_anything_else_is_written(action: str) -> None:
    """Saving a checkpoint ends the process: what was found stands on its error stream."""
    code = f"""
import os, signal
from ml_systems_debugger import Monitor
monitor = Monitor(action={action!r}, save=lambda: os.kill(os.getpid(), signal.SIGKILL))
monitor.observe(0, loss=float("nan"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -9
    assert "loss is NaN" in done.stderr


def test_none_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    saved: list[int] = []
    monitor = Monitor(action="none", save=lambda: saved.append(1))
    assert monitor.observe(0, loss=BAD)
    assert saved == [1], "saving is asked for apart from the action"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("action", ["warn", "stop", "raise", "none"])
@pytest.mark.parametrize("broken", ["on_finding", "save", "both", None])
def test_every_action_with_every_callback(action: str, broken: str | None) -> None:
    order: list[str] = []

    def part(name: str) -> Any:
        def called(*_: object) -> None:
            if name not in order:
                order.append(name)
            if broken in (name, "both"):
                raise OSError("planted")

        return called

    monitor = Monitor(action=action, on_finding=part("on_finding"), save=part("save"))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if action == "raise":
            with pytest.raises(FaultFound, match="loss is NaN") as raised:
                monitor.observe(0, loss=BAD)
            assert list(raised.value.findings) == [
                f for f in monitor.findings if f.severity >= "high"
            ]
        else:
            assert monitor.observe(0, loss=BAD) == monitor.findings
    assert order == ["on_finding", "save"]
    assert monitor.should_stop == (action == "stop")
    own = {str(one.message) for one in told if issubclass(one.category, MonitorWarning)}
    want = {"both": 2, None: 0}.get(broken, 1)
    assert len(own) == want
    assert any("loss is NaN" in str(one.message) for one in told) == (action == "warn")


def test_warnings_that_are_errors_leave_out_nothing() -> None:
    called: list[str] = []
    monitor = Monitor(
        on_finding=lambda _: called.append("on_finding"), save=lambda: called.append("save")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="loss is NaN"):
            monitor.observe(0, loss=BAD)
    assert called[-1] == "save"
    assert "on_finding" in called


def test_a_callback_may_end_the_run_itself() -> None:
    saved: list[int] = []

    def end(finding: Any) -> None:
        raise FaultFound([finding])

    monitor = Monitor(action="none", on_finding=end, save=lambda: saved.append(1))
    with pytest.raises(FaultFound):
        monitor.observe(0, loss=BAD)
    assert saved == [1]


def test_saving_is_done_once() -> None:
    saved: list[int] = []
    monitor = Monitor(action="stop", save=lambda: saved.append(1))
    monitor.observe(0, loss=BAD)
    monitor.observe(1, loss=1.0, grad_norm=float("inf"))
    assert saved == [1]
