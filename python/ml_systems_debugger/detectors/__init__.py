"""The detectors: one failure mode per module, each a fold over the history of a run."""

from .collective_fault import CollectiveFaultDetector
from .distributed_desync import DistributedDesyncDetector
from .distribution_drift import DistributionDriftDetector
from .divergent_training import DivergentTrainingDetector
from .gradient_explosion import GradientExplosionDetector
from .gradient_vanishing import GradientVanishingDetector
from .inf_detection import InfDetectionDetector
from .input_starvation import InputStarvationDetector
from .job_crash import JobCrashDetector
from .label_leakage import LabelLeakageDetector
from .loss_plateau import LossPlateauDetector
from .memory_fragmentation import MemoryFragmentationDetector
from .nan_detection import NaNDetectionDetector
from .non_determinism import NonDeterminismDetector
from .oom_precursor import OomPrecursorDetector
from .partial_worker_failure import PartialWorkerFailureDetector
from .straggler_effect import StragglerEffectDetector
from .training_serving_skew import TrainingServingSkewDetector

__all__ = [
    "CollectiveFaultDetector",
    "DistributedDesyncDetector",
    "DistributionDriftDetector",
    "DivergentTrainingDetector",
    "GradientExplosionDetector",
    "GradientVanishingDetector",
    "InfDetectionDetector",
    "InputStarvationDetector",
    "JobCrashDetector",
    "LabelLeakageDetector",
    "LossPlateauDetector",
    "MemoryFragmentationDetector",
    "NaNDetectionDetector",
    "NonDeterminismDetector",
    "OomPrecursorDetector",
    "PartialWorkerFailureDetector",
    "StragglerEffectDetector",
    "TrainingServingSkewDetector",
]
