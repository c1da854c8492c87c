"""`RingIngestor`: the ring files in which the live monitor keeps a run's last steps."""

from __future__ import annotations

from typing import Any

from ..core import BaseIngestor, SignalSet, UnsupportedFormatError, ingestors
from ..core.ring_file import RING_MAGIC, read_ring
from ._bytes import ByteSource, is_bytes_like

__all__ = ["RingIngestor"]

_MAX_BYTES = 1 << 34


@ingestors.register("ring")
class RingIngestor(BaseIngestor):
    """Reads what the monitor's ring file holds: the last steps before a run ended, however."""

    def ingest(self, source: Any) -> SignalSet:
        """Read a path, bytes or a binary file object whole.

        Raises
        ------
        SchemaError
            If the file is damaged; steps that were half written are left out.
        UnsupportedFormatError
            If it is of another kind.
        """
        if not is_bytes_like(source):
            raise UnsupportedFormatError("a ring file is a path or a file object")
        with ByteSource.of(source) as opened:
            if not opened.head().startswith(RING_MAGIC):
                raise UnsupportedFormatError("not a ring file", source=opened.name)
            return read_ring(opened.read_all(_MAX_BYTES), opened.name)

    def validate_schema(self, data: Any) -> bool:
        """Return whether `data` is a source of bytes that begin like a ring file."""
        if not is_bytes_like(data):
            return False
        with ByteSource.of(data) as opened:
            return self.sniff(opened.head(), opened.name) > 0

    def sniff(self, head: bytes, name: str) -> float:  # noqa: ARG002 - content decides
        """Return 1 where the head is that of a ring file."""
        return 1.0 if head.startswith(RING_MAGIC) else 0.0
