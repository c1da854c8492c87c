// Kernels over one array: non-finite scan, norms, statistics, digest.
//
// Input     `n` elements at `data`, densely packed, at any byte alignment; never written.
// NaN rule  statistics are over the finite values; NaN and the infinities are only counted.
// Blocks    sums are made per block of kBlock elements, aligned to multiples of kBlock of the whole
//           array, and combined in a fixed tree (`Partial`): the same bits for any number of
//           threads, and for any chunks or shards that split on block boundaries.
// Width     floats of 32 bits or less are squared and added in 32-bit lanes over at most 2048
//           elements, then flushed into 64-bit lanes. A block whose 32-bit sum overflows or falls
//           under the normal range is done again with 64-bit arithmetic, and f64 with a
//           power-of-two scale, so neither 4096 values of 1e30f nor of 1e-42f lose their norm.
#pragma once

#include <cstddef>
#include <cstdint>

#include "mlsd/dtypes.hpp"

namespace mlsd {

constexpr std::size_t kBlock = std::size_t{1} << 20;
constexpr std::size_t kExponents = 2048;

struct NonfiniteCounts {
  std::uint64_t nan = 0, posinf = 0, neginf = 0;
};

// A sum of squares as scale^2 * sum, so that it can stand for more than a double holds.
struct ScaledSquares {
  double scale = 1.0;
  double sum = 0.0;
};

// Everything about one block.
struct BlockStats {
  std::uint64_t nan = 0, posinf = 0, neginf = 0, zero = 0, subnormal = 0;
  // Of the finite values; where there is none: +inf, -inf, and zeros.
  double min = 0, max = 0;
  double abs_sum = 0;
  double mean = 0;
  ScaledSquares squares;
  ScaledSquares deviations;  // squared distances from the mean
};

// Elements of a piece: its bytes lie in the second-level cache, whatever the type.
constexpr std::size_t kPiece = 65536;
using NextPiece = const void *(*)(void *context, std::size_t first, std::size_t count);
// Told of every span (at most four times 2048 elements) while it lies in the first-level cache.
using SeenSpan = void (*)(void *context, const void *data, std::size_t first, std::size_t count);

struct ArrayKernels {
  NonfiniteCounts (*count_nonfinite)(const void *data, std::size_t n, Dtype dtype);
  bool (*has_nonfinite)(const void *data, std::size_t n, Dtype dtype);
  // n where there is none.
  std::size_t (*first_nonfinite)(const void *data, std::size_t n, Dtype dtype);
  // One block each (n <= kBlock). A non-finite input makes the result non-finite.
  ScaledSquares (*sum_squares)(const void *data, std::size_t n, Dtype dtype);
  double (*sum_abs)(const void *data, std::size_t n, Dtype dtype);
  double (*max_abs)(const void *data, std::size_t n, Dtype dtype);
  void (*block_stats)(const void *data, std::size_t n, Dtype dtype, BlockStats *out);
  // The same bits for a block that comes in pieces of kPiece elements (the last one shorter):
  // `next` gives each in turn, which need not stay, or null to end. False, with `out` undefined,
  // where a second look at the whole block would be needed, or where `next` ended it. `seen` is
  // for what else is to be done with the bytes: the spans of a piece in order, each once.
  bool (*stream_stats)(std::size_t n, Dtype dtype, NextPiece next, SeenSpan seen, void *context,
                       BlockStats *out);
  // Digest of `bytes` bytes whose first lies at byte `start` (a multiple of 8) of the whole:
  // sum of mix(word xor K * index) mod 2^64 over little-endian 8-byte words, the last one filled up
  // with zeros. Depends on the place of every word, never on the order of the work.
  std::uint64_t (*digest)(const void *data, std::size_t bytes, std::uint64_t start);
  // The same for a multiple of 256 bytes, which it folds onto a CRC-32 (Crc32::folded) besides: one
  // has instructions to wait for where the other has none. nullptr where the target cannot.
  std::uint64_t (*digest_and_fold)(const void *data, std::size_t bytes, std::uint64_t start,
                                   unsigned char *folded);
  // Adds to counts[kExponents] how many elements have each biased exponent: of a double where
  // has_double_lanes(dtype), of a float otherwise. Zeros and subnormals are 0, non-finite values
  // the last one in use (2047, 255).
  void (*exponents)(const void *data, std::size_t n, Dtype dtype, std::uint64_t *counts);
  // How many magnitudes lie below `bound`, or not above it. A NaN is not below anything.
  std::uint64_t (*below)(const void *data, std::size_t n, Dtype dtype, double bound,
                         bool inclusive);
  // Loads every byte and does as good as nothing with it: the limit that the others are measured
  // against.
  std::uint64_t (*read)(const void *data, std::size_t bytes);
};

}  // namespace mlsd
