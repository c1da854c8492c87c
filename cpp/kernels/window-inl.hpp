// The robust window of folds.hpp: median and MAD of the last values, by keeping them sorted.
//
// A batch is sorted by ranks and merged in without a branch on the data, while the batch that
// leaves is dropped on the way: some hundred nanoseconds per batch, whatever the values are.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/vectors-inl.hpp"
#include "mlsd/folds.hpp"

namespace mlsd {
namespace MLSD_TARGET_NAMESPACE {

constexpr double kUnbounded = __builtin_inf();
constexpr double kUnknown = __builtin_nan("");
constexpr double kConsistent = 1.4826022185056018;  // sigma of a normal law over its MAD

inline bool finite(double x) { return __builtin_fabs(x) <= 0x1.fffffffffffffp+1023; }
inline double clamped(double x, double limit) {
  return x > limit ? limit : (x < -limit ? -limit : x);
}
inline size_t least(size_t a, size_t b) { return a < b ? a : b; }
inline size_t most(size_t a, size_t b) { return a > b ? a : b; }

// The element of rank k (from 0) of the distances |s[i] - m|, and the next one; s is sorted.
struct Pair {
  double first, second;
};
inline Pair ranked_distances(const double *s, size_t n, double m, size_t k) {
  size_t split = 0, stop = n;
  while (split < stop) {
    const size_t middle = (split + stop) / 2;
    if (s[middle] < m)
      split = middle + 1;
    else
      stop = middle;
  }
  // Two sorted lists: m - s[split - 1 - i] for i < left, and s[split + j] - m for j < right.
  const size_t left = split, right = n - split;
  size_t low = k > right ? k - right : 0, high = least(k, left);
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (m - s[split - 1 - middle] < s[split + (k - middle - 1)] - m)
      low = middle + 1;
    else
      high = middle;
  }
  size_t i = low, j = k - low;
  double found[2] = {kUnbounded, kUnbounded};
  for (double &each : found) {
    const double a = i < left ? m - s[split - 1 - i] : kUnbounded;
    const double b = j < right ? s[split + j] - m : kUnbounded;
    if (a <= b) {
      each = a;
      ++i;
    } else {
      each = b;
      ++j;
    }
  }
  return {found[0], found[1]};
}

inline void measure_sorted(const double *s, size_t n, double *header) {
  const size_t k = (n - 1) / 2;
  const double m = n % 2 != 0 ? s[k] : 0.5 * (s[k] + s[k + 1]);
  const Pair d = ranked_distances(s, n, m, k);
  header[kWindowMedian] = m;
  header[kWindowDeviation] = kConsistent * (n % 2 != 0 ? d.first : 0.5 * (d.first + d.second));
  header[kWindowKnown] = 1;
}

// Rank k of x, and the one behind it; changes the order of x (Hoare's selection).
inline Pair select_pair(double *x, size_t n, size_t k) {
  size_t low = 0, high = n - 1;
  while (low < high) {
    const double pivot = x[low + (high - low) / 2];
    size_t i = low, j = high;
    for (;;) {
      while (x[i] < pivot) ++i;
      while (x[j] > pivot) --j;
      if (i >= j) break;
      const double v = x[i];
      x[i++] = x[j];
      x[j--] = v;
      if (i > j) break;
    }
    // Everything up to j is at most the pivot, everything from i on at least.
    if (i == j) {
      if (k == i) break;
      if (k < i)
        high = i - 1;
      else
        low = i + 1;
    } else if (k <= j) {
      high = j;
    } else {
      low = i;
    }
  }
  double second = kUnbounded;
  for (size_t i = k + 1; i < n; ++i) second = x[i] < second ? x[i] : second;
  return {x[k], second};
}

// What lies below, at and above a pivot.
struct Census {
  size_t below, up_to;   // values < pivot, values <= pivot
  double largest_below;  // -infinity where there is none
  double smallest_above;
};

// Of x itself, or of the distances |x - centre|.
template <bool Distances>
inline Census take_census(const double *x, size_t n, double centre, double pivot) {
  constexpr size_t L = lanes<vd>;
#if defined(__AVX512DQ__)
  // The same with masked instructions, which compilers do not make of the loop below: half of it.
  const __m512d mid = _mm512_set1_pd(centre), at = _mm512_set1_pd(pivot);
  __m512d under = _mm512_set1_pd(-kUnbounded), over = _mm512_set1_pd(kUnbounded);
  Census out = {0, 0, 0, 0};
  size_t i = 0;
  for (; i + L <= n; i += L) {
    __m512d v = _mm512_loadu_pd(x + i);
    if (Distances) v = _mm512_abs_pd(_mm512_sub_pd(v, mid));
    const __mmask8 less = _mm512_cmp_pd_mask(v, at, _CMP_LT_OQ);
    const __mmask8 more = _mm512_cmp_pd_mask(v, at, _CMP_GT_OQ);
    out.below += static_cast<size_t>(__builtin_popcount(less));
    out.up_to += L - static_cast<size_t>(__builtin_popcount(more));
    under = _mm512_mask_max_pd(under, less, under, v);
    over = _mm512_mask_min_pd(over, more, over, v);
  }
  // Of both in pairs at once: the largest below is the least of the negated ones.
  const __m512d negated = _mm512_sub_pd(_mm512_setzero_pd(), under);
  const __m512d ends = _mm512_maskz_min_pd(0xff, _mm512_maskz_unpacklo_pd(0xff, over, negated),
                                           _mm512_maskz_unpackhi_pd(0xff, over, negated));
  __m256d halves[2];
  __builtin_memcpy(halves, &ends, sizeof ends);
  const __m256d half = _mm256_min_pd(halves[0], halves[1]);
  const __m128d last = _mm_min_pd(_mm256_castpd256_pd128(half), _mm256_extractf128_pd(half, 1));
  out.smallest_above = last[0];
  out.largest_below = 0.0 - last[1];
#else
  const vd c = vd{} + centre, p = vd{} + pivot;
  vd under = vd{} - kUnbounded, over = vd{} + kUnbounded;
  const vd lowest = under, highest = over;
  vi64 below = {}, up_to = {};
  size_t i = 0;
  for (; i + L <= n; i += L) {
    vd v = load<vd>(x + i);
    if (Distances) {
      v -= c;
      v = v < 0 ? -v : v;
    }
    const vi64 less = v < p, not_more = v <= p;
    below -= less;
    up_to -= not_more;
    under = maximum(under, less ? v : lowest);
    over = minimum(over, not_more ? highest : v);
  }
  Census out = {0, 0, -kUnbounded, kUnbounded};
  for (size_t lane = 0; lane < L; ++lane) {
    out.below += static_cast<size_t>(below[lane]);
    out.up_to += static_cast<size_t>(up_to[lane]);
    if (under[lane] > out.largest_below) out.largest_below = under[lane];
    if (over[lane] < out.smallest_above) out.smallest_above = over[lane];
  }
#endif
  for (; i < n; ++i) {
    const double v = Distances ? __builtin_fabs(x[i] - centre) : x[i];
    if (v < pivot) {
      ++out.below;
      if (v > out.largest_below) out.largest_below = v;
    }
    if (v <= pivot)
      ++out.up_to;
    else if (v < out.smallest_above)
      out.smallest_above = v;
  }
  return out;
}

// A double as an integer of the same order, and back; no NaN.
inline uint64_t order_of(double x) {
  uint64_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits >> 63) != 0 ? ~bits : bits | 0x8000000000000000u;
}
inline double of_order(uint64_t order) {
  const uint64_t bits = (order >> 63) != 0 ? order & 0x7fffffffffffffffu : ~order;
  double x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

// Ranks k and k + 1 of x (or of its distances), from a guess of what lies between them and of how
// far apart neighbours are. Each look at the data costs n / lanes operations and mostly three are
// enough. Where they are not, because the guess was bad, it is selected from a copy; of more than
// kMaxWindow values what is left of the range is halved instead, by the bits, in 64 looks at most.
template <bool Distances>
inline Pair select_near(const double *x, size_t n, double centre, size_t k, double guess,
                        double width) {
  double pivot = guess, low = -kUnbounded, high = kUnbounded;
  double low_rank = 0, high_rank = 0;
  for (int round = 0; round < 8 || n > kMaxWindow; ++round) {
    const Census c = take_census<Distances>(x, n, centre, pivot);
    if (c.below <= k && k < c.up_to) return {pivot, k + 1 < c.up_to ? pivot : c.smallest_above};
    const double wanted = static_cast<double>(k + 1), found = static_cast<double>(c.up_to);
    if (k < c.below) {
      if (k + 1 == c.below) return {c.largest_below, c.below < c.up_to ? pivot : c.smallest_above};
      high = c.largest_below;
      high_rank = static_cast<double>(c.below);
    } else {
      low = c.smallest_above;
      low_rank = found + 1;
    }
    if (round >= 7) {
      const uint64_t from = order_of(low), to = order_of(high);
      pivot = of_order(from + (to - from) / 2);
      continue;
    }
    if (finite(low) && finite(high) && high_rank > low_rank)
      pivot = low + (high - low) * ((wanted - low_rank) / (high_rank - low_rank));
    else
      pivot += (wanted - found) * width;
    if (!(pivot > low)) pivot = low;
    if (!(pivot < high)) pivot = high;
  }
  double copy[kMaxWindow];
  for (size_t i = 0; i < n; ++i) copy[i] = Distances ? __builtin_fabs(x[i] - centre) : x[i];
  return select_pair(copy, n, k);
}

// A row's part that holds a window; the layout is in folds.hpp.
struct Window {
  double *header;
  size_t window, batch;

  double *ring() const { return header + kWindowHeader; }

  // `due`: the warm-up ends with this value.
  void push(double x, bool due) const {
    const size_t place = static_cast<size_t>(header[kWindowPlace]);
    ring()[place] = x + 0.0;  // -0.0 and 0.0 are one value
    header[kWindowPlace] = static_cast<double>(place + 1 == window ? 0 : place + 1);
    if (header[kWindowCount] < static_cast<double>(window)) header[kWindowCount] += 1;
    header[kWindowFresh] += 1;
    const size_t count = static_cast<size_t>(header[kWindowCount]);
    if (header[kWindowFresh] >= static_cast<double>(batch)) {
      header[kWindowFresh] = 0;
      measure(count);
    } else if (due || (count < batch && count >= 8 && (count & (count - 1)) == 0)) {
      measure(count);
    }
  }

  void clear() const {
    for (int field = 0; field < kWindowHeader; ++field) header[field] = 0;
  }

  void measure(size_t n) const {
    const double *x = ring();
    const size_t k = (n - 1) / 2;
    const bool even = n % 2 == 0;
    // What the last look found is the guess: few values have changed since.
    const double apart = header[kWindowDeviation] / (kConsistent * static_cast<double>(n));
    const Pair m = select_near<false>(x, n, 0.0, k, header[kWindowMedian], 4.0 * apart);
    const double median = even ? 0.5 * (m.first + m.second) : m.first;
    const Pair d =
        select_near<true>(x, n, median, k, header[kWindowDeviation] / kConsistent, 2.3 * apart);
    header[kWindowMedian] = median;
    header[kWindowDeviation] = kConsistent * (even ? 0.5 * (d.first + d.second) : d.first);
    header[kWindowKnown] = 1;
  }
};

}  // namespace MLSD_TARGET_NAMESPACE
}  // namespace mlsd
