// Where magnitudes lie: counts by binary exponent, and counts below given bounds.
#pragma once

#include "kernels/arrays-inl.hpp"

namespace mlsd {
namespace MLSD_TARGET_NAMESPACE {

// Bits of a value as its format's lanes hold it, without the sign, shifted to its exponent.
inline uint32_t exponent_of(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return (bits & 0x7fffffffu) >> 23;
}
inline uint32_t exponent_of(double x) {
  uint64_t bits;
  __builtin_memcpy(&bits, &x, 8);
  return static_cast<uint32_t>((bits & 0x7fffffffffffffffull) >> 52);
}

// Four tables in turn: neighbours tend to share an exponent, and an increment that waits for the
// one before it takes five times as long.
template <typename F>
inline void exponents_block(const char *p, size_t n, uint64_t *counts) {
  using V = typename F::V;
  constexpr size_t L = lanes<V>;
  alignas(64) char scratch[kShort * 8];
  uint32_t tables[4][kExponents] = {};
  for (size_t i = 0; i < n; i += kShort) {
    const size_t count = smaller(kShort, n - i);
    const char *q = F::span(p, i, count, scratch);
    for (size_t j = 0; j < count; j += L) {
      const size_t here = smaller(L, count - j);
      const V v =
          here == L ? F::vector(q + j * F::step) : tail_vector<F>(q + j * F::step, here, 0.0);
      for (size_t lane = 0; lane < here; ++lane) ++tables[lane & 3][exponent_of(v[lane])];
    }
  }
  for (size_t e = 0; e < kExponents; ++e)
    counts[e] += static_cast<uint64_t>(tables[0][e]) + tables[1][e] + tables[2][e] + tables[3][e];
}

template <typename F>
inline uint64_t below_block(const char *p, size_t n, double bound, bool inclusive) {
  using V = typename F::V;
  using U = typename Bits<V>::U;
  constexpr size_t L = lanes<V>;
  alignas(64) char scratch[kShort * 8];
  const V limit = V{} + static_cast<decltype(V{}[0] + V{}[0])>(bound);
  U found = {};
  for (size_t i = 0; i < n; i += kShort) {
    const size_t count = smaller(kShort, n - i);
    const char *q = F::span(p, i, count, scratch);
    for (size_t j = 0; j < count; j += L) {
      const size_t here = smaller(L, count - j);
      // A NaN is not below anything.
      const V m =
          magnitude_of(here == L ? F::vector(q + j * F::step)
                                 : tail_vector<F>(q + j * F::step, here, __builtin_nan("")));
      found -= inclusive ? bits_as<U>(m <= limit) : bits_as<U>(m < limit);
    }
  }
  uint64_t total = 0;
  for (size_t lane = 0; lane < L; ++lane) total += found[lane];
  return total;
}

}  // namespace MLSD_TARGET_NAMESPACE
}  // namespace mlsd
