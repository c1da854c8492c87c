"""Watching a run while it runs."""

from ._judges import MonitorWarning
from .actions import FaultFound
from .monitor import Monitor
from .replicas import ReplicaAgreement
from .session import Follower, Session, diagnose_pieces
from .tracing import Producer, TraceResult, trace_step

__all__ = [
    "FaultFound",
    "Follower",
    "Monitor",
    "MonitorWarning",
    "Producer",
    "ReplicaAgreement",
    "Session",
    "TraceResult",
    "diagnose_pieces",
    "trace_step",
]
