"""Checksums: a 64-bit digest of an array, and the CRC-32 of archives.

The digest depends on the place of every byte, never on the order of work; CRC-32s of neighbouring
stretches combine to that of both.
"""

from __future__ import annotations

from .._core import crc32, crc32_combine, digest, digest_many

__all__ = ["crc32", "crc32_combine", "digest", "digest_many"]
