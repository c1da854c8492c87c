// The loops of arrays.hpp, written once for every target.
#pragma once

#include "kernels/vectors-inl.hpp"
#include "mlsd/arrays.hpp"

namespace mlsd {
namespace MLSD_TARGET_NAMESPACE {

constexpr double kInfinity = __builtin_inf();

// The hardware's prefetcher stops at every 4 KiB page; this runs over the edge. Reading ahead of
// the array's end is harmless: a prefetch never faults.
constexpr size_t kAhead = 4096;
inline void ahead(const char *p, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64)
    __builtin_prefetch(reinterpret_cast<const char *>(reinterpret_cast<uintptr_t>(p) + kAhead + i),
                       0, 3);
}

inline size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

// ---- non-finite: integers only, at full width -------------------------------------------------

// (bits without sign) + one unit of the exponent carries into the sign bit exactly where the
// exponent is all ones.
struct SingleExponent {
  using Bits = uint32_t;
  using V = vu32;
  static constexpr Bits magnitude = 0x7fffffffu, unit = 0x00800000u, sign = 0x80000000u;
  static constexpr Bits infinity = 0x7f800000u;
};
struct DoubleExponent {
  using Bits = uint64_t;
  using V = vu64;
  static constexpr Bits magnitude = 0x7fffffffffffffffull, unit = 0x0010000000000000ull,
                        sign = 0x8000000000000000ull;
  static constexpr Bits infinity = 0x7ff0000000000000ull;
};
struct BrainExponent {
  using Bits = uint16_t;
  using V = vu16;
  static constexpr Bits magnitude = 0x7fffu, unit = 0x0080u, sign = 0x8000u, infinity = 0x7f80u;
};
struct HalfExponent {
  using Bits = uint16_t;
  using V = vu16;
  static constexpr Bits magnitude = 0x7fffu, unit = 0x0400u, sign = 0x8000u, infinity = 0x7c00u;
};

template <typename V>
inline bool any_sign(V v, V sign) {
  const V masked = v & sign;
  uint64_t words[W / 8];
  __builtin_memcpy(words, &masked, sizeof words);
  uint64_t all = 0;
  for (size_t i = 0; i < W / 8; ++i) all |= words[i];
  return all != 0;
}

template <typename E>
inline bool span_has_nonfinite(const char *p, size_t n) {
  using V = typename E::V;
  constexpr size_t L = lanes<V>, B = sizeof(typename E::Bits);
  const V magnitude = V{} + E::magnitude, unit = V{} + E::unit, sign = V{} + E::sign;
  V a = {}, b = {}, c = {}, d = {};
  size_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L) {
    const char *q = p + i * B;
    ahead(q, 4 * W);
    a |= (load<V>(q) & magnitude) + unit;
    b |= (load<V>(q + W) & magnitude) + unit;
    c |= (load<V>(q + 2 * W) & magnitude) + unit;
    d |= (load<V>(q + 3 * W) & magnitude) + unit;
  }
  for (; i + L <= n; i += L) a |= (load<V>(p + i * B) & magnitude) + unit;
  if (i < n) {
    V tail = {};
    __builtin_memcpy(&tail, p + i * B, (n - i) * B);
    a |= (tail & magnitude) + unit;
  }
  return any_sign<V>((a | b) | (c | d), sign);
}

template <typename E>
inline bool scan_nonfinite(const char *p, size_t n) {
  constexpr size_t step = 16384;  // early exit now and then, seldom enough to cost nothing
  for (size_t i = 0; i < n; i += step)
    if (span_has_nonfinite<E>(p + i * sizeof(typename E::Bits), smaller(step, n - i))) return true;
  return false;
}

template <typename E>
inline bool is_nonfinite(const char *p, size_t i, typename E::Bits *magnitude, bool *negative) {
  typename E::Bits bits;
  __builtin_memcpy(&bits, p + i * sizeof bits, sizeof bits);
  *magnitude = static_cast<typename E::Bits>(bits & E::magnitude);
  *negative = (bits & E::sign) != 0;
  return *magnitude >= E::infinity;
}

template <typename E>
inline size_t find_nonfinite(const char *p, size_t n) {
  constexpr size_t step = 1024;
  typename E::Bits magnitude;
  bool negative;
  for (size_t i = 0; i < n; i += step) {
    const size_t count = smaller(step, n - i);
    if (!span_has_nonfinite<E>(p + i * sizeof(typename E::Bits), count)) continue;
    for (size_t j = i; j < i + count; ++j)
      if (is_nonfinite<E>(p, j, &magnitude, &negative)) return j;
  }
  return n;
}

// Lane sums of three comparisons, kept as small integers for at most 255 vectors before they spill.
template <typename E>
inline void count_span(const char *p, size_t n, NonfiniteCounts *out) {
  using V = typename E::V;
  using Bits = typename E::Bits;
  constexpr size_t L = lanes<V>;
  const V infinity = V{} + E::infinity, magnitude = V{} + E::magnitude, sign = V{} + E::sign;
  V nan = {}, pos = {}, neg = {};
  const V negative_infinity = sign | infinity;
  size_t i = 0;
  for (; i + L <= n; i += L) {
    const V bits = load<V>(p + i * sizeof(Bits));
    nan -= bits_as<V>((bits & magnitude) > infinity);
    pos -= bits_as<V>(bits == infinity);
    neg -= bits_as<V>(bits == negative_infinity);
  }
  for (size_t lane = 0; lane < L; ++lane) {
    out->nan += nan[lane];
    out->posinf += pos[lane];
    out->neginf += neg[lane];
  }
  for (; i < n; ++i) {
    Bits found;
    bool below;
    if (!is_nonfinite<E>(p, i, &found, &below)) continue;
    if (found > E::infinity)
      ++out->nan;
    else if (below)
      ++out->neginf;
    else
      ++out->posinf;
  }
}

template <typename E>
inline NonfiniteCounts count_nonfinite(const char *p, size_t n) {
  NonfiniteCounts out;
  constexpr size_t step = 16384;  // below 2^16 counts a 16-bit lane
  for (size_t i = 0; i < n; i += step) {
    const size_t count = smaller(step, n - i);
    const char *q = p + i * sizeof(typename E::Bits);
    if (span_has_nonfinite<E>(q, count)) count_span<E>(q, count, &out);
  }
  return out;
}

// ---- sums -------------------------------------------------------------------------------------

// The last n < lanes elements of a span as a vector; the other lanes hold `fill`.
template <typename F>
inline typename F::V tail_vector(const char *p, size_t n, double fill) {
  using V = typename F::V;
  alignas(64) char padded[W] = {};
  __builtin_memcpy(padded, p, n * F::step);
  V v = F::vector(padded);
  for (size_t lane = n; lane < lanes<V>; ++lane) v[lane] = static_cast<decltype(v[0] + v[0])>(fill);
  return v;
}

inline void flush(vf v, vd *low, vd *high) {
  *low += low_doubles(v);
  *high += high_doubles(v);
}
inline void flush(vd v, vd *low, vd *) { *low += v; }

inline double across(vd v) {
  double sum = 0;
  for (size_t lane = 0; lane < lanes<vd>; ++lane) sum += v[lane];
  return sum;
}

template <typename V>
inline V magnitude_of(V v);
template <>
inline vf magnitude_of<vf>(vf v) {
  return bits_as<vf>(bits_as<vu32>(v) & (vu32{} + 0x7fffffffu));
}
template <>
inline vd magnitude_of<vd>(vd v) {
  return bits_as<vd>(bits_as<vu64>(v) & (vu64{} + 0x7fffffffffffffffull));
}

struct Square {
  template <typename V>
  static V add(V sum, V v) {
    return sum + v * v;  // fused or not: the same code on one target is the same number
  }
};
struct Magnitude {
  template <typename V>
  static V add(V sum, V v) {
    return sum + magnitude_of(v);
  }
};
struct Largest {
  template <typename V>
  static V add(V sum, V v) {
    const V m = magnitude_of(v);
    return m > sum || m != m ? m : sum;
  }
};

// Four independent chains over one span.
template <typename F, typename Op>
inline void chains(const char *p, size_t n, typename F::V *out) {
  using V = typename F::V;
  constexpr size_t L = lanes<V>, B = F::step;
  V a = out[0], b = out[1], c = out[2], d = out[3];
  size_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L) {
    const char *q = p + i * B;
    V w, x, y, z;
    ahead(q, 4 * L * B);
    F::pair(q, &w, &x);
    F::pair(q + 2 * L * B, &y, &z);
    a = Op::add(a, w);
    b = Op::add(b, x);
    c = Op::add(c, y);
    d = Op::add(d, z);
  }
  for (; i + L <= n; i += L) a = Op::add(a, F::vector(p + i * B));
  if (i < n) b = Op::add(b, tail_vector<F>(p + i * B, n - i, 0.0));
  out[0] = a;
  out[1] = b;
  out[2] = c;
  out[3] = d;
}

template <typename F, typename Op>
inline double sum_block(const char *p, size_t n) {
  using V = typename F::V;
  alignas(64) char scratch[kShort * 8];
  vd low = {}, high = {};
  for (size_t i = 0; i < n; i += kShort) {
    V lanes4[4] = {};
    const size_t count = smaller(kShort, n - i);
    chains<F, Op>(F::span(p, i, count, scratch), count, lanes4);
    flush((lanes4[0] + lanes4[1]) + (lanes4[2] + lanes4[3]), &low, &high);
  }
  return across(low + high);
}

// The slow, safe way: 64-bit arithmetic on values scaled by a power of two.
template <typename F, typename Each>
inline void each_value(const char *p, size_t n, Each each) {
  using V = typename F::V;
  alignas(64) char scratch[kShort * 8];
  for (size_t i = 0; i < n; i += kShort) {
    const size_t count = smaller(kShort, n - i);
    const char *q = F::span(p, i, count, scratch);
    for (size_t j = 0; j < count; j += lanes<V>) {
      const size_t here = smaller(lanes<V>, count - j);
      const V v = here == lanes<V> ? F::vector(q + j * F::step)
                                   : tail_vector<F>(q + j * F::step, here, 0.0);
      for (size_t lane = 0; lane < here; ++lane) each(static_cast<double>(v[lane]));
    }
  }
}

inline double power_of_two(int exponent) {
  double out = 1.0;
  for (; exponent > 0; --exponent) out *= 2.0;
  for (; exponent < 0; ++exponent) out *= 0.5;
  return out;
}

// 2^k near the largest magnitude, so that scaled squares neither overflow nor vanish.
inline double scale_for(double largest) {
  if (!(largest > 0) || largest > 0x1p1023 * 1.9999999) return 1.0;
  int exponent = 0;
  __builtin_frexp(largest, &exponent);
  // 2^-1074 has no normal reciprocal: stay where 1 / scale is finite.
  if (exponent < -1000) exponent = -1000;
  if (exponent > 1000) exponent = 1000;
  return power_of_two(exponent);
}

template <typename F>
inline double largest_block(const char *p, size_t n) {
  using V = typename F::V;
  alignas(64) char scratch[kShort * 8];
  V lanes4[4] = {};
  for (size_t i = 0; i < n; i += kShort) {
    const size_t count = smaller(kShort, n - i);
    chains<F, Largest>(F::span(p, i, count, scratch), count, lanes4);
  }
  double best = 0;
  for (const V &v : lanes4)
    for (size_t lane = 0; lane < lanes<V>; ++lane) {
      const double x = static_cast<double>(v[lane]);
      if (x != x) return x;
      if (x > best) best = x;
    }
  return best;
}

template <typename F>
inline ScaledSquares squares_block(const char *p, size_t n) {
  const double fast = sum_block<F, Square>(p, n);
  const bool narrow = sizeof(typename F::V{}[0]) == 4;
  // Squares under the smallest normal float lose bits: below this share of them nothing is lost.
  const double floor = static_cast<double>(n) * (narrow ? 0x1p-100 : 0x1p-960);
  if (fast != fast || (fast >= floor && fast < kInfinity) || n == 0) return {1.0, fast};
  const double largest = largest_block<F>(p, n);
  if (largest == 0.0) return {1.0, 0.0};
  if (!(largest < kInfinity)) return {1.0, largest};
  const double scale = scale_for(largest), inverse = 1.0 / scale;
  double sum = 0;
  each_value<F>(p, n, [&](double x) { sum += (x * inverse) * (x * inverse); });
  return {scale, sum};
}

// ---- statistics -------------------------------------------------------------------------------

template <typename V>
struct Bits;
template <>
struct Bits<vf> {
  using U = vu32;
  static constexpr uint32_t magnitude = 0x7fffffffu, infinity = 0x7f800000u;
};
template <>
struct Bits<vd> {
  using U = vu64;
  static constexpr uint64_t magnitude = 0x7fffffffffffffffull, infinity = 0x7ff0000000000000ull;
};

template <typename V>
struct Lanes {
  V min, max, abs_sum, squares, shifted, shifted_squares;
  typename Bits<V>::U smallest;  // magnitude bits
};

template <typename V>
inline void absorb(Lanes<V> *l, V v, V pivot) {
  using U = typename Bits<V>::U;
  const U m = bits_as<U>(v) & (U{} + Bits<V>::magnitude);
  l->smallest = minimum(l->smallest, m);
  l->min = minimum(l->min, v);
  l->max = maximum(l->max, v);
  l->abs_sum += bits_as<V>(m);
  l->squares += v * v;
  const V d = v - pivot;
  l->shifted += d;
  l->shifted_squares += d * d;
}

template <typename V>
struct Totals {
  V min, max;
  vd abs_low = {}, abs_high = {}, sq_low = {}, sq_high = {}, d_low = {}, d_high = {}, d2_low = {},
     d2_high = {};
};

template <typename F>
inline void count_small(const char *p, size_t n, BlockStats *out) {
  using V = typename F::V;
  using U = typename Bits<V>::U;
  const V normal = V{} + static_cast<decltype(V{}[0] + V{}[0])>(F::min_normal);
  U zeros = {}, smalls = {};
  size_t i = 0;
  constexpr size_t L = lanes<V>;
  for (; i < n; i += L) {
    const size_t here = smaller(L, n - i);
    const V v =
        here == L ? F::vector(p + i * F::step) : tail_vector<F>(p + i * F::step, here, 1e30);
    const V m = magnitude_of(v);
    zeros -= bits_as<U>(m == V{});
    smalls -= bits_as<U>(m < normal);  // a NaN is neither
  }
  uint64_t zero = 0, small = 0;
  for (size_t lane = 0; lane < L; ++lane) {
    zero += zeros[lane];
    small += smalls[lane];
  }
  out->zero += zero;
  out->subnormal += small > zero ? small - zero : 0;
}

template <typename F>
inline void count_special(const char *p, size_t n, BlockStats *out) {
  using V = typename F::V;
  using U = typename Bits<V>::U;
  constexpr size_t L = lanes<V>;
  const U infinity = U{} + Bits<V>::infinity, magnitude = U{} + Bits<V>::magnitude;
  U nan = {}, infinite = {}, positive = {};
  for (size_t i = 0; i < n; i += L) {
    const size_t here = smaller(L, n - i);
    const U bits = bits_as<U>(here == L ? F::vector(p + i * F::step)
                                        : tail_vector<F>(p + i * F::step, here, 0.0));
    nan -= bits_as<U>((bits & magnitude) > infinity);
    infinite -= bits_as<U>((bits & magnitude) == infinity);
    positive -= bits_as<U>(bits == infinity);
  }
  for (size_t lane = 0; lane < L; ++lane) {
    out->nan += nan[lane];
    out->posinf += positive[lane];
    out->neginf += infinite[lane] - positive[lane];
  }
}

template <typename V>
inline Lanes<V> fresh_lanes() {
  Lanes<V> l = {};
  l.min = V{} + static_cast<decltype(V{}[0] + V{}[0])>(kInfinity);
  l.max = -l.min;
  l.smallest = typename Bits<V>::U{} + Bits<V>::magnitude;
  return l;
}

// One span of at most kShort elements. With `masked`, non-finite lanes count as the pivot in the
// shifted sums, as zero in the others, and not at all in the extremes.
template <typename F, bool masked>
inline Lanes<typename F::V> span_lanes(const char *p, size_t n, typename F::V pivot) {
  using V = typename F::V;
  using U = typename Bits<V>::U;
  constexpr size_t L = lanes<V>;
  const U infinity = U{} + Bits<V>::infinity;
  Lanes<V> l = fresh_lanes<V>();
  const auto one = [&](V v, U counted) {
    if constexpr (!masked) {
      (void)counted;
      absorb(&l, v, pivot);
    } else {
      const U m = bits_as<U>(v) & (U{} + Bits<V>::magnitude);
      const U good = bits_as<U>(m < infinity) & counted;
      const V clean = bits_as<V>(bits_as<U>(v) & good);
      const V d = bits_as<V>(bits_as<U>(v - pivot) & good);
      l.smallest = minimum(l.smallest, m | (~good & (U{} + Bits<V>::magnitude)));
      l.min = minimum(l.min, bits_as<V>((bits_as<U>(v) & good) | (infinity & ~good)));
      const U below = infinity | ~(U{} + Bits<V>::magnitude);
      l.max = maximum(l.max, bits_as<V>((bits_as<U>(v) & good) | (below & ~good)));
      l.abs_sum += magnitude_of(clean);
      l.squares += clean * clean;
      l.shifted += d;
      l.shifted_squares += d * d;
    }
  };
  size_t i = 0;
  for (; i + 2 * L <= n; i += 2 * L) {
    V a, b;
    ahead(p + i * F::step, 2 * L * F::step);
    F::pair(p + i * F::step, &a, &b);
    one(a, ~U{});
    one(b, ~U{});
  }
  for (; i + L <= n; i += L) one(F::vector(p + i * F::step), ~U{});
  if constexpr (masked) {
    if (i < n) {
      U counted = {};
      for (size_t lane = 0; lane < n - i; ++lane) counted[lane] = ~(U{}[0]);
      one(tail_vector<F>(p + i * F::step, n - i, 0.0), counted);
    }
  }
  return l;
}

template <typename V>
inline bool all_finite(V v) {
  return !any_sign<typename Bits<V>::U>(
      (bits_as<typename Bits<V>::U>(v) & (typename Bits<V>::U{} + Bits<V>::magnitude)) +
          (typename Bits<V>::U{} + static_cast<decltype(typename Bits<V>::U{}[0])>(
                                       Bits<V>::magnitude - Bits<V>::infinity + 1)),
      typename Bits<V>::U{} +
          static_cast<decltype(typename Bits<V>::U{}[0])>(Bits<V>::magnitude + 1));
}

// Whether a lane's least magnitude is zero or subnormal.
template <typename F>
inline bool has_small(typename Bits<typename F::V>::U least) {
  using V = typename F::V;
  using U = typename Bits<V>::U;
  const V normal = V{} + static_cast<decltype(V{}[0] + V{}[0])>(F::min_normal);
  U bound = bits_as<U>(normal);
  if (bound[0] == 0) bound = bound + 1;  // formats without subnormals: zeros alone
  return any_sign<U>(bits_as<U>(least < bound), U{} + (Bits<V>::magnitude + 1));
}

// Adds one span to a block; sums are flushed to 64 bits.
template <typename F>
inline void add_span(const char *p, size_t n, typename F::V pivot, BlockStats *out,
                     Totals<typename F::V> *t) {
  using V = typename F::V;
  constexpr size_t L = lanes<V>;
  const auto take = [&](const Lanes<V> &l, const char *q, size_t count) {
    t->min = minimum(t->min, l.min);
    t->max = maximum(t->max, l.max);
    flush(l.abs_sum, &t->abs_low, &t->abs_high);
    flush(l.squares, &t->sq_low, &t->sq_high);
    flush(l.shifted, &t->d_low, &t->d_high);
    flush(l.shifted_squares, &t->d2_low, &t->d2_high);
    if (has_small<F>(l.smallest)) count_small<F>(q, count, out);
  };
  const size_t whole = n / L * L;
  if (whole != 0) {
    Lanes<V> l = span_lanes<F, false>(p, whole, pivot);
    if (!all_finite(l.squares)) {  // a non-finite value, or an overflow
      count_special<F>(p, whole, out);
      l = span_lanes<F, true>(p, whole, pivot);
    }
    take(l, p, whole);
  }
  if (whole < n) {
    const char *q = p + whole * F::step;
    count_special<F>(q, n - whole, out);
    take(span_lanes<F, true>(q, n - whole, pivot), q, n - whole);
  }
}

// Mean of the finite values of the first span: deviations from it stay small, so that their squares
// keep their digits however far from zero the values lie.
template <typename F>
inline double pivot_of(const char *p, size_t n) {
  double sum = 0;
  size_t count = 0;
  each_value<F>(p, smaller(n, 256), [&](double x) {
    if (x - x == 0) {
      sum += x;
      ++count;
    }
  });
  const double mean = count == 0 ? 0.0 : sum / static_cast<double>(count);
  return mean - mean == 0 ? mean : 0.0;
}

template <typename F>
inline void careful_sums(const char *p, size_t n, double count, BlockStats *out) {
  const double largest = out->max > -out->min ? out->max : -out->min;
  const double scale = scale_for(largest), inverse = 1.0 / scale;
  double sum = 0, abs_sum = 0, squares = 0, deviations = 0;
  each_value<F>(p, n, [&](double x) {
    if (x - x != 0) return;
    const double y = x * inverse;
    sum += y;
    abs_sum += y < 0 ? -y : y;
    squares += y * y;
  });
  const double mean = sum / count;
  each_value<F>(p, n, [&](double x) {
    if (x - x != 0) return;
    const double d = x * inverse - mean;
    deviations += d * d;
  });
  out->mean = mean * scale;
  out->abs_sum = abs_sum * scale;
  out->squares = {scale, squares};
  out->deviations = {scale, deviations};
}

template <typename F>
inline void stats_block(const char *p, size_t n, BlockStats *out) {
  using V = typename F::V;
  *out = BlockStats{};
  out->min = kInfinity;
  out->max = -kInfinity;
  if (n == 0) return;
  alignas(64) char scratch[kShort * 8];
  const V pivot = V{} + static_cast<decltype(V{}[0] + V{}[0])>(pivot_of<F>(p, n));
  Totals<V> t = {};
  t.min = fresh_lanes<V>().min;
  t.max = fresh_lanes<V>().max;
  for (size_t i = 0; i < n; i += kShort) {
    const size_t count = smaller(kShort, n - i);
    add_span<F>(F::span(p, i, count, scratch), count, pivot, out, &t);
  }
  for (size_t lane = 0; lane < lanes<V>; ++lane) {
    const double low = static_cast<double>(t.min[lane]), high = static_cast<double>(t.max[lane]);
    if (low < out->min) out->min = low;
    if (high > out->max) out->max = high;
  }
  const double count = static_cast<double>(n - out->nan - out->posinf - out->neginf);
  if (count == 0) return;
  const double squares = across(t.sq_low + t.sq_high), shifted = across(t.d_low + t.d_high);
  const double shifted_squares = across(t.d2_low + t.d2_high);
  const double abs_sum = across(t.abs_low + t.abs_high);
  const double floor = count * (sizeof(V{}[0]) == 4 ? 0x1p-100 : 0x1p-960);
  const double all = squares + shifted_squares + abs_sum;
  const bool zeros = out->min == 0 && out->max == 0;
  if (all - all != 0 || (squares < floor && !zeros)) {
    careful_sums<F>(p, n, count, out);
    return;
  }
  out->abs_sum = abs_sum;
  out->mean = static_cast<double>(pivot[0]) + shifted / count;
  const double deviations = shifted_squares - shifted * (shifted / count);
  out->squares = {1.0, squares};
  out->deviations = {1.0, deviations > 0 ? deviations : 0.0};
}

// ---- digest -----------------------------------------------------------------------------------

// Two Feistel rounds over the halves of a word: a bijection, so that one changed word always
// changes the sum, made of 32-bit products, which every target has as one instruction.
inline vu64 product(vu64 x, vu64 factor) {  // of the low halves
#if defined(__AVX512F__)
  return (vu64)_mm512_maskz_mul_epu32(0xff, (__m512i)x, (__m512i)factor);
#elif defined(__AVX2__)
  return (vu64)_mm256_mul_epu32((__m256i)x, (__m256i)factor);
#elif defined(__SSE2__)
  return (vu64)_mm_mul_epu32((__m128i)x, (__m128i)factor);
#else
  const vu64 low = vu64{} + 0xffffffffull;
  return (x & low) * factor;
#endif
}

inline vu64 mix(vu64 x) {
  x ^= product(x, vu64{} + 0x9e3779b1ull) << 32;
  x ^= product(x >> 32, vu64{} + 0x85ebca77ull) >> 32;
  return x;
}

inline uint64_t digest_bytes(const char *p, size_t bytes, uint64_t start) {
  constexpr uint64_t key = 0x9e3779b97f4a7c15ull;
  constexpr size_t L = lanes<vu64>;
  vu64 place;
  for (size_t lane = 0; lane < L; ++lane) place[lane] = (start / 8 + lane + 1) * key;
  const vu64 step = vu64{} + key * L;
  vu64 a = {}, b = {};
  size_t i = 0;
  for (; i + 2 * W <= bytes; i += 2 * W) {
    ahead(p + i, 2 * W);
    a += mix(load<vu64>(p + i) ^ place);
    place += step;
    b += mix(load<vu64>(p + i + W) ^ place);
    place += step;
  }
  a += b;
  uint64_t sum = 0;
  for (size_t lane = 0; lane < L; ++lane) sum += a[lane];
  for (uint64_t index = (start + i) / 8 + 1; i < bytes; i += 8, ++index) {
    uint64_t word = 0;
    __builtin_memcpy(&word, p + i, smaller(8, bytes - i));
    vu64 one = {};
    one[0] = word ^ index * key;
    sum += mix(one)[0];
  }
  return sum;
}

}  // namespace MLSD_TARGET_NAMESPACE
}  // namespace mlsd
