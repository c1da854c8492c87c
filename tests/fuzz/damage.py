"""What a fuzzing campaign raises."""

from __future__ import annotations


class DamageError(AssertionError):
    """A rule that a reader broke."""
