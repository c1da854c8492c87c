"""The detectors: one failure mode per module, each a fold over the history of a run."""

from .collective_fault import CollectiveFaultDetector
from .dead_units import DeadUnitsDetector
from .distributed_desync import DistributedDesyncDetector
from .distribution_drift import DistributionDriftDetector
from .divergent_training import DivergentTrainingDetector
from .feature_collapse import FeatureCollapseDetector
from .frozen_parameters import FrozenParametersDetector
from .gradient_explosion import GradientExplosionDetector
from .gradient_vanishing import GradientVanishingDetector
from .inf_detection import InfDetectionDetector
from .input_out_of_range import InputOutOfRangeDetector
from .input_starvation import InputStarvationDetector
from .job_crash import JobCrashDetector
from .label_leakage import LabelLeakageDetector
from .learning_rate_instability import LearningRateInstabilityDetector
from .loss_plateau import LossPlateauDetector
from .loss_spike import LossSpikeDetector
from .memory_fragmentation import MemoryFragmentationDetector
from .mixed_precision_instability import MixedPrecisionInstabilityDetector
from .nan_detection import NaNDetectionDetector
from .non_determinism import NonDeterminismDetector
from .oom_precursor import OomPrecursorDetector
from .overfitting import OverfittingDetector
from .parameter_runaway import ParameterRunawayDetector
from .partial_worker_failure import PartialWorkerFailureDetector
from .precision_loss import PrecisionLossDetector
from .stale_gradients import StaleGradientsDetector
from .straggler_effect import StragglerEffectDetector
from .training_serving_skew import TrainingServingSkewDetector

__all__ = [
    "CollectiveFaultDetector",
    "DeadUnitsDetector",
    "DistributedDesyncDetector",
    "DistributionDriftDetector",
    "DivergentTrainingDetector",
    "FeatureCollapseDetector",
    "FrozenParametersDetector",
    "GradientExplosionDetector",
    "GradientVanishingDetector",
    "InfDetectionDetector",
    "InputOutOfRangeDetector",
    "InputStarvationDetector",
    "JobCrashDetector",
    "LabelLeakageDetector",
    "LearningRateInstabilityDetector",
    "LossPlateauDetector",
    "LossSpikeDetector",
    "MemoryFragmentationDetector",
    "MixedPrecisionInstabilityDetector",
    "NaNDetectionDetector",
    "NonDeterminismDetector",
    "OomPrecursorDetector",
    "OverfittingDetector",
    "ParameterRunawayDetector",
    "PartialWorkerFailureDetector",
    "PrecisionLossDetector",
    "StaleGradientsDetector",
    "StragglerEffectDetector",
    "TrainingServingSkewDetector",
]
