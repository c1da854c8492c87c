"""How good the diagnoses are: judged on labelled runs."""

from .labelled_runs import (
    ACCEPTED_MODES,
    Evaluation,
    Judgement,
    Label,
    evaluate,
    judge,
    read_labels,
)

__all__ = [
    "ACCEPTED_MODES",
    "Evaluation",
    "Judgement",
    "Label",
    "evaluate",
    "judge",
    "read_labels",
]
