// Folds over series: a statistic of a history, carried from chunk to chunk in a row of doubles.
//
// State     one row of doubles per series, owned by the caller and changed in place. A row of zeros
//           is a fresh state. The first field is the layout's version, 0 while nothing was folded.
// Cuts      every output and every bit of the state depend on the values and their order alone,
//           never on how they were cut into calls.
// NaN rule  NaN and the infinities are skipped: they count as seen and change nothing else.
// Width     double throughout, no fused multiply-add: the same bits on every target.
// Overflow  values beyond +-kLargest are taken as +-kLargest, so that no square overflows.
// Steps     where `steps` is null the number of values seen before stands for the step. Steps are
//           kept as doubles: exact up to 2^53.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlsd {

constexpr double kLargest = 1e140;

// What a fold has to tell between two values: a run of exceedances, or an alarm.
struct FoldEvent {
  std::int64_t series;     // which column of the input
  std::int64_t step;       // when it was decided
  std::int64_t first;      // first step of the run; the onset of a change
  std::int64_t last;       // last step of it
  std::int64_t peak_step;  // where it was largest
  std::int64_t count;      // values in it
  std::int64_t direction;  // +1 up, -1 down
  double statistic;        // largest z, or the CUSUM
  double value;            // the value there, as it was given
};

struct FoldSink {
  void (*emit)(void *context, const FoldEvent &event);
  void *context;
};

// ---- robust window: median and MAD of the last `window` values, taken anew per `batch` ----------

constexpr std::size_t kMaxWindow = 4096;

enum WindowField : int {
  kWindowCount,  // values in the ring
  kWindowPlace,  // where the next one goes
  kWindowFresh,  // values since the median was taken
  kWindowMedian,
  kWindowDeviation,  // median absolute deviation times 1.4826
  kWindowKnown,      // 1 once the two are there
  kWindowHeader
};
// Then the ring.
constexpr std::size_t window_size(std::size_t window) noexcept { return kWindowHeader + window; }

// ---- robust baseline ----------------------------------------------------------------------------

enum BaselineField : int {
  kBaselineVersion,
  kBaselineSeen,
  kBaselineLearnt,    // values that the baseline has learnt from
  kBaselineRejected,  // values in a row that it did not learn from
  kRunActive,
  kRunFirst,
  kRunLast,
  kRunCount,
  kRunCalm,  // values in a row that did not exceed
  kRunPeak,
  kRunPeakStep,
  kRunPeakValue,
  kBaselineHeader
};
constexpr double kBaselineLayout = 1.0;
// Then `batch` rejected values, then the robust window.
constexpr std::size_t baseline_size(std::size_t window, std::size_t batch) noexcept {
  return kBaselineHeader + batch + window_size(window);
}

struct BaselineSettings {
  std::size_t window, batch;  // batch at most window, window at most kMaxWindow
  double warmup;              // values learnt before there is a z
  bool logarithm;             // fold log(x); x <= 0 is skipped as NaN is
  double clip;                // do not learn from |z| above it
  double relearn;             // ... unless so many came in a row
  double floor, relative;     // scale is at least max(floor, relative * |median|)
  double threshold;           // of exceedance; infinite for none
  int side;                   // +1 above, -1 below, 0 both
  double patience;            // calm values that end a run
};

// ---- CUSUM --------------------------------------------------------------------------------------

enum CusumField : int {
  kCusumVersion,
  kCusumSeen,
  kCusumLearnt,  // values since the last restart
  kCusumPrevious,
  kCusumWeight,
  kCusumMean,
  kCusumVariance,    // sum of weighted squares, not yet divided
  kCusumCovariance,  // likewise, at lag one
  kCusumPhi,
  kCusumLimit,  // deviations count at most so much in the moments
  kCusumUp,
  kCusumDown,
  kCusumUpOnset,
  kCusumDownOnset,
  kCusumUpCount,
  kCusumDownCount,
  kCusumHeader
};
constexpr double kCusumLayout = 1.0;
constexpr std::size_t cusum_size(std::size_t window) noexcept {
  return kCusumHeader + window_size(window);
}

struct CusumSettings {
  std::size_t window, batch;
  double warmup;
  double drift;      // k, in sigmas
  double threshold;  // h, in sigmas
  double clip;       // c
  double max_phi;    // 0: no prewhitening
  double floor, relative;
};

// ---- EWMA and running extrema -------------------------------------------------------------------

enum EwmaField : int {
  kEwmaVersion,
  kEwmaSeen,
  kEwmaCount,
  kEwmaWeight,   // sum of weights
  kEwmaWeight2,  // sum of squared weights
  kEwmaMean,
  kEwmaSquares,  // weighted sum of squared deviations
  kEwmaSize
};
constexpr double kEwmaLayout = 1.0;

enum ExtremaField : int {
  kExtremaVersion,
  kExtremaSeen,
  kExtremaCount,
  kExtremaWeight,
  kExtremaSmoothed,
  kExtremaMin,
  kExtremaMinStep,
  kExtremaMax,
  kExtremaMaxStep,
  kExtremaSize
};
constexpr double kExtremaLayout = 1.0;

// ---- block means --------------------------------------------------------------------------------

constexpr std::size_t kBlocks = 64;
enum BlockField : int {
  kBlockCount,
  kBlockMean,
  kBlockM2,
  kBlockMin,
  kBlockMax,
  kBlockFirst,  // step of its first finite value
  kBlockLast,
  kBlockWidth
};
enum BlocksField : int {
  kBlocksVersion,
  kBlocksSeen,
  kBlocksNonfinite,
  kBlocksUsed,      // the last of them may still be filling
  kBlocksPerBlock,  // finite values of a full one
  kBlocksHeader
};
constexpr double kBlocksLayout = 1.0;
constexpr std::size_t kBlocksSize = kBlocksHeader + kBlocks * kBlockWidth;

// ---- replica spread -----------------------------------------------------------------------------

struct ReplicaSpread {
  double median, deviation, low, high;  // over the finite replicas; NaN where there is none
  double z;                             // of the replica that lies farthest from the median
  std::int64_t worst;                   // which that is, the first of equals; -1 for none
  std::int64_t finite;
};

// ---- rolling ------------------------------------------------------------------------------------
//
// Windows are sewn together from a part of the block before and a part of this one, blocks being
// `window` values long from the first value on. Sums run forward through a block from its first
// value and backward from its last one, centred on that value: it belongs to every window that the
// sum goes into, so the centre is never far from the data and nothing is ever subtracted again.

enum RollingStat : unsigned {
  kRollMean = 1,
  kRollStd = 2,
  kRollSlope = 4,
  kRollMin = 8,
  kRollMax = 16,
  kRollMedian = 32,
};
constexpr int kRollingStats = 6;
enum RollingSum : int {  // one array of `window` each, indexed by the place in the block
  kSumFinite,
  kSumValue,
  kSumSquare,
  kSumPlace,  // of the places of finite values
  kSumPlaceSquare,
  kSumPlaceValue,
  kSumMin,
  kSumMax,
  kRollingSums
};
enum RollingField : int {
  kRollingVersion,
  kRollingSeen,
  kRollingPlace,     // values in the block that is being filled
  kRollingPrevious,  // 1 where there is a block before it
  kRollingClean,     // 1 where all values of the block before are finite
  kRollingPrevCentre,
  kRollingCentre,   // of the block that is being filled; meaningless without a finite value
  kRollingRunning,  // kRollingSums running sums of it
  kRollingHeader = kRollingRunning + kRollingSums
};
constexpr double kRollingLayout = 1.0;
// Then the values of the block that is being filled, those of the block before, and the backward
// sums of the block before.
constexpr std::size_t rolling_size(std::size_t window) noexcept {
  return kRollingHeader + window * (2 + kRollingSums);
}

struct RollingSettings {
  std::size_t window;
  std::size_t min_count;  // finite values that a window needs
  unsigned stats;         // of RollingStat
  double ddof;
};

struct FoldKernels {
  // `x` and outputs are contiguous; outputs and `steps` may be null.
  void (*baseline)(const double *x, const std::int64_t *steps, std::size_t n, std::int64_t series,
                   double *row, const BaselineSettings &settings, double *z, const FoldSink *sink);
  void (*cusum)(const double *x, const std::int64_t *steps, std::size_t n, std::int64_t series,
                double *row, const CusumSettings &settings, double *statistic,
                const FoldSink *sink);
  void (*ewma)(const double *x, std::size_t n, double *row, double alpha, double *mean,
               double *variance);
  void (*extrema)(const double *x, const std::int64_t *steps, std::size_t n, double *row,
                  double alpha, double warmup, double *smoothed, double *lowest, double *highest);
  void (*blocks)(const double *x, const std::int64_t *steps, std::size_t n, double *row);
  // scratch holds n doubles.
  ReplicaSpread (*spread)(const double *x, std::size_t n, double *scratch);
  // out[i] is null where statistic 1 << i is not wanted; scratch holds rolling_scratch doubles.
  void (*rolling)(const double *x, std::size_t n, double *row, const RollingSettings &settings,
                  double *const *out, double *scratch);
};

// Whether a row can be folded on: a layout of this version whose counts lie in their ranges. Rows
// come back from files; damaged numbers may give wrong answers, never a wrong access.
bool baseline_row_valid(const double *row, const BaselineSettings &settings) noexcept;
bool cusum_row_valid(const double *row, const CusumSettings &settings) noexcept;
bool ewma_row_valid(const double *row) noexcept;
bool extrema_row_valid(const double *row) noexcept;
bool blocks_row_valid(const double *row) noexcept;
bool rolling_row_valid(const double *row, const RollingSettings &settings) noexcept;

constexpr std::size_t rolling_scratch(std::size_t window) noexcept {
  return window * (kRollingSums + 16) + 64;
}

// FoldKernels::rolling over a long history of one series, in parts on several threads: the same
// outputs and the same row, bit for bit.
void fold_rolling_parts(const double *x, std::size_t n, double *row,
                        const RollingSettings &settings, double *const *out,
                        double *scratch) noexcept;

}  // namespace mlsd
