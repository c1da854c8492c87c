"""Derived quantities, one per module: arrays in, signals out."""

from .distributions import DistributionSignalExtractor
from .gradients import GradientSignalExtractor
from .numerics import NumericalSignalExtractor

__all__ = ["DistributionSignalExtractor", "GradientSignalExtractor", "NumericalSignalExtractor"]
