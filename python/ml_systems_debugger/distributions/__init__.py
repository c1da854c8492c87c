"""Training data against serving data: profiles of features, and what differs between two."""

from .comparing import compare_distributions
from .profile import Profile
from .report import FeatureComparison, SkewReport
from .tables import read_chunks

__all__ = [
    "FeatureComparison",
    "Profile",
    "SkewReport",
    "compare_distributions",
    "read_chunks",
]
