"""Libraries that only some inputs need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import MissingDependencyError

__all__ = ["pyarrow_for"]


def pyarrow_for(doing: str) -> Any:
    """Return pyarrow, which `doing` something needs.

    Raises
    ------
    MissingDependencyError
        Where it is not installed, with what to install.
    """
    try:
        return import_module("pyarrow")
    except ImportError as error:
        raise MissingDependencyError(
            f"{doing} needs pyarrow: pip install ml-systems-debugger[frames]"
        ) from error
