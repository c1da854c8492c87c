"""The digest of a part of a tensor; parts of one tensor add up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..kernels import BLOCK, ROW_DTYPE, SPAN_DTYPE, measure_spans
from ._plan import KERNEL_CODES

__all__ = ["part_digest"]


def part_digest(raw: npt.NDArray[np.uint8], start: int) -> int:
    """Return the digest of bytes that begin at byte `start` (a multiple of 8) of their tensor."""
    # As 64-bit words, eight bytes are one value to look at; the last few go as bytes.
    words = len(raw) // 8
    begins = np.arange(0, words, BLOCK)
    tail = 1 if len(raw) % 8 else 0
    spans = np.zeros(len(begins) + tail, SPAN_DTYPE)
    rows = np.zeros(len(spans), ROW_DTYPE)
    whole = spans[: len(begins)]
    whole["offset"] = begins * 8
    whole["count"] = np.minimum(BLOCK, words - begins)
    whole["start"] = start + begins * 8
    whole["dtype"] = KERNEL_CODES["uint64"]
    if tail:
        spans[-1] = (words * 8, len(raw) % 8, start + words * 8, KERNEL_CODES["uint8"])
    measure_spans(raw, spans, rows)
    return int(np.add.reduce(rows["digest"]))
