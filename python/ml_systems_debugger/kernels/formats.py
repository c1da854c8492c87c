"""Bounded parsers of untrusted bytes: delimited numbers, TensorBoard and W&B files."""

from __future__ import annotations

from .._core import EventFileReader, WandbFileReader, crc32c, parse_delimited

__all__ = ["EventFileReader", "WandbFileReader", "crc32c", "parse_delimited"]
