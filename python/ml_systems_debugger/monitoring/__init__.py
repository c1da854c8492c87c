"""Watching a run while it runs."""

from ._judges import MonitorWarning
from .actions import FaultFound
from .monitor import Monitor
from .tracing import Producer, TraceResult, trace_step

__all__ = [
    "FaultFound", "Monitor", "MonitorWarning", "Producer", "TraceResult", "trace_step",
]  # fmt: skip
