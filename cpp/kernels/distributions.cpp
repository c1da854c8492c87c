#include "kernels/distributions-inl.hpp"

namespace mlsd {
namespace MLSD_TARGET_NAMESPACE {
namespace {

void count(const void *data, size_t n, Dtype dtype, const Cuts &cuts, uint64_t *counts,
           double *scratch) {
  const char *p = static_cast<const char *>(data);
  switch (dtype) {
    case Dtype::f64:
      return count_format<F64>(p, n, cuts, counts, scratch);
    case Dtype::f32:
      return count_format<F32>(p, n, cuts, counts, scratch);
    case Dtype::f16:
      return count_format<F16>(p, n, cuts, counts, scratch);
    case Dtype::bf16:
      return count_format<BF16>(p, n, cuts, counts, scratch);
    case Dtype::f8_e4m3fn:
      return count_format<Float8<Dtype::f8_e4m3fn>>(p, n, cuts, counts, scratch);
    case Dtype::f8_e5m2:
      return count_format<Float8<Dtype::f8_e5m2>>(p, n, cuts, counts, scratch);
    case Dtype::f8_e4m3fnuz:
      return count_format<Float8<Dtype::f8_e4m3fnuz>>(p, n, cuts, counts, scratch);
    case Dtype::f8_e5m2fnuz:
      return count_format<Float8<Dtype::f8_e5m2fnuz>>(p, n, cuts, counts, scratch);
    case Dtype::f8_e8m0:
      return count_format<Float8<Dtype::f8_e8m0>>(p, n, cuts, counts, scratch);
    case Dtype::i8:
      return count_format<Integer<int8_t>>(p, n, cuts, counts, scratch);
    case Dtype::i16:
      return count_format<Integer<int16_t>>(p, n, cuts, counts, scratch);
    case Dtype::i32:
      return count_format<Integer<int32_t>>(p, n, cuts, counts, scratch);
    case Dtype::i64:
      return count_format<Integer<int64_t>>(p, n, cuts, counts, scratch);
    case Dtype::u8:
      return count_format<Integer<uint8_t>>(p, n, cuts, counts, scratch);
    case Dtype::u16:
      return count_format<Integer<uint16_t>>(p, n, cuts, counts, scratch);
    case Dtype::u32:
      return count_format<Integer<uint32_t>>(p, n, cuts, counts, scratch);
    case Dtype::u64:
      return count_format<Integer<uint64_t>>(p, n, cuts, counts, scratch);
  }
  __builtin_unreachable();
}

}  // namespace

extern const DistributionKernels distribution_kernels;
const DistributionKernels distribution_kernels = {count, divergence_sum};

}  // namespace MLSD_TARGET_NAMESPACE
}  // namespace mlsd
