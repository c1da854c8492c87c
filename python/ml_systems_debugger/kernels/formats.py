"""Bounded parsers of untrusted bytes: delimited numbers, TensorBoard event files."""

from __future__ import annotations

from .._core import EventFileReader, crc32c, parse_delimited

__all__ = ["EventFileReader", "crc32c", "parse_delimited"]
