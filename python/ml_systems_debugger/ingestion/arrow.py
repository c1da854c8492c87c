"""`ArrowIngestor`: Parquet, Arrow and Feather files; needs pyarrow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core import (
    BaseIngestor,
    SchemaError,
    SignalSet,
    UnsupportedFormatError,
    ingestors,
)
from ..core.optional import pyarrow_for
from ._assemble import assemble
from ._bytes import ByteSource, is_bytes_like
from ._columns import from_frame

__all__ = ["ArrowIngestor"]

_PARQUET, _ARROW = b"PAR1", b"ARROW1"
_MAX_BYTES = 1 << 33


@ingestors.register("arrow")
class ArrowIngestor(BaseIngestor):
    """Reads Parquet, Arrow IPC and Feather files as `MetricIngestor` reads a frame.

    Null is "not logged", NaN is a recorded NaN.

    Parameters
    ----------
    mapping : mapping of str to str, optional
        Column name to the name it should be read under.
    """

    def __init__(self, mapping: Mapping[str, str] | None = None) -> None:
        self.mapping = dict(mapping or {})

    def ingest(self, source: Any) -> SignalSet:
        """Read a path, bytes or a binary file object whole.

        Raises
        ------
        MissingDependencyError
            If pyarrow is not installed.
        SchemaError
            If the file is damaged.
        UnsupportedFormatError
            If it is of another kind.
        """
        if not is_bytes_like(source):
            raise UnsupportedFormatError("an Arrow or Parquet file is a path or a file object")
        with ByteSource.of(source) as opened:
            name, head = opened.name, opened.head()
            if not self.sniff(head, name):
                raise UnsupportedFormatError(
                    "neither Parquet nor Arrow", source=name, value=head[:8]
                )
            path = isinstance(source, (str, os.PathLike)) and source != "-"
            data = Path(source) if path and not opened.compressed else opened.read_all(_MAX_BYTES)
        table = from_frame(_read(data, name, head.startswith(_PARQUET)), name)
        table.metadata["format"] = "parquet" if head.startswith(_PARQUET) else "arrow"
        return assemble(table, self.mapping)

    def validate_schema(self, data: Any) -> bool:
        """Return whether `data` is a source of bytes that begin like one of these files."""
        if not is_bytes_like(data):
            return False
        with ByteSource.of(data) as opened:
            return self.sniff(opened.head(), opened.name) > 0

    def sniff(self, head: bytes, name: str) -> float:  # noqa: ARG002 - content decides
        """Return 1 where the head is that of a Parquet or Arrow file."""
        return 1.0 if head.startswith((_PARQUET, _ARROW)) else 0.0


def _read(data: Path | bytes, name: str, parquet: bool) -> Any:
    pa = pyarrow_for(f"{name}: reading this")
    import pyarrow.parquet as pq  # type: ignore[import-untyped,unused-ignore]

    try:
        if parquet:
            return pq.read_table(data if isinstance(data, Path) else pa.BufferReader(data))
        held = pa.memory_map(str(data)) if isinstance(data, Path) else pa.BufferReader(data)
        with held, pa.ipc.open_file(held) as file:
            return file.read_all()
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not the file's
            raise
        raise SchemaError(f"a damaged file: {error}", source=name) from error
