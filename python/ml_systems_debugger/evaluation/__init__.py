"""How good the diagnoses are: judged on labelled runs, and calibrated by them."""

from .baselines import Baselines, learn_baselines
from .calibrating import Reliability, learn, reliability
from .feedback import record
from .labelled_runs import Evaluation, Judgement, evaluate, judge
from .labels import ACCEPTED_MODES, Label, read_labels

__all__ = [
    "ACCEPTED_MODES",
    "Baselines",
    "Evaluation",
    "Judgement",
    "Label",
    "Reliability",
    "evaluate",
    "judge",
    "learn",
    "learn_baselines",
    "read_labels",
    "record",
    "reliability",
]
