"""How good the diagnoses are: judged on labelled runs, and calibrated by them."""

from .calibrating import Reliability, learn, reliability
from .feedback import record
from .labelled_runs import Evaluation, Judgement, evaluate, judge
from .labels import ACCEPTED_MODES, Label, read_labels

__all__ = [
    "ACCEPTED_MODES",
    "Evaluation",
    "Judgement",
    "Label",
    "Reliability",
    "evaluate",
    "judge",
    "learn",
    "read_labels",
    "record",
    "reliability",
]
