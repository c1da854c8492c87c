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

// log(a / b) of positive normal numbers. With a = 2^i m, b = 2^j n and m / n within a factor of
// sqrt 2 of 1, it is (i - j) log 2 + 2 atanh(s), s = (m - n) / (m + n): one division, and m - n is
// exact, so that ratios near 1 keep all their digits. The polynomial interpolates
// (2 atanh(s) / s - 2) / s^2 at the Chebyshev nodes of s^2 <= 0.0295; its error is below 5e-18.
inline vd log_ratio(vd a, vd b) {
  const vu64 fraction = vu64{} + 0x000fffffffffffffull, one = vu64{} + 0x3ff0000000000000ull;
  const vu64 ia = bits_as<vu64>(a), ib = bits_as<vu64>(b);
  const vd m = bits_as<vd>((ia & fraction) | one), n = bits_as<vd>((ib & fraction) | one);
  vu64 exponent = (ia >> 52) - (ib >> 52);
  const vd root = vd{} + 1.4142135623730951;
  const vi64 m_large = m > root * n, n_large = n > root * m;
  const vd mm = m_large ? m * 0.5 : m, nn = n_large ? n * 0.5 : n;
  exponent -= bits_as<vu64>(m_large);
  exponent += bits_as<vu64>(n_large);
  const vd magic = vd{} + 0x1.8p52;
  const vd e = bits_as<vd>(exponent + bits_as<vu64>(magic)) - magic;
  const vd s = (mm - nn) / (mm + nn);
  const vd z = s * s, zz = z * z;
  const vd even =
      0.66666666666666697293 +
      zz * (0.28571428626533335861 + zz * (0.18182895746801428563 + zz * 0.14619164777186419874));
  const vd odd =
      0.39999999999898273395 + zz * (0.22222211043822486133 + zz * 0.15331501721207418669);
  const vd tail = s * (z * (even + z * odd)) + e * 1.90821492927058770002e-10;
  return e * 6.93147180369123816490e-01 + ((s + s) + tail);
}

inline double log_ratio(double a, double b) {
  // Subnormal numbers are scaled up first; the two scales cancel or are added back.
  double shift = 0;
  if (a < 0x1p-1022) {
    a *= 0x1p60;
    shift -= 60;
  }
  if (b < 0x1p-1022) {
    b *= 0x1p60;
    shift += 60;
  }
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

// Terms of lanes that are normal and positive in both; of others 0.
template <DivergenceKind K>
inline vd terms(vd p, vd q, vi64 usual) {
  const vd one = vd{} + 1.0;
  const vd a = usual ? p : one, b = usual ? q : one;  // the logarithm of 1 is 0
  if (K == DivergenceKind::kl) return a * log_ratio(a, b);
  if (K == DivergenceKind::psi) return (a - b) * log_ratio(a, b);
  const vd m = 0.5 * (a + b);
  return 0.5 * (a * log_ratio(a, m) + b * log_ratio(b, m));
}

inline vi64 is_normal(vd v) {
  const vu64 bits = bits_as<vu64>(v) - (vu64{} + 0x0010000000000000ull);
  return bits_as<vi64>(bits < (vu64{} + 0x7fe0000000000000ull));
}

inline const char *bytes(const double *p) { return reinterpret_cast<const char *>(p); }

inline double lanes_sum(vd v) {
  double sum = 0;
  for (size_t i = 0; i < lanes<vd>; ++i) sum += v[i];
  return sum;
}

// A vector of p and q whose lanes are not all usual: the terms of the others.
template <DivergenceKind K>
inline double odd_terms(vd x, vd y, vi64 usual, bool *invalid) {
  double sum = 0;
  for (size_t lane = 0; lane < lanes<vd>; ++lane) {
    if (usual[lane] != 0) continue;
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
  vd sum = {}, p_sum = {}, q_sum = {};
  double rest = 0;
  DivergenceSum out;
  const vd zero = {};
  // Groups: their sums are added up apart, which keeps roundings few, and only a group with an odd
  // lane is looked at twice.
  for (size_t start = 0; start < n; start += kGroup) {
    const size_t stop = n - start < kGroup ? n : start + kGroup;
    vd part = {}, p_part = {}, q_part = {};
    vi64 odd = {};
    const auto look = [&](vd a, vd b) {
      p_part += a;
      q_part += b;
      const vd x = a * p_scale, y = b * q_scale;
      if (logarithmic) {
        const vi64 usual = is_normal(x) & is_normal(y);
        odd |= ~usual;
        part += terms<K>(x, y, usual);
      } else {
        const vd d = x - y;
        part += 0.5 * (d < zero ? -d : d);
        odd |= ~((a >= zero) & (b >= zero));
      }
    };
    size_t i = start;
    for (; i + L <= stop; i += L) look(load<vd>(p + i), load<vd>(q + i));
    const size_t tail = i;
    if (tail < stop)
      look(padded_vector<F64>(bytes(p + i), stop - i), padded_vector<F64>(bytes(q + i), stop - i));
    sum += part;
    p_sum += p_part;
    q_sum += q_part;
    if (__builtin_expect(!any_lane(odd), 1)) continue;
    if (!logarithmic) {
      out.invalid = true;
      continue;
    }
    for (i = start; i < stop; i += L) {
      const size_t some = stop - i < L ? stop - i : L;
      const vd x = padded_vector<F64>(bytes(p + i), some) * p_scale;
      const vd y = padded_vector<F64>(bytes(q + i), some) * q_scale;
      const vi64 usual = is_normal(x) & is_normal(y);
      if (any_lane(~usual)) rest += odd_terms<K>(x, y, usual, &out.invalid);
    }
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
