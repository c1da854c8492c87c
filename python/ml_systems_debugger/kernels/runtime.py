"""Which instruction set and how many threads the kernels use."""

from __future__ import annotations

from .._core import available_targets, get_num_threads, set_num_threads, set_target, target

__all__ = ["available_targets", "get_num_threads", "set_num_threads", "set_target", "target"]
