"""`HFTrainerIngestor`: the ``trainer_state.json`` of Hugging Face's Trainer."""

from __future__ import annotations

import re
from typing import Any

from ..core import BaseIngestor, SchemaError, SignalSet, UnsupportedFormatError, ingestors
from ._assemble import assemble
from ._bytes import ByteSource, is_bytes_like
from ._json import read_json_document
from ._rows import RowReader

__all__ = ["HFTrainerIngestor"]

_HISTORY = re.compile(rb'"log_history"\s*:\s*\[')
_FACTS = (
    "best_metric",
    "best_global_step",
    "best_model_checkpoint",
    "epoch",
    "global_step",
    "max_steps",
    "num_train_epochs",
    "train_batch_size",
)


@ingestors.register("hf_trainer")
class HFTrainerIngestor(BaseIngestor):
    """Reads ``trainer_state.json``: every entry of its ``log_history``.

    The Trainer's ``logging_nan_inf_filter`` is on by default and replaces a
    loss that is not finite, so that 0.0 may stand where NaN was. Where a loss
    of exactly zero stands beside a gradient norm that is not finite, the
    metadata says so under ``not_trustworthy``.
    """

    def ingest(self, source: Any) -> SignalSet:
        """Read a path, bytes or a file object whole.

        Raises
        ------
        SchemaError
            If it is no valid JSON, or its ``log_history`` is no list of objects.
        OSError
            If it cannot be opened or read.
        """
        if not is_bytes_like(source):
            raise UnsupportedFormatError("a trainer state is a path or a file object")
        with ByteSource.of(source) as opened:
            state = read_json_document(opened)
            name = opened.name
        history = state.get("log_history") if isinstance(state, dict) else None
        if not isinstance(history, list):
            raise SchemaError("no list of entries", source=name, column="log_history")
        for at, entry in enumerate(history):
            if not isinstance(entry, dict):
                raise SchemaError(
                    f"entry {at} is no object", source=name, column="log_history", value=entry
                )
        rows = RowReader(name)
        rows.add(history)
        table = rows.table()
        facts = {key: state[key] for key in _FACTS if state.get(key) is not None}
        table.metadata = {"format": "hf_trainer", "trainer": facts}
        return assemble(table)

    def validate_schema(self, data: Any) -> bool:
        """Return whether `data` is a source of bytes that begin like a trainer state."""
        if not is_bytes_like(data):
            return False
        with ByteSource.of(data) as opened:
            return self.sniff(opened.head(), opened.name) > 0

    def sniff(self, head: bytes, name: str) -> float:  # noqa: ARG002 - content decides
        """Return how surely this is a trainer state: its keys are in its head."""
        if not head.lstrip().startswith(b"{") or not _HISTORY.search(head):
            return 0.0
        return 1.0 if b'"global_step"' in head else 0.7
