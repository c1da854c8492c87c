"""From files, frames and arrays to a `SignalSet`: one source format per module."""

from .metrics import MetricIngestor
from .source import find_runs, open_source

__all__ = ["MetricIngestor", "find_runs", "open_source"]
