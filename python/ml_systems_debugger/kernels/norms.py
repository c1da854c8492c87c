"""Norms of one array or of many: right also where squares overflow or vanish."""

from __future__ import annotations

from .._core import global_norm, l1_norm, l2_norm, max_norm

__all__ = ["global_norm", "l1_norm", "l2_norm", "max_norm"]
