"""The flight recorder: every step goes into a ring file, whatever happens to the process."""

from __future__ import annotations

from ..core import SignalSet
from ..core.ring_file import RingFile, read_ring
from ._steps import StepBuffer

__all__ = ["Recorder"]

_LEAST = 64  # columns


class Recorder:
    """Writes the newest step of a buffer; the file is made at the first.

    Parameters
    ----------
    path : str
    slots : int
        Steps kept.
    """

    def __init__(self, path: str, slots: int) -> None:
        self._path, self._slots = path, slots
        self._ring: RingFile | None = None
        self._names = 0
        self._buffer: StepBuffer | None = None

    def write(self, step: int, buffer: StepBuffer) -> int:
        """Write a step; return how many series there is no room for.

        Raises
        ------
        OSError
            If there is no room for the file.
        """
        known = buffer.columns()
        if self._ring is None:
            self._ring = RingFile(self._path, self._slots, max(_LEAST, 2 * known))
        if buffer is not self._buffer:  # after a restart the columns are others
            self._buffer, self._names = buffer, 0
        if min(known, self._ring.columns) > self._names:
            keys = buffer.keys[: self._ring.columns]
            self._ring.names(keys)
            self._names = len(keys)
        buffer.fill(self._ring.clear())
        self._ring.commit(step)
        return max(known - self._ring.columns, 0)

    def signals(self) -> SignalSet:
        """Return what the file holds: the last steps."""
        if self._ring is None:
            return SignalSet()
        return read_ring(self._ring.path.read_bytes(), str(self._ring.path))

    def close(self) -> None:
        """Let the file go; it stays readable."""
        if self._ring is not None:
            self._ring.close()
            self._ring = None
