"""What the tests of metrics share: a source as series, and CSV from lines."""

from __future__ import annotations

from typing import Any

from ml_systems_debugger.ingestion import MetricIngestor


def read(source: Any, **mapping: str) -> dict[str, tuple[list[int], list[Any]]]:
    """Every series as (steps, values) by the text of its key, the split before it."""
    signals = MetricIngestor(mapping).ingest(source)
    return {
        (f"{one.key.split}:" if one.key.split == "train" else "") + str(one.key): (
            one.steps.tolist(),
            one.values.tolist(),
        )
        for one in signals.series
    }


def csv_of(*lines: str) -> bytes:
    return ("\n".join(lines) + "\n").encode()
