// The loops of arrays.hpp, written once for every target.
#pragma once

#include "kernels/crc_folds.hpp"
#include "kernels/vectors-inl.hpp"
#include "mlsd/arrays.hpp"

namespace mlsd {
namespace MLSD_TARGET_NAMESPACE {

constexpr double kInfinity = __builtin_inf();

// The hardware's prefetcher stops at every 4 KiB page; this runs over the edge. Reading ahead of
// the array's end is harmless: a prefetch never faults. Zen 4's own reads ahead well enough, and
// loses by it: a seventh from memory (at any distance, with any hint), a third from its L3 cache.
constexpr size_t kAhead = 1024;
inline void ahead([[maybe_unused]] const char *p, [[maybe_unused]] size_t bytes) {
#if !defined(__AVX512BF16__)
  for (size_t i = 0; i < bytes; i += 64)
    __builtin_prefetch(reinterpret_cast<const char *>(reinterpret_cast<uintptr_t>(p) + kAhead + i),
                       0, 3);
#endif
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

// 8-bit floats with signed NaNs; where there are infinities, they come before the NaNs.
template <uint8_t Least>
struct ByteExponent {
  using Bits = uint8_t;
  using V = vu8;
  static constexpr Bits magnitude = 0x7fu, unit = 0x80u - Least, sign = 0x80u, infinity = Least;
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

// Whether one of n bytes is `code`, which is not zero.
inline bool has_code(const char *p, size_t n, uint8_t code) {
  constexpr size_t step = 16384;
  const vu8 wanted = vu8{} + code;
  for (size_t first = 0; first < n; first += step) {
    const size_t end = smaller(n, first + step);
    vu8 a = {}, b = {};
    size_t i = first;
    for (; i + 2 * W <= end; i += 2 * W) {
      ahead(p + i, 2 * W);
      a |= bits_as<vu8>(load<vu8>(p + i) == wanted);
      b |= bits_as<vu8>(load<vu8>(p + i + W) == wanted);
    }
    for (; i < end; i += W) {
      vu8 tail = {};
      __builtin_memcpy(&tail, p + i, smaller(W, end - i));
      a |= bits_as<vu8>(tail == wanted);
    }
    if (any_sign<vu8>(a | b, vu8{} + static_cast<uint8_t>(0x80))) return true;
  }
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
    ahead(p + i * sizeof(Bits), W);
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
  bool suspicious = false;
  for (size_t i = 0; i < n; i += step) {
    const size_t count = smaller(step, n - i);
    const char *q = p + i * sizeof(typename E::Bits);
    // Bad values come in runs: after one bad span the next is counted without asking first.
    const uint64_t before = out.nan + out.posinf + out.neginf;
    if (suspicious || span_has_nonfinite<E>(q, count)) count_span<E>(q, count, &out);
    suspicious = out.nan + out.posinf + out.neginf != before;
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

// In pairs: half as deep a chain of additions as from left to right, and less. Written out, since
// compilers make a store and loads that wait for it of a loop.
template <typename V>
inline double across(V v) {
  if constexpr (lanes<V> == 8)
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
  else if constexpr (lanes<V> == 4)
    return (v[0] + v[2]) + (v[1] + v[3]);
  else
    return v[0] + v[1];
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
  const V all =
      Largest::add(Largest::add(lanes4[0], lanes4[1]), Largest::add(lanes4[2], lanes4[3]));
  double best = 0;
  for (size_t lane = 0; lane < lanes<V>; ++lane) {
    const double x = static_cast<double>(all[lane]);
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

// What a span leaves in its lanes.
template <typename V>
struct Lanes {
  V min, max, abs_sum, sum, squares;
  V shifted_squares;             // and then `sum` is of the distances from the pivot, too
  typename Bits<V>::U smallest;  // magnitude bits
};

template <typename V>
struct Totals {
  V min, max;
  vd abs_low = {}, abs_high = {}, sq_low = {}, sq_high = {}, sum_low = {}, sum_high = {},
     d2_low = {}, d2_high = {};
};

// Of lanes that come to less than 2^16 together: as words, whose four fields one product adds up.
inline uint64_t sum_of_halves(vi16 counts) {
  uint64_t words[W / 8], all = 0;
  __builtin_memcpy(words, &counts, sizeof words);
  for (size_t i = 0; i < W / 8; ++i) all += words[i];
  return all * 0x0001000100010001ull >> 48;
}

// Zeros and subnormals of formats that lie in memory as 16 bits: by their bit patterns.
template <typename F>
inline void count_small_halves(const char *p, size_t n, BlockStats *out) {
  constexpr size_t L = lanes<vi16>;
  const vi16 magnitude = vi16{} + static_cast<int16_t>(0x7fff), normal = vi16{} + F::normal_bits;
  vi16 zeros = {}, smalls = {};  // at most kShort / L each
  size_t i = 0;
  for (; i + L <= n; i += L) {
    const vi16 x = load<vi16>(p + 2 * i);
#if defined(__AVX512BW__)
    const __m512i bits = (__m512i)(x & magnitude), one = _mm512_set1_epi16(1);
    zeros = (vi16)_mm512_mask_add_epi16((__m512i)zeros, _mm512_testn_epi16_mask(bits, bits),
                                        (__m512i)zeros, one);
    smalls = (vi16)_mm512_mask_add_epi16(
        (__m512i)smalls, _mm512_cmplt_epi16_mask(bits, (__m512i)normal), (__m512i)smalls, one);
#else
    zeros -= (x & magnitude) == vi16{};
    smalls -= (x & magnitude) < normal;
#endif
  }
  static_assert(4 * kShort < 65536, "what four lanes of a word hold together fits one of them");
  uint64_t zero = sum_of_halves(zeros), small = sum_of_halves(smalls);
  for (; i < n; ++i) {
    int16_t m;
    __builtin_memcpy(&m, p + 2 * i, 2);
    m = static_cast<int16_t>(m & 0x7fff);
    zero += m == 0;
    small += m < F::normal_bits;
  }
  out->zero += zero;
  out->subnormal += small > zero ? small - zero : 0;
}

template <typename F>
inline void count_small(const char *p, size_t n, BlockStats *out) {
  if constexpr (F::step == 2) {
    count_small_halves<F>(p, n, out);
    return;
  }
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

template <typename V>
inline Lanes<V> fresh_lanes() {
  Lanes<V> l = {};
  l.min = V{} + static_cast<decltype(V{}[0] + V{}[0])>(kInfinity);
  l.max = -l.min;
  l.smallest = typename Bits<V>::U{} + Bits<V>::infinity;
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

// Formats whose first pass has instructions of its own on this target. `own_span` reads n elements
// (at most kLong, a multiple of own_step) as they lie in memory, and adds them to a block unless
// one of them is not finite: false then, with nothing changed.
template <typename F>
constexpr size_t own_step = 0;
constexpr size_t kLong = 4 * kShort;

template <typename F>
inline bool own_span(const char *, size_t, BlockStats *, Totals<typename F::V> *) {
  return false;
}

#if defined(__AVX512BW__)
// Bits set in `bytes` bytes, a multiple of 64.
inline uint64_t bits_set(const void *data, size_t bytes) {
  const char *p = static_cast<const char *>(data);
#if defined(__AVX512VPOPCNTDQ__)
  vu64 sums = {};
  for (size_t i = 0; i < bytes; i += 64)
    sums += (vu64)_mm512_maskz_popcnt_epi64(0xff, load<__m512i>(p + i));
  uint64_t all = 0;
  for (size_t lane = 0; lane < lanes<vu64>; ++lane) all += sums[lane];
  return all;
#else
  uint64_t all = 0;
  for (size_t i = 0; i < bytes; i += 8)
    all += static_cast<uint64_t>(__builtin_popcountll(load<uint64_t>(p + i)));
  return all;
#endif
}

// The sums of a span of a format narrower than 32 bits, flushed after every kShort elements.
struct NarrowSums {
  vf sum[2] = {}, abs_sum[2] = {}, squares[2] = {};

  void take(vf a, vf b, size_t k) {
    const vf together = a + b;
    // |a| + |b| is the larger of |a + b| and |a - b|, rounded alike, for one instruction less. Two
    // of the additions are made as products with one: Zen 4 adds where it converts, and multiplies
    // elsewhere (a twentieth faster for float16).
    __m512 one = _mm512_set1_ps(1.0f);
    asm("" : "+v"(one));  // else compilers see through it
    const __m512 apart = _mm512_fnmadd_ps((__m512)b, one, (__m512)a);
    sum[k] = (vf)_mm512_fmadd_ps((__m512)together, one, (__m512)sum[k]);
    abs_sum[k] += (vf)_mm512_maskz_range_ps(0xffff, (__m512)together, apart, 0x0b);
    squares[0] += a * a;
    squares[1] += b * b;
  }
  // Values times `scale`, a power of two. The sum of squares is not finite where a value is not.
  vf flush_into(Totals<vf> *t, vf scale) const {
    const vf all = (squares[0] + squares[1]) * (scale * scale);
    flush((abs_sum[0] + abs_sum[1]) * scale, &t->abs_low, &t->abs_high);
    flush(all, &t->sq_low, &t->sq_high);
    flush((sum[0] + sum[1]) * scale, &t->sum_low, &t->sum_high);
    return all;
  }
};

inline bool all_finite(vf v) { return _mm512_fpclass_ps_mask((__m512)v, 0x99) == 0; }

inline void count_bits(const void *smalls, const void *zeros, size_t bytes, BlockStats *out) {
  const uint64_t small = bits_set(smalls, bytes);
  if (small == 0) return;
  const uint64_t zero = bits_set(zeros, bytes);
  out->zero += zero;
  out->subnormal += small - zero;
}

// The extremes of `count` vectors, from the largest of their patterns as unsigned and as signed
// integers.
template <typename F>
inline void half_extremes(const char *p, size_t count, __m512i lowest, __m512i highest,
                          Totals<vf> *totals) {
  if (_mm512_movepi16_mask(lowest) == 0) {  // none negative: the one nearest to zero
    for (size_t j = 0; j < count; ++j) lowest = _mm512_min_epu16(lowest, load<__m512i>(p + 64 * j));
  }
  if (_mm512_movepi16_mask(highest) == 0xffffffffu) {  // none positive
    for (size_t j = 0; j < count; ++j)
      highest = _mm512_min_epi16(highest, load<__m512i>(p + 64 * j));
  }
  // Lanes on the other side of zero are further from the extreme than the rest.
  vf a, b;
  alignas(64) char memory[64];
  __builtin_memcpy(memory, &lowest, 64);
  F::pair(memory, &a, &b);
  totals->min = minimum(totals->min, minimum(a, b));
  __builtin_memcpy(memory, &highest, 64);
  F::pair(memory, &a, &b);
  totals->max = maximum(totals->max, maximum(a, b));
}

// Twice as many 16-bit patterns as floats go into a vector. As signed integers they are in order
// where one is positive; as unsigned ones the negative come last, the largest magnitude at the
// end. Whether a pattern is small is asked of its exponent, and the answers are stored as bits:
// the ports that store have nothing else to do, those that calculate have too much.
//
// bfloat16 dot products (AVX512-BF16) were no faster on a Xeon, where one takes as long as four
// other instructions: dot_span below is Zen 4's.
template <typename F>
inline bool half_span(const char *p, size_t n, BlockStats *out, Totals<vf> *t) {
  const __m512i sign = _mm512_set1_epi16(-0x8000), small = _mm512_set1_epi16(F::small_bits),
                mask = _mm512_set1_epi16(0x7fff);
  vi16 most = (vi16)sign;  // no __m512i: compilers keep those that a lambda changes in memory
  vu16 most_negative = {};
  alignas(64) __mmask32 smalls[kLong / 32], zeros[kLong / 32];
  Totals<vf> totals = *t;
  vf squares = {};
  const size_t count = n / 32;
  for (size_t first = 0; first < count; first += kShort / 32) {
    const size_t end = smaller(count, first + kShort / 32);
    NarrowSums sums;
    const auto take = [&](size_t j, size_t k) {
      const char *q = p + 64 * j;
      const __m512i x = load<__m512i>(q);
      most = (vi16)_mm512_max_epi16((__m512i)most, x);
      most_negative = (vu16)_mm512_max_epu16((__m512i)most_negative, x);
      smalls[j] = _mm512_testn_epi16_mask(x, small);
      if constexpr (F::many_small) zeros[j] = _mm512_testn_epi16_mask(x, mask);
      vf a, b;
      F::pair(q, &a, &b);
      sums.take(a, b, k);
    };
    size_t j = first;
    for (; j + 2 <= end; j += 2) {
      ahead(p + 64 * j, 128);
      take(j, 0);
      take(j + 1, 1);
    }
    if (j < end) take(j, 0);
    squares += sums.flush_into(&totals, vf{} + 1.0f);
  }
  if (!all_finite(squares)) return false;
  half_extremes<F>(p, count, (__m512i)most_negative, (__m512i)most, &totals);
  *t = totals;
  size_t filled = count;
  for (; filled % 16 != 0; ++filled) smalls[filled] = zeros[filled] = 0;
  if constexpr (!F::many_small) {
    if (bits_set(smalls, 4 * filled) == 0) return true;
    for (size_t j = 0; j < count; ++j)
      zeros[j] = _mm512_testn_epi16_mask(load<__m512i>(p + 64 * j), mask);
  }
  count_bits(smalls, zeros, 4 * filled, out);
  return true;
}

template <>
constexpr size_t own_step<F16> = 32;
template <>
constexpr size_t own_step<BF16> = 32;
template <>
inline bool own_span<F16>(const char *p, size_t n, BlockStats *out, Totals<vf> *t) {
  return half_span<F16>(p, n, out, t);
}
#if defined(__AVX512BF16__)
// Sums of pairs of bfloat16 values, `m` their magnitudes. A dot product takes subnormal values for
// zeros and leaves no subnormal sum.
struct DotSums {
  vf sum[2] = {}, abs_sum[2] = {}, squares[2] = {};

  static vf dot(vf to, __m512i a, __m512i b) {
    return (vf)_mm512_dpbf16_ps((__m512)to, (__m512bh)a, (__m512bh)b);
  }
  void take(__m512i x, __m512i m, size_t k) {
    const __m512i ones = _mm512_set1_epi16(0x3f80);
    sum[k] = dot(sum[k], x, ones);
    abs_sum[k] = dot(abs_sum[k], m, ones);
    squares[k] = dot(squares[k], x, x);
  }
  vf flush_into(Totals<vf> *t) const {
    const vf all = squares[0] + squares[1];
    flush(abs_sum[0] + abs_sum[1], &t->abs_low, &t->abs_high);
    flush(all, &t->sq_low, &t->sq_high);
    flush(sum[0] + sum[1], &t->sum_low, &t->sum_high);
    return all;
  }
};

enum class Dotted { done, nonfinite, subnormal };

inline Dotted dot_span(const char *p, size_t n, BlockStats *out, Totals<vf> *t) {
  const __m512i mask = _mm512_set1_epi16(0x7fff);
  vi16 most = vi16{} + static_cast<int16_t>(-0x8000), least = (vi16)mask;
  vu16 most_negative = {};
  Totals<vf> totals = *t;
  vf squares = {};
  const size_t count = n / 32;
  for (size_t first = 0; first < count; first += kShort / 32) {
    const size_t end = smaller(count, first + kShort / 32);
    DotSums sums;
    const auto take = [&](size_t j, size_t k) {
      const __m512i x = load<__m512i>(p + 64 * j), m = _mm512_and_si512(x, mask);
      most = (vi16)_mm512_max_epi16((__m512i)most, x);
      most_negative = (vu16)_mm512_max_epu16((__m512i)most_negative, x);
      least = (vi16)_mm512_min_epi16((__m512i)least, m);
      sums.take(x, m, k);
    };
    size_t j = first;
    for (; j + 2 <= end; j += 2) {
      ahead(p + 64 * j, 128);
      take(j, 0);
      take(j + 1, 1);
    }
    if (j < end) take(j, 0);
    squares += sums.flush_into(&totals);
  }
  if (!all_finite(squares)) return Dotted::nonfinite;
  BlockStats small;
  if (_mm512_cmplt_epi16_mask((__m512i)least, _mm512_set1_epi16(BF16::normal_bits)) != 0) {
    count_small_halves<BF16>(p, n, &small);
    if (small.subnormal != 0) return Dotted::subnormal;
  }
  half_extremes<BF16>(p, count, (__m512i)most_negative, (__m512i)most, &totals);
  *t = totals;
  out->zero += small.zero;
  return Dotted::done;
}

// Which way a span is added must not depend on how spans are put together: a long one with
// subnormal values is done again in short ones.
template <>
inline bool own_span<BF16>(const char *p, size_t n, BlockStats *out, Totals<vf> *t) {
  const Dotted dotted = dot_span(p, n, out, t);
  if (dotted != Dotted::subnormal) return dotted == Dotted::done;
  return n <= kShort && half_span<BF16>(p, n, out, t);
}
#else
template <>
inline bool own_span<BF16>(const char *p, size_t n, BlockStats *out, Totals<vf> *t) {
  return half_span<BF16>(p, n, out, t);
}
#endif

// What 8-bit floats have in common, whichever way they are added up: extremes, small ones, and the
// special codes of the formats, which would pass as values and are all seen in the extremes.
template <Dtype D>
class ByteScan {
 public:
  static constexpr bool wide_exponent = D == Dtype::f8_e5m2 || D == Dtype::f8_e5m2fnuz;
  static constexpr bool one_zero = D == Dtype::f8_e4m3fnuz || D == Dtype::f8_e5m2fnuz;
  // The least magnitude that float16 does not hold, or that is special.
  static constexpr uint8_t beyond = wide_exponent ? 0x7c : D == Dtype::f8_e4m3fn ? 0x7f : 0x80;

  // Vector j of the span.
  void take(__m512i x, size_t j) {
    const __m512i small = _mm512_set1_epi8(wide_exponent ? 0x7c : 0x78);
    most_ = (vu64)_mm512_max_epi8((__m512i)most_, x);
    most_negative_ = (vu64)_mm512_max_epu8((__m512i)most_negative_, x);
    if constexpr (one_zero) least_ = (vu64)_mm512_min_epi8((__m512i)least_, x);
    smalls_[j] = _mm512_testn_epi8_mask(x, small);
    zeros_[j] = _mm512_testn_epi8_mask(x, _mm512_set1_epi8(0x7f));
  }
  // False where a code is special.
  bool conclude(const char *p, size_t count, BlockStats *out, Totals<vf> *totals) {
    const __m512i mask = _mm512_set1_epi8(0x7f);
    __m512i lowest = (__m512i)most_negative_, highest = (__m512i)most_;
    const __m512i limit = _mm512_set1_epi8(static_cast<char>(beyond));
    const __mmask64 positive = ~_mm512_movepi8_mask(highest),
                    negative = _mm512_movepi8_mask(lowest);
    if ((_mm512_cmpge_epu8_mask(highest, limit) & positive) != 0) return false;
    if ((_mm512_cmpge_epu8_mask(_mm512_and_si512(lowest, mask), limit) & negative) != 0)
      return false;
    if (one_zero && _mm512_cmpeq_epi8_mask((__m512i)least_, _mm512_set1_epi8(-0x80)) != 0)
      return false;
    if (negative == 0) {
      for (size_t j = 0; j < count; ++j)
        lowest = _mm512_min_epu8(lowest, load<__m512i>(p + 64 * j));
    }
    if (positive == 0) {
      for (size_t j = 0; j < count; ++j)
        highest = _mm512_min_epi8(highest, load<__m512i>(p + 64 * j));
    }
    alignas(64) char codes[128], decoded[256];
    __builtin_memcpy(codes, &lowest, 64);
    __builtin_memcpy(codes + 64, &highest, 64);
    Float8<D>::span(codes, 0, 128, decoded);
    vf low[4], high[4];
    for (size_t i = 0; i < 4; i += 2) {
      BF16::pair(decoded + 32 * i, &low[i], &low[i + 1]);
      BF16::pair(decoded + 128 + 32 * i, &high[i], &high[i + 1]);
    }
    totals->min = minimum(totals->min, minimum(minimum(low[0], low[1]), minimum(low[2], low[3])));
    totals->max =
        maximum(totals->max, maximum(maximum(high[0], high[1]), maximum(high[2], high[3])));
    size_t filled = count;
    for (; filled % 8 != 0; ++filled) smalls_[filled] = zeros_[filled] = 0;
    count_bits(smalls_, zeros_, 8 * filled, out);
    return true;
  }

 private:
  vu64 most_ = (vu64)_mm512_set1_epi8(-0x80), most_negative_ = {};
  vu64 least_ = (vu64)_mm512_set1_epi8(0x7f);
  alignas(64) __mmask64 smalls_[kLong / 64], zeros_[kLong / 64];
};

#if defined(__AVX512BF16__)
// As bfloat16: two lookups among the 128 codes without a sign, and the sign. Every value is normal.
template <Dtype D>
inline bool byte_span(const char *p, size_t n, BlockStats *out, Totals<vf> *t) {
  const auto &table = Float8<D>::table();
  const __m512i l0 = load<__m512i>(table.low), l1 = load<__m512i>(table.low + 64),
                h0 = load<__m512i>(table.high), h1 = load<__m512i>(table.high + 64);
  const __m512i sign = _mm512_set1_epi8(-0x80), mask = _mm512_set1_epi16(0x7fff);
  ByteScan<D> scan;
  Totals<vf> totals = *t;
  vf squares = {};
  const size_t count = n / 64;
  for (size_t first = 0; first < count; first += kShort / 64) {
    const size_t end = smaller(count, first + kShort / 64);
    DotSums sums;
    for (size_t j = first; j < end; ++j) {
      const char *q = p + 64 * j;
      ahead(q, 64);
      const __m512i x = load<__m512i>(q);
      scan.take(x, j);
      const __m512i low = _mm512_permutex2var_epi8(l0, x, l1);
      // high | (x & sign)
      const __m512i high =
          _mm512_ternarylogic_epi64(_mm512_permutex2var_epi8(h0, x, h1), x, sign, 0xf8);
      const __m512i a = _mm512_unpacklo_epi8(low, high), b = _mm512_unpackhi_epi8(low, high);
      sums.take(a, _mm512_and_si512(a, mask), 0);
      sums.take(b, _mm512_and_si512(b, mask), 1);
    }
    squares += sums.flush_into(&totals);
  }
  if (!all_finite(squares) || !scan.conclude(p, count, out, &totals)) return false;
  *t = totals;
  return true;
}
#else
// 8-bit floats become float16 by shifts, but for a power of two: one with 5 bits of exponent is the
// upper half of one, one with 4 has its bits moved into the wider exponent.
template <Dtype D>
inline bool byte_span(const char *p, size_t n, BlockStats *out, Totals<vf> *t) {
  constexpr float factor = D == Dtype::f8_e4m3fn     ? 256.0f
                           : D == Dtype::f8_e4m3fnuz ? 128.0f
                           : D == Dtype::f8_e5m2fnuz ? 0.5f
                                                     : 1.0f;
  const __m512i odd = _mm512_set1_epi16(-0x100), moved = _mm512_set1_epi16(-0x4080);
  ByteScan<D> scan;
  Totals<vf> totals = *t;
  const size_t count = n / 64;
  for (size_t first = 0; first < count; first += kShort / 64) {
    const size_t end = smaller(count, first + kShort / 64);
    NarrowSums sums;
    for (size_t j = first; j < end; ++j) {
      const char *q = p + 64 * j;
      ahead(q, 64);
      const __m512i x = load<__m512i>(q);
      scan.take(x, j);
      __m512i lower = _mm512_slli_epi16(x, 8), upper = x;
      if constexpr (ByteScan<D>::wide_exponent) {
        upper = _mm512_and_si512(upper, odd);
      } else {  // an arithmetic shift leaves a second sign in the exponent's top bit
        lower = _mm512_and_si512(_mm512_srai_epi16(lower, 1), moved);
        upper = _mm512_and_si512(_mm512_srai_epi16(upper, 1), moved);
      }
      alignas(64) char words[128];
      __builtin_memcpy(words, &lower, 64);
      __builtin_memcpy(words + 64, &upper, 64);
      sums.take(F16::vector(words), F16::vector(words + 32), 0);
      sums.take(F16::vector(words + 64), F16::vector(words + 96), 1);
    }
    sums.flush_into(&totals, vf{} + factor);
  }
  if (!scan.conclude(p, count, out, &totals)) return false;
  *t = totals;
  return true;
}
#endif

#define MLSD_BYTE_SPAN(D)                                                                    \
  template <>                                                                                \
  constexpr size_t own_step<Float8<D>> = 64;                                                 \
  template <>                                                                                \
  inline bool own_span<Float8<D>>(const char *p, size_t n, BlockStats *out, Totals<vf> *t) { \
    return byte_span<D>(p, n, out, t);                                                       \
  }
MLSD_BYTE_SPAN(Dtype::f8_e4m3fn)
MLSD_BYTE_SPAN(Dtype::f8_e5m2)
MLSD_BYTE_SPAN(Dtype::f8_e4m3fnuz)
MLSD_BYTE_SPAN(Dtype::f8_e5m2fnuz)
#undef MLSD_BYTE_SPAN
#else
// The same idea for targets whose comparisons fill vectors, not masks.
template <typename F>
inline bool half_span(const char *p, size_t n, BlockStats *out, Totals<vf> *t) {
  constexpr size_t L = lanes<vi16>;
  const vi16 mask = vi16{} + static_cast<int16_t>(0x7fff), normal = vi16{} + F::normal_bits;
  vi16 most = ~mask, least = mask, zeros = {}, smalls = {};  // counts of at most kLong / L each
  vu16 most_negative = {};
  Totals<vf> totals = *t;
  vf all = {};
  for (size_t first = 0; first < n; first += kShort) {
    const size_t end = smaller(n, first + kShort);
    vf sum = {}, abs_sum[2] = {}, squares[2] = {};
    for (size_t i = first; i < end; i += L) {
      const char *q = p + 2 * i;
      ahead(q, W);
      const vi16 x = load<vi16>(q), m = x & mask;
      most = maximum(most, x);
      most_negative = maximum(most_negative, bits_as<vu16>(x));
      if constexpr (F::many_small) {
        zeros -= m == vi16{};
        smalls -= m < normal;
      } else {
        least = minimum(least, m);
      }
      vf a, b;
      F::pair(q, &a, &b);
      sum += a + b;
      abs_sum[0] += magnitude_of(a);
      abs_sum[1] += magnitude_of(b);
      squares[0] += a * a;
      squares[1] += b * b;
    }
    const vf both = squares[0] + squares[1];
    all += both;
    flush(abs_sum[0] + abs_sum[1], &totals.abs_low, &totals.abs_high);
    flush(both, &totals.sq_low, &totals.sq_high);
    flush(sum, &totals.sum_low, &totals.sum_high);
  }
  if (!all_finite(all)) return false;
  vi16 highest = most, lowest = bits_as<vi16>(most_negative);
  if (!any_sign(lowest, ~mask)) {  // none negative: the one nearest to zero
    for (size_t i = 0; i < n; i += L)
      lowest = bits_as<vi16>(minimum(bits_as<vu16>(lowest), load<vu16>(p + 2 * i)));
  }
  if (!any_sign(static_cast<vi16>(~highest), ~mask)) {  // none positive
    for (size_t i = 0; i < n; i += L) highest = minimum(highest, load<vi16>(p + 2 * i));
  }
  // Lanes on the other side of zero are further from the extreme than the rest.
  vf a, b;
  F::pair(reinterpret_cast<const char *>(&lowest), &a, &b);
  totals.min = minimum(totals.min, minimum(a, b));
  F::pair(reinterpret_cast<const char *>(&highest), &a, &b);
  totals.max = maximum(totals.max, maximum(a, b));
  *t = totals;
  if constexpr (F::many_small) {
    const uint64_t zero = sum_of_halves(zeros), small = sum_of_halves(smalls);
    out->zero += zero;
    out->subnormal += small - zero;
  } else if (any_sign(static_cast<vi16>(least < normal), ~mask)) {
    count_small_halves<F>(p, n, out);
  }
  return true;
}

template <>
constexpr size_t own_step<F16> = lanes<vi16>;
template <>
constexpr size_t own_step<BF16> = lanes<vi16>;
template <>
inline bool own_span<F16>(const char *p, size_t n, BlockStats *out, Totals<vf> *t) {
  return half_span<F16>(p, n, out, t);
}
template <>
inline bool own_span<BF16>(const char *p, size_t n, BlockStats *out, Totals<vf> *t) {
  return half_span<BF16>(p, n, out, t);
}
#endif

// The sums of one chain. Two of them run side by side, since an addition takes about as long as one
// vector's whole work; extremes take less and have one chain, for the registers that narrow targets
// lack.
template <bool shift, typename V>
struct ChainSums {
  V abs_sum = {}, sum = {}, squares = {}, shifted_squares = {};

  void take(V v, V magnitude, V pivot) {
    abs_sum += magnitude;
    squares += v * v;
    if constexpr (shift) {
      const V d = v - pivot;
      sum += d;
      shifted_squares += d * d;
    } else {
      sum += v;
    }
  }
};

// Least and largest of vectors without a NaN.
template <typename V>
class Extremes {
 public:
  void take(V v) {
    low_ = minimum(low_, v);
    high_ = maximum(high_, v);
  }
  static constexpr bool of_both_signs() { return true; }
  void again(V) {}
  V low() const { return low_; }
  V high() const { return high_; }

 private:
  V low_ = fresh_lanes<V>().min, high_ = fresh_lanes<V>().max;
};

#if defined(__AVX512BF16__)
// Zen 4 compares integers in four places, floats in two. As signed integers floats are in order
// where one is positive; as unsigned ones the negative come last, the largest magnitude at the end.
// Lanes on the other side of zero are further from the extreme than the rest.
template <>
class Extremes<vf> {
 public:
  void take(vf v) {
    most_ = (vi32)_mm512_maskz_max_epi32(0xffff, (__m512i)most_, (__m512i)v);
    most_negative_ = (vu32)_mm512_maskz_max_epu32(0xffff, (__m512i)most_negative_, (__m512i)v);
  }
  bool of_both_signs() const {
    return _mm512_movepi32_mask((__m512i)most_negative_) != 0 &&
           _mm512_movepi32_mask((__m512i)most_) != 0xffff;
  }
  // Over all of them once more, where one sign is missing.
  void again(vf v) {
    low_ = minimum(low_, v);
    high_ = maximum(high_, v);
  }
  vf low() const { return of_both_signs() ? (vf)most_negative_ : low_; }
  vf high() const { return of_both_signs() ? (vf)most_ : high_; }

 private:
  vi32 most_ = vi32{} + (-0x7fffffff - 1);
  vu32 most_negative_ = {};
  vf low_ = fresh_lanes<vf>().min, high_ = fresh_lanes<vf>().max;
};
#endif

// Adds a span of at most kLong elements, a whole number of vectors `step` bytes apart, to a block
// unless one of them is not finite: false then, with nothing changed.
template <typename F, bool shift>
inline bool plain_span(const char *p, size_t n, typename F::V pivot, BlockStats *out,
                       Totals<typename F::V> *t) {
  using V = typename F::V;
  using U = typename Bits<V>::U;
  constexpr size_t L = lanes<V>, B = F::step;
  const Lanes<V> fresh = fresh_lanes<V>();
  const U mask = U{} + Bits<V>::magnitude;
  Extremes<V> extremes;
  V all = {};
  U smallest = fresh.smallest;
  Totals<V> totals = *t;
  for (size_t first = 0; first < n; first += kShort) {
    const size_t end = smaller(n, first + kShort);
    ChainSums<shift, V> one, two;
    size_t i = first;
    for (; i + 2 * L <= end; i += 2 * L) {
      V a, b;
      ahead(p + i * B, 2 * L * B);
      F::pair(p + i * B, &a, &b);
      const U ma = bits_as<U>(a) & mask, mb = bits_as<U>(b) & mask;
      smallest = minimum(minimum(smallest, ma), mb);
      extremes.take(a);
      extremes.take(b);
      one.take(a, bits_as<V>(ma), pivot);
      two.take(b, bits_as<V>(mb), pivot);
    }
    for (; i + L <= end; i += L) {
      const V a = F::vector(p + i * B);
      const U ma = bits_as<U>(a) & mask;
      smallest = minimum(smallest, ma);
      extremes.take(a);
      one.take(a, bits_as<V>(ma), pivot);
    }
    const V squares = one.squares + two.squares;
    all += squares;
    flush(one.abs_sum + two.abs_sum, &totals.abs_low, &totals.abs_high);
    flush(squares, &totals.sq_low, &totals.sq_high);
    flush(one.sum + two.sum, &totals.sum_low, &totals.sum_high);
    if constexpr (shift)
      flush(one.shifted_squares + two.shifted_squares, &totals.d2_low, &totals.d2_high);
  }
  if (!all_finite(all)) return false;  // a non-finite value, or an overflow
  if (!extremes.of_both_signs()) {
    for (size_t i = 0; i < n; i += L) extremes.again(F::vector(p + i * B));
  }
  totals.min = minimum(totals.min, extremes.low());
  totals.max = maximum(totals.max, extremes.high());
  *t = totals;
  if (has_small<F>(smallest)) count_small<F>(p, n, out);
  return true;
}

// Up to kShort values of any kind, `whole` vectors or less than one: non-finite lanes and those
// past the end count as the pivot in the shifted sums, as zero in the others, and not at all in the
// extremes. Counts them, too: bad values come in runs, and a tensor full of them should not take
// two passes more. Not inlined, else compilers keep the sums in memory throughout the loop.
template <typename F, bool shift, bool whole>
[[gnu::noinline]] Lanes<typename F::V> masked_lanes(const char *p, size_t n, typename F::V pivot,
                                                    BlockStats *out) {
  using V = typename F::V;
  using U = typename Bits<V>::U;
  constexpr size_t L = lanes<V>;
  const U magnitude = U{} + Bits<V>::magnitude, infinity = U{} + Bits<V>::infinity;
  const U below = infinity | ~magnitude;
  const Lanes<V> fresh = fresh_lanes<V>();
  V low = fresh.min, high = fresh.max, abs_sum = {}, sum = {}, squares = {}, shifted_squares = {};
  U smallest = fresh.smallest;
  U bad = {}, infinite = {}, positive = {};
  for (size_t i = 0; i < n; i += L) {
    ahead(p + i * F::step, L * F::step);
    // A lane past the end is as good as a NaN: of no account. A call of memcpy in the loop would
    // have compilers keep all sums in memory: whole vectors are another loop.
    V v;
    if constexpr (whole)
      v = F::vector(p + i * F::step);
    else
      v = tail_vector<F>(p + i * F::step, n - i, __builtin_nan(""));
    const U m = bits_as<U>(v) & magnitude;
#if defined(__AVX512DQ__)
    // With masks: half as many instructions as with vectors of ones and zeros.
    if constexpr (sizeof(m[0]) == 4) {
      const auto f = [](V x) { return (__m512)x; };
      const auto w = [](U x) { return (__m512i)x; };
      const __m512i one = _mm512_set1_epi32(1);
      const __mmask16 good = _mm512_cmplt_epu32_mask(w(m), w(infinity));
      bad = (U)_mm512_mask_add_epi32(w(bad), static_cast<__mmask16>(~good), w(bad), one);
      infinite = (U)_mm512_mask_add_epi32(w(infinite), _mm512_cmpeq_epi32_mask(w(m), w(infinity)),
                                          w(infinite), one);
      positive = (U)_mm512_mask_add_epi32(
          w(positive), _mm512_cmpeq_epi32_mask((__m512i)v, w(infinity)), w(positive), one);
      smallest = (U)_mm512_mask_min_epu32(w(smallest), good, w(smallest), w(m));
      low = (V)_mm512_mask_min_ps(f(low), good, f(low), f(v));
      high = (V)_mm512_mask_max_ps(f(high), good, f(high), f(v));
      abs_sum = (V)_mm512_mask_add_ps(f(abs_sum), good, f(abs_sum), (__m512)m);
      squares = (V)_mm512_mask3_fmadd_ps(f(v), f(v), f(squares), good);
      if constexpr (shift) {
        const __m512 d = _mm512_maskz_sub_ps(good, f(v), f(pivot));
        sum = (V)_mm512_maskz_add_ps(0xffff, f(sum), d);
        shifted_squares = (V)_mm512_mask3_fmadd_ps(d, d, f(shifted_squares), 0xffff);
      } else {
        sum = (V)_mm512_mask_add_ps(f(sum), good, f(sum), f(v));
      }
      continue;
    }
#endif
    const U good = bits_as<U>(m < infinity);
    const V clean = bits_as<V>(bits_as<U>(v) & good);
    bad += U{} + 1 + good;  // `good` is 0 or -1
    infinite -= bits_as<U>(m == infinity);
    positive -= bits_as<U>(bits_as<U>(v) == infinity);
    smallest = minimum(smallest, m | (~good & magnitude));
    low = minimum(low, bits_as<V>((bits_as<U>(v) & good) | (infinity & ~good)));
    high = maximum(high, bits_as<V>((bits_as<U>(v) & good) | (below & ~good)));
    abs_sum += magnitude_of(clean);
    squares += clean * clean;
    if constexpr (shift) {
      const V d = bits_as<V>(bits_as<U>(v - pivot) & good);
      sum += d;
      shifted_squares += d * d;
    } else {
      sum += clean;
    }
  }
  uint64_t nonfinite = 0, infinities = 0, positives = 0;
  for (size_t lane = 0; lane < L; ++lane) {
    nonfinite += bad[lane];
    infinities += infinite[lane];
    positives += positive[lane];
  }
  out->nan += nonfinite - infinities - (L - n % L) % L;  // the lanes past the end
  out->posinf += positives;
  out->neginf += infinities - positives;
  return Lanes<V>{low, high, abs_sum, sum, squares, shifted_squares, smallest};
}

// Adds one span of at most kShort elements to a block; sums are flushed to 64 bits.
// `suspicious`, as the span before left it, says whether that one held non-finite values: they
// come in runs, and the attempt without a mask is then saved.
template <typename F, bool shift>
inline void add_span(const char *p, size_t n, typename F::V pivot, BlockStats *out,
                     Totals<typename F::V> *t, bool *suspicious) {
  using V = typename F::V;
  const auto take = [&](const Lanes<V> &l, const char *q, size_t count) {
    t->min = minimum(t->min, l.min);
    t->max = maximum(t->max, l.max);
    flush(l.abs_sum, &t->abs_low, &t->abs_high);
    flush(l.squares, &t->sq_low, &t->sq_high);
    flush(l.sum, &t->sum_low, &t->sum_high);
    if constexpr (shift) flush(l.shifted_squares, &t->d2_low, &t->d2_high);
    if (has_small<F>(l.smallest)) count_small<F>(q, count, out);
  };
  const size_t whole = n / lanes<V> * lanes<V>;
  if (whole != 0 && (*suspicious || !plain_span<F, shift>(p, whole, pivot, out, t))) {
    const uint64_t before = out->nan + out->posinf + out->neginf;
    take(masked_lanes<F, shift, true>(p, whole, pivot, out), p, whole);
    *suspicious = out->nan + out->posinf + out->neginf != before;
  }
  if (whole < n) {
    const char *q = p + whole * F::step;
    take(masked_lanes<F, shift, false>(q, n - whole, pivot, out), q, n - whole);
  }
}

inline double finite_count(const BlockStats &s, size_t n) {
  return static_cast<double>(n - s.nan - s.posinf - s.neginf);
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

// Whether values lie so far from zero that their squares say little about their spread.
inline bool far_from_zero(double mean, double mean_square, double factor) {
  const double square = mean * mean;
  return square > factor * (mean_square - square) && square < kInfinity;
}

// What a pass over a block makes of its sums.
enum class Sums { done, careful, elsewhere };

template <typename V>
inline Totals<V> fresh_totals(BlockStats *out) {
  *out = BlockStats{};
  out->min = kInfinity;
  out->max = -kInfinity;
  Totals<V> t = {};
  t.min = fresh_lanes<V>().min;
  t.max = fresh_lanes<V>().max;
  return t;
}

// After the first span: whether distances should be taken from *better instead of from zero.
template <typename V>
inline bool starts_elsewhere(const Totals<V> &t, const BlockStats &out, size_t count,
                             double *better) {
  const double seen = finite_count(out, count);
  const double mean = seen > 0 ? across(t.sum_low + t.sum_high) / seen : 0.0;
  if (!(seen > 0 && far_from_zero(mean, across(t.sq_low + t.sq_high) / seen, 1.0))) return false;
  *better = mean;
  return true;
}

// After the last span: the statistics, or what else has to be done for them.
template <bool shift, typename V>
inline Sums conclude_sums(const Totals<V> &t, size_t n, V pivot, BlockStats *out, double *better) {
  for (size_t lane = 0; lane < lanes<V>; ++lane) {
    const double low = static_cast<double>(t.min[lane]), high = static_cast<double>(t.max[lane]);
    if (low < out->min) out->min = low;
    if (high > out->max) out->max = high;
  }
  const double count = finite_count(*out, n);
  if (count == 0) return Sums::done;
  const double squares = across(t.sq_low + t.sq_high), sum = across(t.sum_low + t.sum_high);
  const double abs_sum = across(t.abs_low + t.abs_high);
  const double around = shift ? across(t.d2_low + t.d2_high) : squares;
  const double floor = count * (sizeof(V{}[0]) == 4 ? 0x1p-100 : 0x1p-960);
  const double all = squares + around + abs_sum;
  const bool zeros = out->min == 0 && out->max == 0;
  if (all - all != 0 || (squares < floor && !zeros)) return Sums::careful;
  if constexpr (!shift) {
    if (far_from_zero(sum / count, squares / count, 4.0)) {
      *better = sum / count;
      return Sums::elsewhere;
    }
  }
  out->abs_sum = abs_sum;
  out->mean = (shift ? static_cast<double>(pivot[0]) : 0.0) + sum / count;
  const double deviations = around - sum * (sum / count);
  out->squares = {1.0, squares};
  out->deviations = {1.0, deviations > 0 ? deviations : 0.0};
  return Sums::done;
}

// How a pass goes on: what add_next has to know of the spans before.
struct Progress {
  bool first = true;        // the first span of a block stands alone: it decides about the pivot
  bool suspicious = false;  // the span before held values that are not finite
  size_t again = 0;         // up to here spans are short: a long one failed
};

// Adds the span that begins at element i of p and ends before `end`; returns its length. However
// spans are put together, every kShort elements are added in the same way, so that a block in
// pieces gives the same bits.
template <typename F, bool shift>
inline size_t add_next(const char *p, size_t i, size_t end, typename F::V pivot, char *scratch,
                       BlockStats *out, Totals<typename F::V> *t, Progress *progress) {
  const size_t count = smaller(kShort, end - i);
  const bool first = progress->first;
  progress->first = false;
  constexpr bool own = !shift && own_step<F> != 0;
  if constexpr (own || F::in_place) {
    constexpr size_t step = own ? own_step<F> : lanes<typename F::V>;
    const char *q = p + i * F::size;
    const auto add = [&](size_t length) {
      if constexpr (own)
        return own_span<F>(q, length, out, t);
      else
        return plain_span<F, shift>(q, length, pivot, out, t);
    };
    if (!progress->suspicious) {
      if (!first && i >= progress->again && end - i >= kLong) {
        if (add(kLong)) return kLong;
        progress->again = i + kLong;
      }
      const size_t whole = count / step * step;
      if (whole != 0) {
        if (add(whole)) return whole;
        progress->suspicious = true;
      }
    }
  }
  add_span<F, shift>(F::span(p, i, count, scratch), count, pivot, out, t, &progress->suspicious);
  return count;
}

// All of a block, distances taken from `center` (or, without `shift`, from zero). False where they
// should have been taken from *better.
template <typename F, bool shift>
inline bool stats_pass(const char *p, size_t n, double center, BlockStats *out, double *better) {
  using V = typename F::V;
  alignas(64) char scratch[kShort * 8];
  const V pivot = V{} + static_cast<decltype(V{}[0] + V{}[0])>(center);
  Totals<V> t = fresh_totals<V>(out);
  Progress progress;
  for (size_t i = 0; i < n;) {
    const size_t count = add_next<F, shift>(p, i, n, pivot, scratch, out, &t, &progress);
    if constexpr (!shift) {
      if (i == 0 && n > kShort && starts_elsewhere(t, *out, count, better)) return false;
    }
    i += count;
  }
  const Sums sums = conclude_sums<shift>(t, n, pivot, out, better);
  if (sums == Sums::careful) careful_sums<F>(p, n, finite_count(*out, n), out);
  return sums != Sums::elsewhere;
}

// The first pass over a block that comes in pieces. False where another one would be needed.
template <typename F>
inline bool stats_stream(size_t n, NextPiece next, SeenSpan seen, void *context, BlockStats *out) {
  using V = typename F::V;
  alignas(64) char scratch[kShort * 8];
  static_assert(kPiece % kShort == 0, "a piece is a whole number of spans");
  Totals<V> t = fresh_totals<V>(out);
  Progress progress;
  double better = 0;
  for (size_t first = 0; first < n; first += kPiece) {
    const size_t here = smaller(kPiece, n - first);
    const char *p = static_cast<const char *>(next(context, first, here));
    if (p == nullptr) return false;
    progress.again = 0;
    for (size_t i = 0; i < here;) {
      const size_t count = add_next<F, false>(p, i, here, V{}, scratch, out, &t, &progress);
      seen(context, p + i * F::size, first + i, count);
      if (first + i == 0 && n > kShort && starts_elsewhere(t, *out, count, &better)) return false;
      i += count;
    }
  }
  return conclude_sums<false>(t, n, V{}, out, &better) == Sums::done;
}

// Gradients and most weights lie around zero, where the sum of squares serves the norm and the
// spread at once. Where the mean is large against the spread, the digits of the spread would be
// lost: the block is then done with distances from a value near its mean.
template <typename F>
inline void stats_block(const char *p, size_t n, BlockStats *out) {
  double center = 0;
  if (stats_pass<F, false>(p, n, 0.0, out, &center)) return;
  stats_pass<F, true>(p, n, center, out, &center);
}

// ---- the read limit ---------------------------------------------------------------------------

inline uint64_t read_bytes(const char *p, size_t bytes) {
  vu64 lanes8[8] = {};
  size_t i = 0;
  for (; i + 8 * W <= bytes; i += 8 * W) {
    ahead(p + i, 8 * W);  // as in all kernels: it is worth a tenth from memory
    for (size_t k = 0; k < 8; ++k) lanes8[k] |= load<vu64>(p + i + k * W);
  }
  uint64_t all = 0;
  for (const vu64 &v : lanes8)
    for (size_t lane = 0; lane < lanes<vu64>; ++lane) all |= v[lane];
  for (; i < bytes; i += 8) {
    uint64_t word = 0;
    __builtin_memcpy(&word, p + i, smaller(8, bytes - i));
    all |= word;
  }
  return all;
}

// ---- digest -----------------------------------------------------------------------------------

inline vu64 product(vu64 x, vu64 factor) {  // of their low halves
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

// With x = high * 2^32 + low: (low + 2^32) * (high + 1) - 2^32, one product of the halves. Both
// factors are never zero, so a change in one half alone always changes the result; a change in both
// escapes with a probability of about 2^-64.
inline vu64 mix(vu64 x) { return product(x, x >> 32) + x; }

constexpr uint64_t kDigestKey = 0x9e3779b97f4a7c15ull;

// What the words of a vector at byte `start` are xored with; the next vector's is a step further.
inline vu64 first_places(uint64_t start) {
  vu64 place;
  for (size_t lane = 0; lane < lanes<vu64>; ++lane)
    place[lane] = (start / 8 + lane + 1) * kDigestKey;
  return place;
}

inline uint64_t sum_of_lanes(vu64 v) {
  uint64_t sum = 0;
  for (size_t lane = 0; lane < lanes<vu64>; ++lane) sum += v[lane];
  return sum;
}

#if defined(__VPCLMULQDQ__)
inline uint64_t digest_and_fold(const char *p, size_t bytes, uint64_t start,
                                unsigned char *folded) {
  using namespace crc_folds;
  constexpr long long low = low_factor(8 * kFolded), high = high_factor(8 * kFolded);
  const __m512i far = _mm512_set_epi64(high, low, high, low, high, low, high, low);
  vu64 place = first_places(start), sums[2] = {};
  const vu64 step = vu64{} + kDigestKey * lanes<vu64>;
  __m512i fold[kFoldLanes];
  for (size_t k = 0; k < kFoldLanes; ++k) fold[k] = load<__m512i>(folded + 64 * k);
  for (size_t i = 0; i + kFolded <= bytes; i += kFolded) {
    for (size_t k = 0; k < kFoldLanes; ++k) {
      const __m512i words = load<__m512i>(p + i + 64 * k);
      fold[k] =
          _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(fold[k], far, 0x00),
                                    _mm512_clmulepi64_epi128(fold[k], far, 0x11), words, 0x96);
      sums[k % 2] += mix((vu64)words ^ place);
      place += step;
    }
  }
  for (size_t k = 0; k < kFoldLanes; ++k) __builtin_memcpy(folded + 64 * k, &fold[k], 64);
  return sum_of_lanes(sums[0] + sums[1]);
}
#endif

inline uint64_t digest_bytes(const char *p, size_t bytes, uint64_t start) {
  constexpr uint64_t key = kDigestKey;
  vu64 place = first_places(start);
  const vu64 step = vu64{} + key * lanes<vu64>;
  vu64 a = {}, b = {};
  size_t i = 0;
  for (; i + 2 * W <= bytes; i += 2 * W) {
    ahead(p + i, 2 * W);
    a += mix(load<vu64>(p + i) ^ place);
    place += step;
    b += mix(load<vu64>(p + i + W) ^ place);
    place += step;
  }
  uint64_t sum = sum_of_lanes(a + b);
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
