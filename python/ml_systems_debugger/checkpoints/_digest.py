"""The digest of a part of a tensor; parts of one tensor add up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..kernels import BLOCK, ROW_DTYPE, SPAN_DTYPE, measure_spans
from ._plan import KERNEL_CODES

__all__ = ["part_digest"]


def part_digest(raw: npt.NDArray[np.uint8], start: int) -> int:
    """Return the digest of bytes that begin at byte `start` (a multiple of 8) of their tensor."""
    begins = np.arange(0, len(raw), BLOCK)
    spans, rows = np.zeros(len(begins), SPAN_DTYPE), np.zeros(len(begins), ROW_DTYPE)
    spans["offset"] = begins
    spans["count"] = np.minimum(BLOCK, len(raw) - begins)
    spans["start"] = start + begins
    spans["dtype"] = KERNEL_CODES["uint8"]
    measure_spans(raw, spans, rows)
    return int(np.add.reduce(rows["digest"]))
