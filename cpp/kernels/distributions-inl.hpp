// The loops of distributions.hpp, written once for every target.
#pragma once

#include "kernels/vectors-inl.hpp"
#include "mlsd/distributions.hpp"

namespace mlsd {
namespace MLSD_TARGET_NAMESPACE {

// ---- counting -----------------------------------------------------------------------------------

// What differs between lanes of floats and of doubles.
struct FloatLanes {
  using V = vf;
  using Bits = uint32_t;
  using B = vu32;
  static constexpr float magic = 0x1p23f;  // its low bits are whole numbers
  static constexpr Bits mask = 0x7fffffu;
  static constexpr float infinity = __builtin_inff();
  static float low(const Cuts &c) { return c.low_single; }
  static float scale(const Cuts &c) { return c.scale_single; }
  static float slack(const Cuts &c) { return c.slack_single; }
  static const float *cuts(const Cuts &c) { return c.single; }
};
struct DoubleLanes {
  using V = vd;
  using Bits = uint64_t;
  using B = vu64;
  static constexpr double magic = 0x1p52;
  static constexpr Bits mask = 0xfffffffffffffull;
  static constexpr double infinity = __builtin_inf();
  static double low(const Cuts &c) { return c.low; }
  static double scale(const Cuts &c) { return c.scale; }
  static double slack(const Cuts &c) { return c.slack; }
  static const double *cuts(const Cuts &c) { return c.exact; }
};
template <typename V>
struct LanesOf;
template <>
struct LanesOf<vf> : FloatLanes {};
template <>
struct LanesOf<vd> : DoubleLanes {};

template <typename V>
inline bool any_lane(V mask) {
  const vu64 words = bits_as<vu64>(mask);
  uint64_t all = 0;
  for (size_t i = 0; i < lanes<vu64>; ++i) all |= words[i];
  return all != 0;
}

// The bin of x by the cuts themselves, from a guess.
template <typename T>
inline size_t exact_bin(T x, const T *cuts, size_t count, size_t guess) {
  while (guess > 0 && !(x >= cuts[guess - 1])) --guess;
  while (guess < count && x >= cuts[guess]) ++guess;
  return guess;
}

template <typename T>
inline size_t searched_bin(T x, const T *cuts, size_t count) {
  size_t low = 0, length = count;
  while (length > 0) {
    const size_t half = length / 2;
    const bool above = x >= cuts[low + half];
    low = above ? low + half + 1 : low;
    length = above ? length - half - 1 : half;
  }
  return low;
}

// Bins of a vector of elements; NaN goes to bin 0.
template <typename L>
struct EvenBins {
  using V = typename L::V;
  using B = typename L::B;
  using T = decltype(L::infinity + L::infinity);
  const T *cuts;
  size_t count;
  T low, scale;
  V shift, least, most, half, sure, magic;

  explicit EvenBins(const Cuts &c) {
    cuts = L::cuts(c);
    count = c.count;
    low = static_cast<T>(L::low(c));
    scale = static_cast<T>(L::scale(c));
    // floor(f) + 1 is f + 0.5 rounded to whole, away from whole f; outside the cuts it is clamped
    // to the middle of the outer bins.
    shift = V{} + static_cast<T>(0.5);
    least = V{};
    most = V{} + static_cast<T>(count);
    half = V{} + (static_cast<T>(0.5) - static_cast<T>(L::slack(c)));
    magic = V{} + L::magic;
    sure = V{};
  }
  // `far` keeps the lanes whose bin is not certain.
  B operator()(V x, B *far) const {
    V f = (x - (V{} + low)) * (V{} + scale) + shift;
    f = minimum(maximum(f, least), most);
    const V rounded = f + magic;
    const V apart = f - (rounded - magic);
    *far |= bits_as<B>((apart > half) | (apart < -half));
    return bits_as<B>(rounded) & (B{} + L::mask);
  }
  void repair(V x, typename L::Bits *bin, size_t n) const {
    B far = {};
    (*this)(x, &far);
    if (!any_lane(far)) return;
    for (size_t lane = 0; lane < n; ++lane)
      if (far[lane] != 0)
        bin[lane] = static_cast<typename L::Bits>(
            exact_bin<T>(x[lane], cuts, count, static_cast<size_t>(bin[lane])));
  }
};

// Few cuts, anywhere: compare with each.
template <typename L>
struct FewBins {
  using V = typename L::V;
  using B = typename L::B;
  const decltype(L::infinity + L::infinity) *cuts;
  size_t count;
  explicit FewBins(const Cuts &c) : cuts(L::cuts(c)), count(c.count) {}
  B operator()(V x, B *) const {
    B bin = {};
    for (size_t i = 0; i < count; ++i) bin -= bits_as<B>(x >= (V{} + cuts[i]));
    return bin;
  }
  void repair(V, typename L::Bits *, size_t) const {}
};

template <typename L>
struct ManyBins {
  using V = typename L::V;
  using B = typename L::B;
  using T = decltype(L::infinity + L::infinity);
  const T *cuts;
  size_t count;
  explicit ManyBins(const Cuts &c) : cuts(L::cuts(c)), count(c.count) {}
  B operator()(V x, B *) const {
    B bin = {};
    for (size_t lane = 0; lane < lanes<V>; ++lane)
      bin[lane] = static_cast<typename L::Bits>(searched_bin<T>(x[lane], cuts, count));
    return bin;
  }
  void repair(V, typename L::Bits *, size_t) const {}
};

// Elements of the outer bins that are no numbers move to counts of their own.
template <typename F>
inline void move_nonfinite(const char *p, size_t n, const Cuts &cuts, uint64_t *counts) {
  using V = typename F::V;
  using T = decltype(LanesOf<V>::infinity + LanesOf<V>::infinity);
  uint64_t nan = 0, negative = 0, positive = 0;
  for (size_t i = 0; i < n; ++i) {
    T x;
    __builtin_memcpy(&x, p + i * sizeof(T), sizeof(T));
    nan += x != x;
    negative += x == -LanesOf<V>::infinity;
    positive += x == LanesOf<V>::infinity;
  }
  counts[0] -= nan + negative;
  counts[cuts.count] -= positive;
  counts[cuts.count + 1] += nan;
  counts[cuts.count + 2] += negative;
  counts[cuts.count + 3] += positive;
}

// The first n elements at p, and zeros.
template <typename F>
inline typename F::V padded_vector(const char *p, size_t n) {
  alignas(64) char padded[W] = {};
  __builtin_memcpy(padded, p, n * F::step);
  return F::vector(padded);
}

template <typename F, template <typename> class Bins>
inline void count_with(const char *p, size_t n, const Cuts &cuts, uint64_t *counts,
                       double *scratch) {
  using V = typename F::V;
  using L = LanesOf<V>;
  using T = decltype(L::infinity + L::infinity);
  using Bits = typename L::Bits;
  constexpr size_t lane_count = lanes<V>;
  const Bins<L> bins(cuts);
  // Two neighbours that fall into one bin must not wait for each other: four tables.
  const size_t width = cuts.count + 1;
  const size_t tables = width <= 2048 ? 4 : 1;
  char *const converted = reinterpret_cast<char *>(scratch);
  Bits *const index = reinterpret_cast<Bits *>(scratch + kShort);
  T *const plain = reinterpret_cast<T *>(scratch + 2 * kShort);
  uint32_t *const table = reinterpret_cast<uint32_t *>(scratch + 3 * kShort);
  constexpr size_t kFlush = size_t{1} << 30;  // below what 32 bits hold
  constexpr size_t kGroup = 16 * lane_count;
  for (size_t start = 0; start < n; start += kFlush) {
    const size_t stop = n - start < kFlush ? n : start + kFlush;
    __builtin_memset(table, 0, tables * width * sizeof(uint32_t));
    for (size_t i = start; i < stop; i += kShort) {
      const size_t m = stop - i < kShort ? stop - i : kShort;
      const char *q = F::span(p, i, m, converted);
      size_t k = 0;
      V nonfinite = {};
      while (k < m) {
        // In groups: where one holds an element too near a cut, it alone is looked at again.
        const size_t group = k, end = m - k < kGroup ? m : k + kGroup;
        typename L::B far = {};
        for (; k + lane_count <= end; k += lane_count) {
          const V x = F::vector(q + k * F::step);
          const auto bin = bins(x, &far);
          __builtin_memcpy(index + k, &bin, sizeof bin);
          nonfinite += x * V{};  // NaN once there is a NaN or an infinity
        }
        if (k < end) {
          const V x = padded_vector<F>(q + k * F::step, end - k);
          const auto bin = bins(x, &far);
          __builtin_memcpy(index + k, &bin, (end - k) * sizeof(Bits));
          nonfinite += x * V{};
          k = end;
        }
        if (any_lane(far))
          for (size_t r = group; r < end; r += lane_count) {
            const size_t some = end - r < lane_count ? end - r : lane_count;
            bins.repair(padded_vector<F>(q + r * F::step, some), index + r, some);
          }
      }
      uint32_t *const t1 = table + (tables > 1 ? width : 0);
      uint32_t *const t2 = t1 + (tables > 1 ? width : 0);
      uint32_t *const t3 = t2 + (tables > 1 ? width : 0);
      for (k = 0; k + 4 <= m; k += 4) {
        ++table[index[k]];
        ++t1[index[k + 1]];
        ++t2[index[k + 2]];
        ++t3[index[k + 3]];
      }
      for (; k < m; ++k) ++table[index[k]];
      if (any_lane(bits_as<typename L::B>(nonfinite != nonfinite))) {
        for (k = 0; k < m; k += lane_count) {
          const size_t some = m - k < lane_count ? m - k : lane_count;
          const V x = padded_vector<F>(q + k * F::step, some);
          __builtin_memcpy(plain + k, &x, some * sizeof(T));
        }
        move_nonfinite<F>(reinterpret_cast<const char *>(plain), m, cuts, counts);
      }
    }
    for (size_t t = 0; t < tables; ++t)
      for (size_t b = 0; b < width; ++b) counts[b] += table[t * width + b];
  }
}

template <typename F>
inline void count_format(const char *p, size_t n, const Cuts &cuts, uint64_t *counts,
                         double *scratch) {
  using L = LanesOf<typename F::V>;
  if (L::slack(cuts) < 0.25)
    count_with<F, EvenBins>(p, n, cuts, counts, scratch);
  else if (cuts.count <= 64)
    count_with<F, FewBins>(p, n, cuts, counts, scratch);
  else
    count_with<F, ManyBins>(p, n, cuts, counts, scratch);
}

// ---- divergences --------------------------------------------------------------------------------

// What log_ratio(vd, vd) takes as it is: a factor of 1.5 more or less is still a normal number.
constexpr double kLeastUsual = 0x1p-1021, kMostUsual = 0x1p1022;

// The whole number that `whole`, a multiple of 2^52 as a signed integer, is 2^52 times of.
inline vd exponent_of(vu64 whole) {
#if defined(__AVX512DQ__)
  return __builtin_convertvector(bits_as<vi64>(whole), vd) * 0x1p-52;
#else
  // Shifted as an unsigned number above 0, into the low bits of 2^52.
  const vu64 moved = (whole ^ (vu64{} + 0x8000000000000000ull)) >> 52;
  return bits_as<vd>(moved | (vu64{} + 0x4330000000000000ull)) - (0x1p52 + 2048.0);
#endif
}

// log(a / b) of numbers with exponents from kLeastUsual on. The difference of their bits, rounded
// to whole exponents, is a k for which a and n = 2^k b lie within a factor of 1.5 of each other
// (bits are a logarithm to base 2 but for 0.086). Then it is k log 2 + 2 atanh(s), s = (a - n) /
// (a + n): one division, and a - n is exact, so that ratios near 1 keep all their digits. The
// polynomial interpolates (2 atanh(s) / s - 2) / s^2 at the Chebyshev nodes of s^2 <= 0.0403; it
// adds 6e-17 to the relative error.
inline vd log_ratio(vd a, vd b) {
  const vu64 ia = bits_as<vu64>(a), ib = bits_as<vu64>(b);
  const vu64 whole =
      (ia - ib + (vu64{} + 0x0008000000000000ull)) & (vu64{} + 0xfff0000000000000ull);
  const vd n = bits_as<vd>(ib + whole);
  const vd s = (a - n) / (a + n);
  const vd z = s * s;
  vd sum = vd{} + 0.15128105194085276;
  sum = sum * z + 0.1528264135965732;
  sum = sum * z + 0.18184653881551602;
  sum = sum * z + 0.2222218195907249;
  sum = sum * z + 0.28571428842882585;
  sum = sum * z + 0.39999999999314984;
  sum = sum * z + 0.6666666666666695;
  return s * (sum * z + 2.0) + exponent_of(whole) * 0.69314718055994531;
}

inline double log_ratio(double a, double b) {
  // The smallest and largest numbers are scaled first; the two scales cancel or are added back.
  double shift = 0;
  const auto usual = [&shift](double v, double sign) {
    if (v >= kLeastUsual && v < kMostUsual) return v;
    const bool small = v < kLeastUsual;
    shift += small ? -60 * sign : 60 * sign;
    return v * (small ? 0x1p60 : 0x1p-60);
  };
  a = usual(a, 1);
  b = usual(b, -1);
  return log_ratio(vd{} + a, vd{} + b)[0] + shift * 0.69314718055994531;
}

template <DivergenceKind K>
inline double one_term(double p, double q) {
  if (K == DivergenceKind::total_variation) return 0.5 * __builtin_fabs(p - q);
  if (p == 0 && q == 0) return 0;
  if (K == DivergenceKind::js) {
    const double m = 0.5 * (p + q);
    return 0.5 * ((p > 0 ? p * log_ratio(p, m) : 0) + (q > 0 ? q * log_ratio(q, m) : 0));
  }
  if (K == DivergenceKind::kl && p == 0) return 0;
  if (p == 0 || q == 0) return __builtin_inf();
  return (K == DivergenceKind::kl ? p : p - q) * log_ratio(p, q);
}

// One truth per lane. On AVX-512 spelled out: gcc takes masks apart bit by bit where several are
// joined.
#if defined(__AVX512DQ__)
using Mask = __mmask8;
inline Mask is_usual(vd v) {
  const Mask enough = _mm512_cmp_pd_mask((__m512d)v, _mm512_set1_pd(kLeastUsual), _CMP_GE_OQ);
  return _mm512_mask_cmp_pd_mask(enough, (__m512d)v, _mm512_set1_pd(kMostUsual), _CMP_LT_OQ);
}
inline Mask is_zero(vd v) {
  return _mm512_cmp_pd_mask((__m512d)v, _mm512_setzero_pd(), _CMP_EQ_OQ);
}
inline vd pick(Mask mask, vd a, vd b) {
  return (vd)_mm512_mask_blend_pd(mask, (__m512d)b, (__m512d)a);
}
inline bool all_of(Mask mask) { return mask == 0xff; }
inline bool lane_of(Mask mask, size_t lane) { return (mask >> lane & 1) != 0; }
constexpr Mask kEverywhere = 0xff;
#else
using Mask = vi64;
inline Mask is_usual(vd v) { return (v >= (vd{} + kLeastUsual)) & (v < (vd{} + kMostUsual)); }
inline Mask is_zero(vd v) { return v == vd{}; }
inline vd pick(Mask mask, vd a, vd b) { return mask ? a : b; }
inline bool all_of(Mask mask) { return !any_lane(~mask); }
inline bool lane_of(Mask mask, size_t lane) { return mask[lane] != 0; }
const Mask kEverywhere = ~Mask{};
#endif

template <DivergenceKind K>
inline vd usual_terms(vd a, vd b) {
  if (K == DivergenceKind::kl) return a * log_ratio(a, b);
  if (K == DivergenceKind::psi) return (a - b) * log_ratio(a, b);
  const vd m = 0.5 * (a + b);
  return 0.5 * (a * log_ratio(a, m) + b * log_ratio(b, m));
}

// Terms of lanes that are usual in both; of others 0.
template <DivergenceKind K>
inline vd terms(vd p, vd q, Mask usual) {
  const vd one = vd{} + 1.0;
  return usual_terms<K>(pick(usual, p, one), pick(usual, q, one));  // the logarithm of 1 is 0
}

inline const char *bytes(const double *p) { return reinterpret_cast<const char *>(p); }

inline double lanes_sum(vd v) {
  double sum = 0;
  for (size_t i = 0; i < lanes<vd>; ++i) sum += v[i];
  return sum;
}

// Terms of lanes where one of the two is 0.
template <DivergenceKind K>
inline vd empty_terms(vd x, vd y) {
  const vd infinite = vd{} + __builtin_inf();
  if (K == DivergenceKind::kl) return pick(is_zero(x), vd{}, infinite);
  if (K == DivergenceKind::psi) return infinite;
  if (K == DivergenceKind::js) return (x + y) * 0.34657359027997265;  // half of log 2
  return (x + y) * 0.5;
}

// Which lanes hold usual numbers, and which those or zeros: empty bins are common.
struct Known {
  Mask usual, known, empty;  // empty: one of the two, not both
  Known(vd x, vd y) {
    const Mask x_usual = is_usual(x), y_usual = is_usual(y), x_zero = is_zero(x),
               y_zero = is_zero(y);
    usual = static_cast<Mask>(x_usual & y_usual);
    known = static_cast<Mask>((x_usual | x_zero) & (y_usual | y_zero));
    empty = static_cast<Mask>(known & (x_zero ^ y_zero));
  }
};

// The terms of the lanes that are not `known`.
template <DivergenceKind K>
inline double odd_terms(vd x, vd y, Mask known, bool *invalid) {
  double sum = 0;
  for (size_t lane = 0; lane < lanes<vd>; ++lane) {
    if (lane_of(known, lane)) continue;
    const double p = x[lane], q = y[lane];
    if (p >= 0 && q >= 0 && p < __builtin_inf() && q < __builtin_inf())
      sum += one_term<K>(p, q);
    else
      *invalid = true;
  }
  return sum;
}

template <DivergenceKind K>
inline DivergenceSum sum_terms(const double *p, const double *q, size_t n, double p_scale,
                               double q_scale) {
  constexpr size_t L = lanes<vd>, kGroup = 64 * L;
  constexpr bool logarithmic = K != DivergenceKind::total_variation;
  constexpr double kMost = 0x1p1000;
  vd sum = {}, p_sum = {}, q_sum = {};
  double rest = 0;
  DivergenceSum out;
  bool suspicious = false;
  // Groups: their sums are added up apart, which keeps roundings few, and it is enough to look once
  // per group for lanes that are not usual: too small ones show in the minimum, NaN and too large
  // ones in the sums. A group that has one is done again; such groups come in runs, so the next is
  // not tried the fast way.
  for (size_t start = 0; start < n; start += kGroup) {
    const size_t stop = n - start < kGroup ? n : start + kGroup;
    const size_t full = stop - (stop - start) % L;
    vd part = {}, p_part = {}, q_part = {}, least = vd{} + kMost;
    const auto apart = [](vd x, vd y) { return 0.5 * (x < y ? y - x : x - y); };
    const auto look = [&](vd a, vd b) {
      p_part += a;
      q_part += b;
      const vd x = a * p_scale, y = b * q_scale;
      least = minimum(minimum(x, y), least);
      if constexpr (logarithmic)
        part += usual_terms<K>(x, y);
      else
        part += apart(x, y);
    };
    const auto vector = [&](const double *from, size_t i) {
      return i < full ? load<vd>(from + i) : padded_vector<F64>(bytes(from + i), stop - i);
    };
    // Places [i, end), whatever is in them.
    const auto look_closely = [&](size_t first, size_t end) {
      Mask usual = kEverywhere, known = kEverywhere;
      for (size_t i = first; i < end; i += L) {
        const vd a = vector(p, i), b = vector(q, i);
        p_part += a;
        q_part += b;
        const vd x = a * p_scale, y = b * q_scale;
        const Known lane(x, y);
        if constexpr (logarithmic)
          part += terms<K>(x, y, lane.usual);
        else
          part += pick(lane.usual, apart(x, y), vd{});
        part += pick(lane.empty, empty_terms<K>(x, y), vd{});
        usual = static_cast<Mask>(usual & lane.usual);
        known = static_cast<Mask>(known & lane.known);
      }
      suspicious = !all_of(usual);
      if (all_of(known)) return;
      for (size_t i = first; i < end; i += L) {
        const vd x = vector(p, i) * p_scale, y = vector(q, i) * q_scale;
        rest += odd_terms<K>(x, y, Known(x, y).known, &out.invalid);
      }
    };
    bool odd = suspicious;
    if (!odd) {
      for (size_t i = start; i < full; i += L) look(load<vd>(p + i), load<vd>(q + i));
      const double floor = logarithmic ? kLeastUsual : 0.0;
      odd =
          any_lane(~((least >= floor) & (p_part * p_scale <= kMost) & (q_part * q_scale <= kMost)));
    }
    if (odd) {
      part = p_part = q_part = vd{};
      look_closely(start, stop);
    } else if (full < stop) {
      look_closely(full, stop);
    }
    sum += part;
    p_sum += p_part;
    q_sum += q_part;
  }
  out.sum = lanes_sum(sum) + rest;
  out.p = lanes_sum(p_sum);
  out.q = lanes_sum(q_sum);
  return out;
}

inline DivergenceSum divergence_sum(const double *p, const double *q, size_t n, double p_scale,
                                    double q_scale, DivergenceKind kind) {
  switch (kind) {
    case DivergenceKind::kl:
      return sum_terms<DivergenceKind::kl>(p, q, n, p_scale, q_scale);
    case DivergenceKind::js:
      return sum_terms<DivergenceKind::js>(p, q, n, p_scale, q_scale);
    case DivergenceKind::psi:
      return sum_terms<DivergenceKind::psi>(p, q, n, p_scale, q_scale);
    case DivergenceKind::total_variation:
      return sum_terms<DivergenceKind::total_variation>(p, q, n, p_scale, q_scale);
  }
  __builtin_unreachable();
}

}  // namespace MLSD_TARGET_NAMESPACE
}  // namespace mlsd
