"""The error of a file that is not what it was."""

from __future__ import annotations

from ..core import SchemaError

__all__ = ["ChangedError"]


class ChangedError(SchemaError):
    """A file was cut, grew or was replaced while it was being read."""
