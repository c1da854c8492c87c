"""From findings to causes."""

from .calibration import ByEvidence, Calibration, Identity, Isotonic, Platt, load_calibration
from .consequences import LEADS_TO
from .engine import AttributionEngine
from .rules import DEFAULT_RULES
from .story_rules import STORY_RULES
from .trace_rules import TRACE_RULES

__all__ = [
    "DEFAULT_RULES",
    "LEADS_TO",
    "STORY_RULES",
    "TRACE_RULES",
    "AttributionEngine",
    "ByEvidence",
    "Calibration",
    "Identity",
    "Isotonic",
    "Platt",
    "load_calibration",
]
