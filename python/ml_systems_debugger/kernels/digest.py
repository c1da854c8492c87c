"""A 64-bit digest of an array's bytes that depends on the place of each, not on the work's order."""

from __future__ import annotations

from .._core import digest, digest_many

__all__ = ["digest", "digest_many"]
