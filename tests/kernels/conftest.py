"""Every kernel test may ask for each instruction set of this machine in turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ml_systems_debugger import kernels


@pytest.fixture(params=kernels.available_targets())
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    """One instruction set after the other, the usual one restored."""
    usual = kernels.target()
    kernels.set_target(request.param)
    yield request.param
    kernels.set_target(usual)
