"""What all tests share: real runs recorded by others, and how hypothesis behaves."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A shell starts jobs in its background deaf to interrupts, and they hand that on: the programs
# that tests interrupt would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadlines: machines are shared. In CI the examples are the same every time.
_PATIENT = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile("dev", deadline=None, suppress_health_check=_PATIENT)
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=_PATIENT)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session")
def real_runs() -> Path:
    """The folder of real runs beside the repository; the test is skipped where it is absent."""
    folder = Path(__file__).parents[1].parent / "shared" / "real-runs"
    if not folder.is_dir():
        pytest.skip(f"no real runs at {folder}")
    return folder
