"""Checkpoints: what is in them, whether it is sound, what changed; their code is never run."""

from ..core.shown import shown
from . import (  # noqa: F401 - each registers its format
    deepspeed,
    distributed,
    folder,
    gguf,
    npy,
    safetensors,
    torch_zip,
)
from .changes import CheckpointDiff, TensorChange
from .cluster import scan_on
from .comparing import diff
from .contract import CheckpointFormat, Layout, Options, TensorInfo, formats
from .explanations import EXPLANATIONS, explanation
from .finding import CODES, CheckpointFinding
from .opening import find_format
from .report import CheckpointReport, CheckpointStatus, FileRecord
from .scanning import inspect, scan
from .shards import merge, scan_shard
from .table import STATISTICS, TensorRecord, TensorTable

__all__ = [
    "CODES",
    "EXPLANATIONS",
    "STATISTICS",
    "CheckpointDiff",
    "CheckpointFinding",
    "CheckpointFormat",
    "CheckpointReport",
    "CheckpointStatus",
    "FileRecord",
    "Layout",
    "Options",
    "TensorChange",
    "TensorInfo",
    "TensorRecord",
    "TensorTable",
    "diff",
    "explanation",
    "find_format",
    "formats",
    "inspect",
    "merge",
    "scan",
    "scan_on",
    "scan_shard",
    "shown",
]
