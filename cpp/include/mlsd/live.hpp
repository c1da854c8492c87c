// What a live monitor measures of many tensors at every step.
//
// Accumulator: as the norms of tensor_stats.hpp; movements in float64. Overflow: norms of finite
// values are finite wherever they fit a double; a movement whose squares overflow is infinite.
// NaN and Inf: a norm is NaN where a NaN is among the values, else infinite where an infinity is.
#pragma once

#include <cstddef>

#include "mlsd/tensor_stats.hpp"

namespace mlsd {

// The norm of each array into out [count].
void live_norms(const ArrayRef *arrays, std::size_t count, double *out);

// Elements of a tensor of n that stand for all of it: every stride-th, `width` of them at most.
struct Sample {
  std::size_t stride, size;
};
Sample sample_of(std::size_t n, std::size_t width) noexcept;

// Whether live_move reads elements of this type.
bool sampled(Dtype dtype) noexcept;

// The distance of the sample of each array from the one in samples [count, width], over the norm of
// that one, into moved [count]; the new sample takes its place. 0 / 0 is 0, x / 0 infinite. Where
// `known` is false there is none before, and moved is not written. All dtypes are `sampled`.
void live_moves(const ArrayRef *arrays, std::size_t count, std::size_t width, bool known,
                double *samples, double *moved);

}  // namespace mlsd
