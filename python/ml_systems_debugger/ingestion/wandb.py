"""`WandbIngestor`: the offline run files of Weights & Biases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..core import BaseIngestor, BaseStream, SignalSet, UnsupportedFormatError, ingestors
from ..kernels.formats import WandbFileReader
from ._assemble import assemble
from ._bytes import ByteSource, is_bytes_like
from ._stream import TableStream
from ._table import Column, Table, counted

__all__ = ["HistoryReader", "WandbIngestor"]

_MAGIC = b":W&B\xe1\xbe\x00"
_STEP, _TIME = "\0step", "\0time"
_SHOWN = 5


@ingestors.register("wandb")
class WandbIngestor(BaseIngestor):
    """Reads the ``run-ID.wandb`` file of an offline run, without wandb and without a server.

    The history is read whole, NaN and infinities as they were logged; nested
    keys give names with a slash. System metrics follow as ``system/...`` at
    the last step logged before them. The configuration of the run stands in
    the metadata. Damage is named in `SignalSet.unread`, with its offset; a
    last record that is cut off, as a job that still writes leaves it, is only
    noted in the metadata.
    """

    def ingest(self, source: Any) -> SignalSet:
        """Read a path, bytes or a binary file object whole.

        Raises
        ------
        UnsupportedFormatError
            If it is no W&B run file.
        OSError
            If it cannot be opened or read.
        """
        if not is_bytes_like(source):
            raise UnsupportedFormatError("a W&B run file is a path or a file object")
        with ByteSource.of(source) as opened:
            if not self.sniff(opened.head(), opened.name):
                raise UnsupportedFormatError(
                    "no W&B run file", source=opened.name, value=opened.head()[:16]
                )
            reader = HistoryReader(opened.name)
            for block in opened.blocks():
                reader.feed(block)
            return assemble(reader.table(opened.damage))

    def validate_schema(self, data: Any) -> bool:
        """Return whether `data` is a source of bytes that begin like a W&B run file."""
        if not is_bytes_like(data):
            return False
        with ByteSource.of(data) as opened:
            return self.sniff(opened.head(), opened.name) > 0

    def sniff(self, head: bytes, name: str) -> float:  # noqa: ARG002 - content decides
        """Return 1 where the head is that of a W&B run file."""
        return 1.0 if head.startswith(_MAGIC) else 0.0

    def stream(self, head: bytes, name: str) -> BaseStream:  # noqa: ARG002 - one form
        """Return a reader of such a file piece by piece."""
        return TableStream(HistoryReader, name)


class HistoryReader:
    """Reads a run file piece by piece; `table` returns what is new since the last call."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._reader = WandbFileReader()

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._reader.feed(data)

    def table(self, damage: Sequence[str] = (), *, last: bool = True) -> Table:
        """Return one row per record; if `last`, with what is cut off at the end."""
        table = _table(self.name, self._reader.finish() if last else self._reader.take(), last)
        table.unread += damage
        return table


def _table(name: str, found: dict[str, Any], last: bool) -> Table:
    columns = {
        key.decode("utf-8", "replace") or "unnamed": Column(values, rows)
        for key, rows, values in found["columns"]
    }
    columns[_STEP] = Column(found["steps"])
    columns[_TIME] = Column(found["times"])
    metadata: dict[str, Any] = {"format": "wandb"}
    if config := _config(found["config"]):
        metadata["config"] = config
    if found["skipped"]:
        metadata["values_without_numbers"] = found["skipped"]
    if last and found["waiting"]:
        at = f"at byte {found['offset']}"
        metadata["torn_last_record"] = f"{counted(found['waiting'], 'byte')} {at}"
    table = Table(
        name,
        len(found["steps"]),
        columns,
        metadata=metadata,
        roles={"step": _STEP, "timestamp": _TIME},
    )
    if faults := found["faults"]:
        shown = ", ".join(map(str, faults[:_SHOWN]))
        more = f" and {len(faults) - _SHOWN:,} more" if len(faults) > _SHOWN else ""
        table.unread.append(f"{name}: damaged records, not read: at byte {shown}{more}")
    return table


def _config(pairs: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """Return the configuration as logged; W&B's own part of it left out."""
    config: dict[str, Any] = {}
    for key, text in pairs:
        name = key.decode("utf-8", "replace")
        if name.startswith("_wandb"):
            continue
        try:
            config[name] = json.loads(text)
        except (ValueError, RecursionError):
            config[name] = text.decode("utf-8", "replace")
    return config
