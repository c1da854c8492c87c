"""Robust scales of ascending values, and how far apart two samples are in them."""

from __future__ import annotations

__all__ = ["MAD_TO_SIGMA"]

MAD_TO_SIGMA = 1.4826
"""Sigma of a normal law over its median absolute deviation."""
