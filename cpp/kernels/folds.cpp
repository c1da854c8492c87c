#include "kernels/folds-inl.hpp"
#include "kernels/rolling-inl.hpp"

namespace mlsd {
namespace MLSD_TARGET_NAMESPACE {

extern const FoldKernels fold_kernels;
const FoldKernels fold_kernels = {fold_baseline, fold_cusum, fold_ewma,   fold_extrema,
                                  fold_blocks,   spread_of,  fold_rolling};

}  // namespace MLSD_TARGET_NAMESPACE
}  // namespace mlsd
