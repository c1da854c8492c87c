"""The native kernels.

They take NumPy arrays, torch and JAX arrays on the CPU, and anything with
DLPack or the buffer protocol, without a copy where the memory is dense:
float64, float32, float16, bfloat16, the fp8 types, complex numbers (as pairs of
parts) and integers. Raw bytes come with ``dtype="bfloat16"`` and the like.
Input is never written.
"""

from ._series import EVENT_DTYPE
from .block_means import BLOCK_DTYPE, BlockMeans
from .cusum import Cusum, CusumOutput
from .digest import crc32, crc32_combine, digest, digest_many
from .divergence import (
    SampleDivergences,
    compare_samples,
    js_divergence,
    kl_divergence,
    ks_p_value,
    ks_statistic,
    psi,
    total_variation,
    wasserstein,
)
from .ewma import Ewma, EwmaOutput, ExtremaOutput, RunningExtrema
from .histogram import Histogram, bin_counts, histogram, quantile_cuts
from .nonfinite import NonfiniteCounts, count_nonfinite, first_nonfinite, has_nonfinite
from .norms import global_norm, l1_norm, l2_norm, max_norm
from .ranges import NARROW_FORMATS, ExponentCounts, Narrowing, exponent_counts, narrowing
from .replica_spread import replica_spread
from .robust_baseline import BaselineOutput, RobustBaseline
from .rolling import ROLLING_STATS, Rolling, rolling
from .runtime import available_targets, get_num_threads, set_num_threads, set_target, target
from .significance import (
    benjamini_hochberg,
    chi_square_p_value,
    homogeneity,
    two_proportions_p_value,
)
from .tensor_stats import (
    BLOCK,
    PIECE,
    ROW_DTYPE,
    SPAN_DTYPE,
    STATS_DTYPE,
    TensorStats,
    combine_rows,
    measure_file,
    measure_spans,
    tensor_stats,
    tensor_stats_many,
)
from .theil_sen import TheilSen, theil_sen
from .two_samples import NumberComparison, NumberSample, Thresholds, compare_numbers

__all__ = [
    "BLOCK",
    "BLOCK_DTYPE",
    "EVENT_DTYPE",
    "NARROW_FORMATS",
    "PIECE",
    "ROLLING_STATS",
    "ROW_DTYPE",
    "SPAN_DTYPE",
    "STATS_DTYPE",
    "BaselineOutput",
    "BlockMeans",
    "Cusum",
    "CusumOutput",
    "Ewma",
    "EwmaOutput",
    "ExponentCounts",
    "ExtremaOutput",
    "Histogram",
    "Narrowing",
    "NonfiniteCounts",
    "NumberComparison",
    "NumberSample",
    "RobustBaseline",
    "Rolling",
    "RunningExtrema",
    "SampleDivergences",
    "TensorStats",
    "TheilSen",
    "Thresholds",
    "available_targets",
    "benjamini_hochberg",
    "bin_counts",
    "chi_square_p_value",
    "combine_rows",
    "compare_numbers",
    "compare_samples",
    "count_nonfinite",
    "crc32",
    "crc32_combine",
    "digest",
    "digest_many",
    "exponent_counts",
    "first_nonfinite",
    "get_num_threads",
    "global_norm",
    "has_nonfinite",
    "histogram",
    "homogeneity",
    "js_divergence",
    "kl_divergence",
    "ks_p_value",
    "ks_statistic",
    "l1_norm",
    "l2_norm",
    "max_norm",
    "measure_file",
    "measure_spans",
    "narrowing",
    "psi",
    "quantile_cuts",
    "replica_spread",
    "rolling",
    "set_num_threads",
    "set_target",
    "target",
    "tensor_stats",
    "tensor_stats_many",
    "theil_sen",
    "total_variation",
    "two_proportions_p_value",
    "wasserstein",
]
