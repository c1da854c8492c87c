// Statistics and norms of whole tensors: blocks of kBlock elements put together in a fixed tree.
//
// A range of blocks is held as its maximal aligned powers of two, so that two neighbouring ranges
// merge to exactly what one pass over both would have given, however the work was cut.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mlsd/arrays.hpp"

namespace mlsd {

// 2^level blocks from block index << level on.
struct StatsNode {
  BlockStats stats;
  std::uint64_t elements = 0;
  std::uint64_t index = 0;
  std::uint32_t level = 0;
};

struct StatsRange {
  std::uint64_t start = 0;     // first element, a multiple of kBlock
  std::uint64_t elements = 0;  // only the last range of a tensor may end inside a block
  std::vector<StatsNode> nodes;
  std::uint64_t digest = 0;
};

struct ArrayRef {
  const void *data;
  std::size_t n;
  Dtype dtype;
};

BlockStats combine(const BlockStats &a, std::uint64_t a_finite, const BlockStats &b,
                   std::uint64_t b_finite) noexcept;
ScaledSquares combine(ScaledSquares a, ScaledSquares b) noexcept;
double root(ScaledSquares squares) noexcept;

// Statistics of one array, or of a shard that begins at element `start` of a tensor.
void stats_of(const ArrayRef &array, std::uint64_t start, bool with_digest, StatsRange *out);
// The same for many arrays, handed over one by one in their order; the range is only lent. Nothing
// is allocated once the calling thread has seen as many blocks before.
void each_stats(const ArrayRef *arrays, std::size_t count, std::uint64_t start, bool with_digest,
                void (*each)(void *, std::size_t, const StatsRange &), void *context);
// The nodes of a range put together; the statistics of all its elements.
BlockStats total(const StatsRange &range) noexcept;
// Appends `right` to `left`; false where it does not begin where `left` ends, or `left` ends inside
// a block.
bool append(StatsRange *left, const StatsRange &right);

// Square root of the sum of squares over all arrays, in their order; NaN or infinite where a value
// is not finite.
double global_norm(const ArrayRef *arrays, std::size_t count);
// The norm of each of many arrays; the same bits as global_norm of each alone. Nothing is allocated
// where none is longer than a block, nor once the calling thread has seen as many blocks before.
void each_norm(const ArrayRef *arrays, std::size_t count, double *out);
double l1_norm(ArrayRef array);
double max_norm(ArrayRef array);
bool has_nonfinite(ArrayRef array);
NonfiniteCounts count_nonfinite(ArrayRef array);
std::size_t first_nonfinite(ArrayRef array);
std::uint64_t digest(const void *data, std::size_t bytes, std::uint64_t start);
void exponent_counts(ArrayRef array, std::uint64_t *counts);  // [kExponents], added to
std::uint64_t count_below(ArrayRef array, double bound, bool inclusive);
std::uint64_t read_all(const void *data, std::size_t bytes);

}  // namespace mlsd
