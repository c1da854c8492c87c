"""From files, frames and arrays to a `SignalSet`: one source format per module."""

from .arrow import ArrowIngestor
from .flight_recorder import FlightRecorderIngestor
from .hf_trainer import HFTrainerIngestor
from .logs import LogIngestor
from .metrics import MetricIngestor
from .mlflow import MLflowIngestor
from .ring import RingIngestor
from .schema import ColumnRule, SchemaValidator
from .source import find_runs, is_run_data, open_source
from .tail import Tail, read_pieces
from .tensorboard import TensorBoardIngestor
from .trace import TraceIngestor
from .wandb import WandbIngestor

__all__ = [
    "ArrowIngestor",
    "ColumnRule",
    "FlightRecorderIngestor",
    "HFTrainerIngestor",
    "LogIngestor",
    "MLflowIngestor",
    "MetricIngestor",
    "RingIngestor",
    "SchemaValidator",
    "Tail",
    "TensorBoardIngestor",
    "TraceIngestor",
    "WandbIngestor",
    "find_runs",
    "is_run_data",
    "open_source",
    "read_pieces",
]
