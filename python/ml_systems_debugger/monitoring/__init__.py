"""Watching a run while it runs."""

from ._judges import MonitorWarning
from .actions import FaultFound
from .monitor import Monitor

__all__ = ["FaultFound", "Monitor", "MonitorWarning"]
