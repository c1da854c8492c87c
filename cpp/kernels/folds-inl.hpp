// The loops of folds.hpp, written once for every target.
#pragma once

#include "kernels/window-inl.hpp"

namespace mlsd {
namespace MLSD_TARGET_NAMESPACE {

inline double step_of(const int64_t *steps, size_t i, double seen) {
  return steps != nullptr ? static_cast<double>(steps[i]) : seen;
}

inline double above_floor(double scale, double centre, double floor, double relative) {
  const double part = relative * __builtin_fabs(centre);
  const double low = floor > part ? floor : part;
  return scale > low ? scale : low;
}

// A constant past has no scale: whatever differs from it is infinitely far.
inline double standardised(double distance, double scale) {
  if (scale > 0) return distance / scale;
  return distance == 0 ? 0.0 : (distance > 0 ? kUnbounded : -kUnbounded);
}

// ---- robust baseline ----------------------------------------------------------------------------

struct Baseline {
  double *row;
  const BaselineSettings &settings;
  Window window;
  int64_t series;
  const FoldSink *sink;

  double *rejects() const { return row + kBaselineHeader; }

  void close_run(double step) const {
    row[kRunActive] = 0;
    const double peak = row[kRunPeak];
    const FoldEvent event = {series,
                             static_cast<int64_t>(step),
                             static_cast<int64_t>(row[kRunFirst]),
                             static_cast<int64_t>(row[kRunLast]),
                             static_cast<int64_t>(row[kRunPeakStep]),
                             static_cast<int64_t>(row[kRunCount]),
                             peak > 0 ? 1 : -1,
                             peak,
                             row[kRunPeakValue]};
    sink->emit(sink->context, event);
  }

  void follow_run(double z, double value, double step) const {
    const double height = settings.side == 0 ? __builtin_fabs(z) : settings.side * z;
    if (height > settings.threshold) {
      if (row[kRunActive] == 0) {
        row[kRunActive] = 1;
        row[kRunFirst] = step;
        row[kRunCount] = row[kRunPeak] = 0;
      }
      row[kRunLast] = step;
      row[kRunCount] += 1;
      row[kRunCalm] = 0;
      if (__builtin_fabs(z) > __builtin_fabs(row[kRunPeak])) {
        row[kRunPeak] = z;
        row[kRunPeakStep] = step;
        row[kRunPeakValue] = value;
      }
    } else if (row[kRunActive] != 0) {
      row[kRunCalm] += 1;
      if (row[kRunCalm] >= settings.patience) close_run(step);
    }
  }

  void accept(double y) const {
    row[kBaselineRejected] = 0;
    row[kBaselineLearnt] += 1;
    window.push(y, row[kBaselineLearnt] == settings.warmup);
  }

  // So many in a row are no outliers: the last of them are the new baseline.
  void relearn() const {
    const size_t count = static_cast<size_t>(row[kBaselineRejected]);
    const size_t used = least(count, settings.batch);
    window.clear();
    for (size_t i = 0; i < used; ++i) {
      row[kBaselineLearnt] += 1;
      // Due with the last one: a baseline must be there again at once.
      window.push(rejects()[(count - used + i) % settings.batch], i + 1 == used);
    }
    row[kBaselineRejected] = 0;
  }

  void reject(double y) const {
    const size_t count = static_cast<size_t>(row[kBaselineRejected]);
    rejects()[count % settings.batch] = y;
    row[kBaselineRejected] = static_cast<double>(count + 1);
    if (row[kBaselineRejected] >= settings.relearn) relearn();
  }

  double fold(double value, double step) const {
    double y = value;
    if (settings.logarithm) y = value > 0 ? __builtin_log(value) : kUnknown;
    if (!finite(y)) return kUnknown;
    y = clamped(y, kLargest);
    double z = kUnknown;
    if (row[kBaselineLearnt] >= settings.warmup && window.header[kWindowKnown] != 0) {
      const double median = window.header[kWindowMedian];
      const double scale =
          above_floor(window.header[kWindowDeviation], median, settings.floor, settings.relative);
      z = standardised(y - median, scale);
      follow_run(z, value, step);
    }
    if (__builtin_fabs(z) > settings.clip)
      reject(y);
    else
      accept(y);
    return z;
  }
};

inline void fold_baseline(const double *x, const int64_t *steps, size_t n, int64_t series,
                          double *row, const BaselineSettings &settings, double *z,
                          const FoldSink *sink) {
  const Window window = {row + kBaselineHeader + settings.batch, settings.window, settings.batch};
  const Baseline baseline = {row, settings, window, series, sink};
  row[kBaselineVersion] = kBaselineLayout;
  for (size_t i = 0; i < n; ++i) {
    const double step = step_of(steps, i, row[kBaselineSeen]);
    row[kBaselineSeen] += 1;
    const double found = baseline.fold(x[i], step);
    if (z != nullptr) z[i] = found;
  }
}

// ---- CUSUM on prewhitened residuals -------------------------------------------------------------

struct Cusum {
  double *row;
  const CusumSettings &settings;
  Window window;
  int64_t series;
  const FoldSink *sink;

  // The level is learnt anew; the correlation, which a change of level leaves as it was, only loses
  // weight, so that it can change too.
  void restart() const {
    const double most = 0.25 * static_cast<double>(settings.window);
    const double part = row[kCusumWeight] > most ? most / row[kCusumWeight] : 1.0;
    row[kCusumWeight] *= part;
    row[kCusumVariance] *= part;
    row[kCusumCovariance] *= part;
    row[kCusumLearnt] = row[kCusumUp] = row[kCusumDown] = 0;
    window.clear();
  }

  void alarm(double step, double onset, double count, int direction, double statistic,
             double value) const {
    const int64_t at = static_cast<int64_t>(step);
    const FoldEvent event = {series,    at,        static_cast<int64_t>(onset),
                             at,        at,        static_cast<int64_t>(count),
                             direction, statistic, value};
    sink->emit(sink->context, event);
    restart();
  }

  // One side: true where it passes the threshold.
  bool raise(double z, double step, CusumField sum, CusumField onset, CusumField count) const {
    const double before = row[sum];
    const double now = before + z - settings.drift;
    if (!(now > 0)) {
      row[sum] = 0;
      return false;
    }
    if (before == 0) {
      row[onset] = step;
      row[count] = 0;
    }
    row[sum] = now;
    row[count] += 1;
    return now > settings.threshold;
  }

  // Mean, variance and lag-one covariance remember four windows: a correlation needs many more
  // values than a level. Far ones count as four sigma, so that one spike does not make the series
  // look white, or the opposite.
  void learn_moments(double deviation, double previous) const {
    const double memory = 4.0 * static_cast<double>(settings.window);
    const double keep = 1.0 - 1.0 / memory;
    double d = deviation, p = previous;
    if (row[kCusumLimit] > 0) {
      d = clamped(d, row[kCusumLimit]);
      p = clamped(p, row[kCusumLimit]);
    }
    const double rate = 1.0 / (row[kCusumLearnt] < memory ? row[kCusumLearnt] : memory);
    row[kCusumMean] += d * rate;
    row[kCusumWeight] = keep * row[kCusumWeight] + 1.0;
    row[kCusumVariance] = keep * row[kCusumVariance] + d * d;
    row[kCusumCovariance] = keep * row[kCusumCovariance] + d * p;
  }

  // Together with the window: in between, residuals are of one and the same model.
  void learn_model() const {
    const double variance = row[kCusumVariance];
    double phi = variance > 0 ? row[kCusumCovariance] / variance : 0.0;
    if (!(phi > 0)) phi = 0.0;
    row[kCusumPhi] = phi < settings.max_phi ? phi : settings.max_phi;
    row[kCusumLimit] = 4.0 * __builtin_sqrt(variance / row[kCusumWeight]);
  }

  double fold(double value, double step) const {
    const double y = clamped(value, kLargest);
    const bool first = row[kCusumLearnt] == 0;
    if (first) row[kCusumMean] = row[kCusumPrevious] = y;
    const double mean = row[kCusumMean];
    const double deviation = y - mean, previous = row[kCusumPrevious] - mean;
    row[kCusumPrevious] = y;
    row[kCusumLearnt] += 1;
    learn_moments(deviation, previous);
    if (first) return kUnknown;  // it has no residual
    const double residual = deviation - row[kCusumPhi] * previous;
    double found = kUnknown;
    if (row[kCusumLearnt] > settings.warmup && window.header[kWindowKnown] != 0) {
      const double scale =
          above_floor(window.header[kWindowDeviation], mean, settings.floor, settings.relative);
      const double z =
          clamped(standardised(residual - window.header[kWindowMedian], scale), settings.clip);
      const bool up = raise(z, step, kCusumUp, kCusumUpOnset, kCusumUpCount);
      const bool down = raise(-z, step, kCusumDown, kCusumDownOnset, kCusumDownCount);
      const double sum_up = row[kCusumUp], sum_down = row[kCusumDown];
      found = sum_up >= sum_down ? sum_up : -sum_down;
      if (up || down) {
        if (up)
          alarm(step, row[kCusumUpOnset], row[kCusumUpCount], 1, sum_up, value);
        else
          alarm(step, row[kCusumDownOnset], row[kCusumDownCount], -1, sum_down, value);
        return found;
      }
    }
    window.push(residual, row[kCusumLearnt] == settings.warmup);
    const bool early = row[kCusumLearnt] >= 8 && row[kCusumLearnt] < settings.warmup;
    if (early || window.header[kWindowFresh] == 0) learn_model();
    return found;
  }
};

inline void fold_cusum(const double *x, const int64_t *steps, size_t n, int64_t series, double *row,
                       const CusumSettings &settings, double *statistic, const FoldSink *sink) {
  const Window window = {row + kCusumHeader, settings.window, settings.batch};
  double s[kCusumHeader];  // apart from the outputs, which might share memory with the row
  __builtin_memcpy(s, row, sizeof s);
  const Cusum cusum = {s, settings, window, series, sink};
  s[kCusumVersion] = kCusumLayout;
  for (size_t i = 0; i < n; ++i) {
    const double step = step_of(steps, i, s[kCusumSeen]);
    s[kCusumSeen] += 1;
    const double found = finite(x[i]) ? cusum.fold(x[i], step) : kUnknown;
    if (statistic != nullptr) statistic[i] = found;
  }
  __builtin_memcpy(row, s, sizeof s);
}

// ---- EWMA: weights (1 - alpha)^age, bias-corrected (West, CACM 22, 1979)
// --------------------------

inline void fold_ewma(const double *x, size_t n, double *row, double alpha, double *mean,
                      double *variance) {
  const double keep = 1.0 - alpha;
  double s[kEwmaSize];  // in registers: the outputs might share memory with the row
  __builtin_memcpy(s, row, sizeof s);
  s[kEwmaVersion] = kEwmaLayout;
  for (size_t i = 0; i < n; ++i) {
    s[kEwmaSeen] += 1;
    if (finite(x[i])) {
      const double y = clamped(x[i], kLargest);
      if (s[kEwmaCount] == 0) s[kEwmaMean] = y;
      s[kEwmaCount] += 1;
      const double weight = keep * s[kEwmaWeight] + 1.0;
      const double rate = 1.0 / weight;
      const double delta = y - s[kEwmaMean];
      s[kEwmaWeight] = weight;
      s[kEwmaWeight2] = keep * keep * s[kEwmaWeight2] + 1.0;
      s[kEwmaMean] += delta * rate;
      s[kEwmaSquares] = keep * s[kEwmaSquares] + delta * (y - s[kEwmaMean]);
    }
    const bool known = s[kEwmaCount] > 0;
    if (mean != nullptr) mean[i] = known ? s[kEwmaMean] : kUnknown;
    if (variance != nullptr) {
      const double weight = s[kEwmaWeight];
      const double degrees = s[kEwmaCount] > 1 ? weight - s[kEwmaWeight2] / weight : 0.0;
      variance[i] = degrees > 0 ? s[kEwmaSquares] / degrees : kUnknown;
    }
  }
  __builtin_memcpy(row, s, sizeof s);
}

// ---- running extrema of a smoothed series -------------------------------------------------------

inline void fold_extrema(const double *x, const int64_t *steps, size_t n, double *row, double alpha,
                         double warmup, double *smoothed, double *lowest, double *highest) {
  const double keep = 1.0 - alpha;
  double s[kExtremaSize];
  __builtin_memcpy(s, row, sizeof s);
  s[kExtremaVersion] = kExtremaLayout;
  for (size_t i = 0; i < n; ++i) {
    const double step = step_of(steps, i, s[kExtremaSeen]);
    s[kExtremaSeen] += 1;
    if (finite(x[i])) {
      const double y = clamped(x[i], kLargest);
      if (s[kExtremaCount] == 0) s[kExtremaSmoothed] = y;
      s[kExtremaCount] += 1;
      s[kExtremaWeight] = keep * s[kExtremaWeight] + 1.0;
      const double rate = 1.0 / s[kExtremaWeight];
      s[kExtremaSmoothed] += (y - s[kExtremaSmoothed]) * rate;
      const double level = s[kExtremaSmoothed];
      const bool begins = s[kExtremaCount] == warmup;
      if (s[kExtremaCount] >= warmup) {
        if (begins || level < s[kExtremaMin]) {
          s[kExtremaMin] = level;
          s[kExtremaMinStep] = step;
        }
        if (begins || level > s[kExtremaMax]) {
          s[kExtremaMax] = level;
          s[kExtremaMaxStep] = step;
        }
      }
    }
    const bool any = s[kExtremaCount] > 0, known = s[kExtremaCount] >= warmup;
    if (smoothed != nullptr) smoothed[i] = any ? s[kExtremaSmoothed] : kUnknown;
    if (lowest != nullptr) lowest[i] = known ? s[kExtremaMin] : kUnknown;
    if (highest != nullptr) highest[i] = known ? s[kExtremaMax] : kUnknown;
  }
  __builtin_memcpy(row, s, sizeof s);
}

// ---- block means: Welford within a block, Chan, Golub and LeVeque (1979) between two ------------

inline void join_blocks(const double *a, const double *b, double *out) {
  const double count = a[kBlockCount] + b[kBlockCount];
  const double delta = b[kBlockMean] - a[kBlockMean];
  const double part = b[kBlockCount] / count;
  const double mean = a[kBlockMean] + delta * part;
  const double m2 = a[kBlockM2] + b[kBlockM2] + delta * delta * a[kBlockCount] * part;
  out[kBlockMin] = a[kBlockMin] < b[kBlockMin] ? a[kBlockMin] : b[kBlockMin];
  out[kBlockMax] = a[kBlockMax] > b[kBlockMax] ? a[kBlockMax] : b[kBlockMax];
  out[kBlockFirst] = a[kBlockFirst];
  out[kBlockLast] = b[kBlockLast];
  out[kBlockCount] = count;
  out[kBlockMean] = mean;
  out[kBlockM2] = m2;
}

inline void fold_blocks(const double *x, const int64_t *steps, size_t n, double *row) {
  double *const blocks = row + kBlocksHeader;
  row[kBlocksVersion] = kBlocksLayout;
  if (row[kBlocksPerBlock] == 0) row[kBlocksPerBlock] = 1;
  for (size_t i = 0; i < n; ++i) {
    const double step = step_of(steps, i, row[kBlocksSeen]);
    row[kBlocksSeen] += 1;
    if (!finite(x[i])) {
      row[kBlocksNonfinite] += 1;
      continue;
    }
    const double y = clamped(x[i], kLargest);
    size_t used = static_cast<size_t>(row[kBlocksUsed]);
    double *last = blocks + (used - (used > 0)) * kBlockWidth;
    if (used == 0 || last[kBlockCount] == row[kBlocksPerBlock]) {
      if (used == kBlocks) {
        for (size_t k = 0; k < kBlocks / 2; ++k)
          join_blocks(blocks + 2 * k * kBlockWidth, blocks + (2 * k + 1) * kBlockWidth,
                      blocks + k * kBlockWidth);
        row[kBlocksPerBlock] *= 2;
        used = kBlocks / 2;
      }
      last = blocks + used * kBlockWidth;
      row[kBlocksUsed] = static_cast<double>(used + 1);
      last[kBlockCount] = 1;
      last[kBlockM2] = 0;
      last[kBlockMean] = last[kBlockMin] = last[kBlockMax] = y;
      last[kBlockFirst] = last[kBlockLast] = step;
      continue;
    }
    last[kBlockCount] += 1;
    const double share = 1.0 / last[kBlockCount];
    const double delta = y - last[kBlockMean];
    last[kBlockMean] += delta * share;
    last[kBlockM2] += delta * (y - last[kBlockMean]);
    if (y < last[kBlockMin]) last[kBlockMin] = y;
    if (y > last[kBlockMax]) last[kBlockMax] = y;
    last[kBlockLast] = step;
  }
}

// ---- replica spread -----------------------------------------------------------------------------

// In place; shell sort with Ciura's gaps: no call, no template of the standard library.
inline void sort_doubles(double *x, size_t n) {
  static constexpr size_t gaps[] = {1750, 701, 301, 132, 57, 23, 10, 4, 1};
  for (const size_t gap : gaps)
    for (size_t i = gap; i < n; ++i) {
      const double v = x[i];
      size_t j = i;
      for (; j >= gap && x[j - gap] > v; j -= gap) x[j] = x[j - gap];
      x[j] = v;
    }
}

// out = x sorted, by counting what comes before each: no branch on the data, for a few values.
constexpr size_t kFew = 16;
inline void sort_few(const double *x, size_t n, double *out) {
  for (size_t i = 0; i < n; ++i) {
    const double v = x[i];
    int64_t before = 0;
    for (size_t j = 0; j < i; ++j) before += x[j] <= v;
    for (size_t j = i + 1; j < n; ++j) before += x[j] < v;
    out[before] = v;
  }
}
inline double middle_of(const double *sorted, size_t n) {
  const size_t k = (n - 1) / 2;
  return n % 2 != 0 ? sorted[k] : 0.5 * (sorted[k] + sorted[k + 1]);
}

// out = the finite values of x, clamped, no -0.0; returns how many, and their extremes.
inline size_t take_finite(const double *x, size_t n, double *out, double *low, double *high) {
  constexpr size_t L = lanes<vd>;
  const vd largest = vd{} + kLargest, zero = {};
  vd lowest = vd{} + kUnbounded, highest = vd{} - kUnbounded;
  vi64 odd = {};
  size_t count = 0, i = 0;
  for (; i + L <= n; i += L) {
    const vd v = load<vd>(x + i) + zero;
    odd |= ~((v <= largest) & (v >= -largest));  // NaN too
    lowest = minimum(lowest, v);
    highest = maximum(highest, v);
    __builtin_memcpy(out + i, &v, sizeof v);
  }
  bool plain = true;
  for (size_t lane = 0; lane < L; ++lane) plain &= odd[lane] == 0;
  *low = kUnbounded;
  *high = -kUnbounded;
  if (plain) {
    count = i;
    for (size_t lane = 0; lane < L; ++lane) {
      if (lowest[lane] < *low) *low = lowest[lane];
      if (highest[lane] > *high) *high = highest[lane];
    }
  } else {
    i = 0;
  }
  for (; i < n; ++i) {
    if (!finite(x[i])) continue;
    const double v = clamped(x[i], kLargest) + 0.0;
    out[count++] = v;
    if (v < *low) *low = v;
    if (v > *high) *high = v;
  }
  return count;
}

// The first finite value that lies `apart` from the centre.
inline size_t first_apart(const double *x, size_t n, double centre, double apart) {
  constexpr size_t L = lanes<vd>, kBlock = 16 * L;
  const vd largest = vd{} + kLargest;
  size_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    vi64 found = {};
    for (size_t j = 0; j < kBlock; j += L) {
      vd v = load<vd>(x + i + j);
      v = minimum(maximum(v, -largest), largest) - centre;
      found |= (v == apart) | (v == -apart);
    }
    int64_t any = 0;
    for (size_t lane = 0; lane < L; ++lane) any |= found[lane];
    if (any == 0) continue;
    // What is not finite may look like the largest: here it is told apart.
    for (size_t j = i; j < i + kBlock; ++j)
      if (finite(x[j]) && __builtin_fabs(clamped(x[j], kLargest) - centre) == apart) return j;
  }
  for (; i < n; ++i)
    if (finite(x[i]) && __builtin_fabs(clamped(x[i], kLargest) - centre) == apart) break;
  return i;
}

// Median and MAD of x, from guesses of both.
inline void measure_near(const double *x, size_t n, double *median, double *deviation) {
  const size_t k = (n - 1) / 2;
  const bool even = n % 2 == 0;
  const double near = *deviation / kConsistent;
  // How far apart neighbours are at the median and at one MAD from it, by a normal law.
  const double width = near / static_cast<double>(n);
  const Pair m = select_near<false>(x, n, 0.0, k, *median, 3.72 * width);
  *median = even ? 0.5 * (m.first + m.second) : m.first;
  const Pair d = select_near<true>(x, n, *median, k, near, 2.33 * width);
  *deviation = kConsistent * (even ? 0.5 * (d.first + d.second) : d.first);
}

// The same of many values, where evenly spread ones say where to look.
inline void measure_many(const double *x, size_t n, double *median, double *deviation) {
  constexpr size_t kFirst = 64, kGuess = 1024;
  double guess[kGuess], measured[kWindowHeader];
  for (size_t i = 0; i < kFirst; ++i) guess[i] = x[i * n / kFirst];
  sort_doubles(guess, kFirst);
  measure_sorted(guess, kFirst, measured);
  *median = measured[kWindowMedian];
  *deviation = measured[kWindowDeviation];
  if (n >= 4 * kGuess) {
    for (size_t i = 0; i < kGuess; ++i) guess[i] = x[i * n / kGuess];
    measure_near(guess, kGuess, median, deviation);
  }
  measure_near(x, n, median, deviation);
}

constexpr size_t kMany = 256;  // from where selection is faster than sorting

inline ReplicaSpread spread_of(const double *x, size_t n, double *scratch) {
  double low, high;
  const size_t count = take_finite(x, n, scratch, &low, &high);
  ReplicaSpread out = {
      kUnknown, kUnknown, kUnknown, kUnknown, kUnknown, -1, static_cast<int64_t>(count)};
  if (count == 0) return out;
  out.low = low;
  out.high = high;
  if (count <= kFew) {
    double sorted[kFew], apart[kFew];
    sort_few(scratch, count, sorted);
    out.median = middle_of(sorted, count);
    for (size_t i = 0; i < count; ++i) apart[i] = __builtin_fabs(scratch[i] - out.median);
    sort_few(apart, count, sorted);
    out.deviation = kConsistent * middle_of(sorted, count);
  } else if (count < kMany) {
    sort_doubles(scratch, count);
    double measured[kWindowHeader];
    measure_sorted(scratch, count, measured);
    out.median = measured[kWindowMedian];
    out.deviation = measured[kWindowDeviation];
  } else {
    measure_many(scratch, count, &out.median, &out.deviation);
  }
  // The farthest is one of the two ends.
  const double below = out.median - low, above = high - out.median;
  const size_t at = first_apart(x, n, out.median, below > above ? below : above);
  out.worst = static_cast<int64_t>(at);
  out.z = standardised(clamped(x[at], kLargest) - out.median, out.deviation);
  return out;
}

}  // namespace MLSD_TARGET_NAMESPACE
}  // namespace mlsd
