"""A 64-bit digest of an array: depends on the place of every byte, never on the order of work."""

from __future__ import annotations

from .._core import digest, digest_many

__all__ = ["digest", "digest_many"]
