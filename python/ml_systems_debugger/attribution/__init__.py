"""From findings to causes."""

from .engine import AttributionEngine
from .rules import DEFAULT_RULES, LEADS_TO

__all__ = ["DEFAULT_RULES", "LEADS_TO", "AttributionEngine"]
