"""The detectors: one failure mode per module, each a fold over the history of a run."""

from .divergent_training import DivergentTrainingDetector
from .gradient_explosion import GradientExplosionDetector
from .gradient_vanishing import GradientVanishingDetector
from .loss_plateau import LossPlateauDetector

__all__ = [
    "DivergentTrainingDetector",
    "GradientExplosionDetector",
    "GradientVanishingDetector",
    "LossPlateauDetector",
]
