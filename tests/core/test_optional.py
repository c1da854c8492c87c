"""Libraries that only some inputs need are named where they are missing."""

from __future__ import annotations

import sys

import pytest

from ml_systems_debugger.core import MissingDependencyError
from ml_systems_debugger.core.optional import pyarrow_for


def test_a_missing_library_is_named_with_what_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    wanted = r"^run.parquet: reading this needs pyarrow: pip install ml-systems-debugger\[frames\]$"
    with pytest.raises(MissingDependencyError, match=wanted):
        pyarrow_for("run.parquet: reading this")
