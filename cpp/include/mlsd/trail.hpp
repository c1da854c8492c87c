// What a detector remembers of one series: a bounded trail of its whole history.
//
// A trail is one row of doubles, so that it can live in any float64 array and be
// saved as it is. It holds running extremes, a robust running level and scale,
// the excursion above that level that is going on, the last values as they were,
// and a table of medians that covers the history evenly (the remedian of
// Rousseeuw and Bassett, JASA 85, 1990, in base 3: when the table is full, every
// three neighbours become their median). Everything depends on the values and
// their order alone, never on how they were cut into chunks.
//
// Accumulator: float64. Overflow: none, the level moves by bounded steps; values
// of magnitude above 1e300 are clamped to it. NaN and Inf: counted, never folded
// into the rest. Memory: kTrailSize doubles; time: constant per value.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlsd {

constexpr int kTrailRing = 64;     // last values kept as they were
constexpr int kTrailTable = 192;   // entries of the table; a third of it after a merge
constexpr int kTrailDepth = 20;    // levels of medians of three: up to 3^20 values an entry
constexpr int kTrailEarly = 8;     // first values kept as they were
constexpr int kTrailPatience = 3;  // values in a row below the middle that end an excursion

// Offsets into a row. The Python face mirrors them by name.
enum TrailField : int {
  kCount,         // finite values
  kNonFinite,     // NaN and Inf
  kFirstBadStep,  // step of the first of them
  kFirst,
  kFirstStep,
  kLast,
  kLastStep,
  kMin,
  kMinStep,
  kMax,
  kMaxStep,
  kLevel,  // robust running level
  kScale,  // mean absolute deviation from it
  kFast,   // running mean over about 8 values
  kBest,   // lowest level so far
  kBestStep,
  kWorst,       // highest level so far
  kReturns,     // excursions that were triggered and came back
  kNextCheck,   // count at which the next check is due
  kReason,      // why the fold stopped: TrailReason
  kWatch,       // 1: stop at every check, whatever the values (set by the caller)
  kActive,      // 1 while an excursion goes on
  kStartStep,   // its first step: where values left the calm band, at most 16 back
  kStartIndex,  // how many finite values came before it
  kBefore,      // the step before it
  kBaseLevel,   // level and scale when it began
  kBaseScale,
  kBound,   // the value that was exceeded
  kLength,  // values since it began
  kCalm,    // values in a row below the middle of level and bound
  kPeak,
  kPeakStep,
  kNextTrigger,  // length at which the excursion is due for judgement
  kZeros,        // zeros in a row at the end
  kZeroStep,     // step of the first of them
  kEntries,      // used entries of the table
  kExponent,     // an entry is a median of 3^exponent values
  kPendingStep,  // step of the first value of the entry that is being filled
  kPending,      // values in it
  kHeader,       // end of the single fields
  kEarlyValues = kHeader,
  kRingValues = kEarlyValues + kTrailEarly,
  kRingSteps = kRingValues + kTrailRing,
  kTableValues = kRingSteps + kTrailRing,
  kTableSteps = kTableValues + kTrailTable,
  kBufferCounts = kTableSteps + kTrailTable,
  kBuffers = kBufferCounts + kTrailDepth,
  kTrailSize = kBuffers + 3 * kTrailDepth
};

enum TrailReason : int {
  kNothing = 0,
  kCheck = 1,     // a check is due and the values call for one
  kTrigger = 2,   // an excursion lasts: 16, 32, 64, ... values; 4 later for each that came back
  kReturned = 3,  // an excursion that was triggered is over
  kBroke = 4      // the first non-finite value
};

// Settings, an array of doubles in this order.
enum TrailSetting : int {
  kLogarithm,  // 1: fold log|x| (at least log 1e-300) instead of x
  kSign,       // +1: excursions go up; -1: down (values are folded negated)
  kSigmas,     // an excursion begins above level + sigmas * scale ...
  kFloor,      // ... but at least floor + relative * |level|
  kRelative,
  kEarlyFactor,  // factor on that minimum while fewer than 8 values are known
  kAlways,       // 1: every check is due, whatever the values
  kRise,         // a check is due where fast - best reaches the greatest of rise,
  kRiseOfGain,   // this part of (first - best)
  kRiseOfBest,   // and this part of |best|
  kSettings
};

// Folds values[at..n) into row until a reason to look comes up; returns the index
// behind the last value folded. steps may be null: the index then counts.
std::ptrdiff_t trail_fold(const double* values, const std::int64_t* steps, std::ptrdiff_t at,
                          std::ptrdiff_t n, double* row, const double* settings);

// Many series that were measured at the same steps, one after the other.
struct TrailTable {
  const double* values;       // [n, width]
  const std::int64_t* steps;  // [n]
  std::ptrdiff_t n, width;
  const std::int64_t* columns;  // [count]: of values
  const std::int64_t* rows;     // [count]: of trails
  const std::int64_t* which;    // [count]: of settings
  std::ptrdiff_t count;
  double* trails;          // [.., kTrailSize]
  const double* settings;  // [.., kSettings]
};

// Folds on from value `at` of series `series` (an index below count) until a reason to look comes
// up; returns the series and the index behind the last value folded, or {count, 0} at the end.
struct TrailPlace {
  std::ptrdiff_t series, at;
};
TrailPlace trail_fold_table(const TrailTable& table, TrailPlace from);

}  // namespace mlsd
