"""From files, frames and arrays to a `SignalSet`: one source format per module."""

from .logs import LogIngestor
from .metrics import MetricIngestor
from .schema import ColumnRule, SchemaValidator
from .source import find_runs, open_source

__all__ = [
    "ColumnRule",
    "LogIngestor",
    "MetricIngestor",
    "SchemaValidator",
    "find_runs",
    "open_source",
]
