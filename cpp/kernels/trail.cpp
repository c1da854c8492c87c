#include "mlsd/trail.hpp"

#include <cmath>

namespace mlsd {
namespace {

constexpr double kLargest = 1e300;
constexpr double kShort = 8.0;    // values before a scale is believed
constexpr double kMemory = 32.0;  // values over which level and scale are learnt
constexpr double kFastMemory = 8.0;
constexpr double kFirstCheck = 24.0;
constexpr double kFirstTrigger = 16.0;
constexpr double kLongest = 256.0;     // an excursion this long, and longer than what came
                                       // before it, is the new normal
constexpr double kDeviation = 1.2533;  // sigma of a normal law over its mean absolute deviation
constexpr double kClip = 3.0;
constexpr double kLeft = 2.0;  // sigmas above the level: no longer calm
constexpr int kBackMost = 16;

inline double absolute(double x) { return std::fabs(x); }
inline double larger(double a, double b) { return a > b ? a : b; }
inline double smaller(double a, double b) { return a < b ? a : b; }
// Without branches: the order of noisy values cannot be predicted.
inline double median3(double a, double b, double c) {
  return larger(smaller(a, b), smaller(larger(a, b), c));
}

void merge_table(double* row) {
  double* values = row + kTableValues;
  double* steps = row + kTableSteps;
  for (int i = 0; i < kTrailTable / 3; ++i) {
    values[i] = median3(values[3 * i], values[3 * i + 1], values[3 * i + 2]);
    steps[i] = steps[3 * i];
  }
  row[kEntries] = kTrailTable / 3;
  row[kExponent] += 1;
}

void push_table(double* row, double y, double step) {
  if (row[kPending] == 0) row[kPendingStep] = step;
  row[kPending] += 1;
  const int exponent = static_cast<int>(row[kExponent]);
  for (int depth = 0; depth < exponent; ++depth) {
    double* buffer = row + kBuffers + 3 * depth;
    double& held = row[kBufferCounts + depth];
    if (held < 2) {
      buffer[static_cast<int>(held)] = y;
      held += 1;
      return;
    }
    y = median3(buffer[0], buffer[1], y);
    held = 0;
  }
  const int at = static_cast<int>(row[kEntries]);
  row[kTableValues + at] = y;
  row[kTableSteps + at] = row[kPendingStep];
  row[kPending] = 0;
  row[kEntries] = at + 1;
  // Depth 19 covers 3^19 values an entry, 7e10 a table: no run is longer.
  if (at + 1 == kTrailTable && exponent < kTrailDepth - 1) merge_table(row);
}

// The settings by name, in registers: the compiler cannot know that the row, which is
// written, and the array of settings are apart.
struct Settings {
  double sign, sigmas, floor, relative, early, rise, rise_of_gain, rise_of_best;
  bool logarithm, always;
};

inline double transformed(double magnitude, double x, const Settings& settings) {
  if (settings.logarithm) {
    return settings.sign * std::log(smaller(larger(magnitude, 1 / kLargest), kLargest));
  }
  return settings.sign * smaller(larger(x, -kLargest), kLargest);
}

// Level and scale from the values that are no part of an excursion; each value
// moves them by a bounded amount (Huber, Robust Statistics, 1981).
inline void learn(double* row, double y, double step, double minimum) {
  const double known = row[kCount];  // with this one
  if (known == 1) {
    row[kLevel] = row[kFast] = row[kBest] = row[kWorst] = y;
    row[kBestStep] = step;
    return;
  }
  const double alpha = known < kMemory ? 1 / known : 1 / kMemory;
  const double scale = row[kScale];
  const double away = y - row[kLevel];
  const double bound = known <= kShort ? kLargest : larger(kClip * scale, minimum);
  const double moved = smaller(larger(away, -bound), bound);
  row[kLevel] += alpha * moved;
  row[kScale] += alpha * (absolute(moved) - scale);
  if (row[kLevel] < row[kBest]) {
    row[kBest] = row[kLevel];
    row[kBestStep] = step;
  }
  row[kWorst] = larger(row[kWorst], row[kLevel]);
}

// A series that bursts again and again is looked at later each time, so that the looks
// do not grow with the run.
inline double first_trigger(const double* row) { return kFirstTrigger + 4 * row[kReturns]; }

// The value that was exceeded tells that there is an excursion, not where it began: growth
// that gathers pace left the level some values before. They are in the ring.
inline int values_back(const double* row) {
  const double line = row[kLevel] + kLeft * kDeviation * row[kScale];
  const auto known = static_cast<std::int64_t>(row[kCount]) - 1;  // without the one at hand
  int back = 0;
  while (back < kBackMost && back + 1 < known &&
         row[kRingValues + (known - 1 - back) % kTrailRing] > line) {
    ++back;
  }
  return back;
}

inline void begin_excursion(double* row, double y, double step, double bound) {
  const int back = values_back(row);
  const auto start = static_cast<std::int64_t>(row[kCount]) - 1 - back;
  row[kActive] = 1;
  row[kStartStep] = back == 0 ? step : row[kRingSteps + start % kTrailRing];
  row[kStartIndex] = static_cast<double>(start);
  row[kBefore] = row[kRingSteps + (start - 1) % kTrailRing];
  row[kBaseLevel] = row[kLevel];
  row[kBaseScale] = row[kScale];
  row[kBound] = bound;
  row[kLength] = 1 + back;
  row[kCalm] = 0;
  row[kPeak] = y;
  row[kPeakStep] = step;
  row[kNextTrigger] = first_trigger(row);
}

inline int follow_excursion(double* row, double y, double step) {
  row[kLength] += 1;
  if (y > row[kPeak]) {
    row[kPeak] = y;
    row[kPeakStep] = step;
  }
  row[kCalm] = y < 0.5 * (row[kBaseLevel] + row[kBound]) ? row[kCalm] + 1 : 0;
  if (row[kCalm] >= kTrailPatience) {
    row[kActive] = 0;
    if (row[kNextTrigger] <= first_trigger(row)) return kNothing;
    row[kReturns] += 1;
    return kReturned;
  }
  int reason = kNothing;
  if (row[kLength] >= row[kNextTrigger]) {
    row[kNextTrigger] *= 2;
    reason = kTrigger;
  }
  if (row[kLength] > larger(kLongest, row[kStartIndex])) {
    row[kActive] = 0;
    row[kLevel] = row[kFast];
    row[kScale] = larger(row[kScale], absolute(y - row[kFast]));
  }
  return reason;
}

inline bool check_is_due(double* row, const Settings& settings) {
  if (row[kCount] < row[kNextCheck]) return false;
  row[kNextCheck] = std::floor(row[kCount] * 1.125) + 1;
  if (settings.always || row[kWatch] != 0) return true;
  const double gain = row[kFirst] - row[kBest];
  const double asked = larger(larger(settings.rise, settings.rise_of_gain * gain),
                              settings.rise_of_best * absolute(row[kBest]));
  return row[kFast] - row[kBest] >= asked;
}

inline int fold_one(double* row, double x, double step, const Settings& settings) {
  const double magnitude = absolute(x);
  if (!(magnitude <= 1.7976931348623157e308)) {
    row[kNonFinite] += 1;
    if (row[kNonFinite] > 1) return kNothing;
    row[kFirstBadStep] = step;
    return kBroke;
  }
  if (magnitude == 0) {
    if (row[kZeros] == 0) row[kZeroStep] = step;
    row[kZeros] += 1;
  } else {
    row[kZeros] = 0;
  }
  const double y = transformed(magnitude, x, settings);
  const double before = row[kCount];
  const auto slot = static_cast<std::int64_t>(before) % kTrailRing;
  row[kRingValues + slot] = y;
  row[kRingSteps + slot] = step;
  if (before < kTrailEarly) row[kEarlyValues + slot] = y;
  const double count = before + 1;
  row[kCount] = count;
  if (before == 0) {
    row[kFirst] = row[kMin] = row[kMax] = y;
    row[kFirstStep] = row[kMinStep] = row[kMaxStep] = row[kLastStep] = step;
    row[kNextCheck] = kFirstCheck;
  }
  if (y < row[kMin]) {
    row[kMin] = y;
    row[kMinStep] = step;
  }
  if (y > row[kMax]) {
    row[kMax] = y;
    row[kMaxStep] = step;
  }
  row[kFast] += (y - row[kFast]) * (count < kFastMemory ? 1 / count : 1 / kFastMemory);
  const double minimum = settings.floor + settings.relative * absolute(row[kLevel]);
  int reason = kNothing;
  if (row[kActive] != 0) {
    reason = follow_excursion(row, y, step);
  } else {
    const double least = count <= kShort ? settings.early * minimum : minimum;
    const double bound = row[kLevel] + larger(settings.sigmas * kDeviation * row[kScale], least);
    if (before > 0 && y > bound) {
      begin_excursion(row, y, step, bound);
    } else {
      learn(row, y, step, minimum);
    }
  }
  push_table(row, y, step);
  row[kLast] = y;
  row[kLastStep] = step;
  if (check_is_due(row, settings) && reason == kNothing) reason = kCheck;
  return reason;
}

std::ptrdiff_t fold_strided(const double* values, std::ptrdiff_t stride, const std::int64_t* steps,
                            std::ptrdiff_t at, std::ptrdiff_t n, double* row,
                            const double* settings) {
  const Settings set{settings[kSign],       settings[kSigmas],      settings[kFloor],
                     settings[kRelative],   settings[kEarlyFactor], settings[kRise],
                     settings[kRiseOfGain], settings[kRiseOfBest],  settings[kLogarithm] != 0,
                     settings[kAlways] != 0};
  row[kReason] = kNothing;
  for (; at < n; ++at) {
    const double step = static_cast<double>(steps == nullptr ? at : steps[at]);
    const int reason = fold_one(row, values[at * stride], step, set);
    if (reason != kNothing) {
      row[kReason] = reason;
      return at + 1;
    }
  }
  return at;
}

}  // namespace

std::ptrdiff_t trail_fold(const double* values, const std::int64_t* steps, std::ptrdiff_t at,
                          std::ptrdiff_t n, double* row, const double* settings) {
  return fold_strided(values, 1, steps, at, n, row, settings);
}

TrailPlace trail_fold_table(const TrailTable& table, TrailPlace from) {
  std::ptrdiff_t at = from.at;
  for (std::ptrdiff_t i = from.series; i < table.count; ++i, at = 0) {
    if (at >= table.n) continue;
    double* row = table.trails + table.rows[i] * kTrailSize;
    const std::ptrdiff_t stop =
        fold_strided(table.values + table.columns[i], table.width, table.steps, at, table.n, row,
                     table.settings + table.which[i] * kSettings);
    if (row[kReason] != kNothing) return {i, stop};
  }
  return {table.count, 0};
}

}  // namespace mlsd
