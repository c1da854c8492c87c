// The robust window of folds.hpp: median and MAD of the last values, by keeping them sorted.
//
// A batch is sorted by ranks and merged in without a branch on the data, while the batch that
// leaves is dropped on the way: some hundred nanoseconds per batch, whatever the values are.
#pragma once

#include <stddef.h>
#include <stdint.h>

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

// out = x sorted; n <= kMaxBatch. Equal values keep their order.
inline void sort_by_rank(const double *x, size_t n, double *out) {
  for (size_t i = 0; i < n; ++i) {
    const double v = x[i];
    int64_t before = 0;
    for (size_t j = 0; j < i; ++j) before += x[j] <= v;
    for (size_t j = i + 1; j < n; ++j) before += x[j] < v;
    out[before] = v;
  }
}

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

// A row's part that holds a window; the layout is in folds.hpp.
struct Window {
  double *header;
  size_t window, batch;

  double *pending() const { return header + kWindowHeader; }
  double *sorted() const { return pending() + batch; }
  unsigned char *tags() const { return reinterpret_cast<unsigned char *>(sorted() + window); }

  void push(double x, double warmup, double learnt) const {
    const size_t count = static_cast<size_t>(header[kWindowPending]);
    pending()[count] = x;
    header[kWindowPending] = static_cast<double>(count + 1);
    if (count + 1 == batch)
      refresh();
    else if (header[kWindowCount] == 0)
      early(count + 1, learnt == warmup);
  }

  // Before there is a batch: at 8, 16, 32 values, and where the warm-up ends.
  void early(size_t count, bool due) const {
    if (!due && (count < 8 || (count & (count - 1)) != 0)) return;
    double s[kMaxBatch];
    sort_by_rank(pending(), count, s);
    measure_sorted(s, count, header);
  }

  void clear() const {
    header[kWindowCount] = header[kWindowBatches] = header[kWindowPending] = 0;
    header[kWindowKnown] = 0;
  }

  void refresh() const {
    // One sentinel at each end keeps bounds out of the merge; both arrays are as long as the merge,
    // so that not even a damaged state, whose values need not be sorted, reads beyond them.
    double fresh[kMaxWindow + 2], kept[kMaxWindow + 2];
    unsigned char kept_tags[kMaxWindow + 2];
    sort_by_rank(pending(), batch, fresh + 1);
    fresh[0] = kept[0] = -kUnbounded;
    fresh[batch + 1] = kUnbounded;
    double *s = sorted();
    unsigned char *t = tags();
    const size_t batches = window / batch;
    const size_t entered = static_cast<size_t>(header[kWindowBatches]);
    const unsigned char tag = static_cast<unsigned char>(entered % batches);
    const size_t count = static_cast<size_t>(header[kWindowCount]);
    size_t m = 1;
    if (entered >= batches) {
      for (size_t i = 0; i < count; ++i) {
        kept[m] = s[i];
        kept_tags[m] = t[i];
        m += t[i] != tag;
      }
    } else {
      for (; m <= count; ++m) {
        kept[m] = s[m - 1];
        kept_tags[m] = t[m - 1];
      }
    }
    kept[m] = kUnbounded;
    kept_tags[0] = kept_tags[m] = tag;
    merge(kept, kept_tags, m - 1, fresh, tag, s, t);
    const size_t total = m - 1 + batch;
    header[kWindowCount] = static_cast<double>(total);
    header[kWindowBatches] = static_cast<double>(entered + 1);
    header[kWindowPending] = 0;
    measure_sorted(s, total, header);
  }

  // From both ends at once: two chains of dependent loads instead of one.
  void merge(const double *a, const unsigned char *a_tags, size_t m, const double *b,
             unsigned char tag, double *out, unsigned char *out_tags) const {
    const size_t total = m + batch, half = total / 2;
    size_t i = 1, j = 1, p = m, q = batch;
    if (m == 0) {
      for (size_t k = 0; k < batch; ++k) {
        out[k] = b[k + 1];
        out_tags[k] = tag;
      }
      return;
    }
    for (size_t k = 0; k < half; ++k) {
      const bool low = a[i] <= b[j];
      out[k] = low ? a[i] : b[j];
      out_tags[k] = low ? a_tags[i] : tag;
      i += low;
      j += !low;
      const bool high = b[q] >= a[p];
      const size_t end = total - 1 - k;
      out[end] = high ? b[q] : a[p];
      out_tags[end] = high ? tag : a_tags[p];
      q -= high;
      p -= !high;
    }
    if (total % 2 != 0) {
      const bool low = a[i] <= b[j];
      out[half] = low ? a[i] : b[j];
      out_tags[half] = low ? a_tags[i] : tag;
    }
  }
};

}  // namespace MLSD_TARGET_NAMESPACE
}  // namespace mlsd
