// Running a fold over many series at once: strides, tiles, threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlsd {

// Value (t, s) lies at data + t * step_stride + s * series_stride, strides in bytes. As an output,
// `data` may be null: not wanted.
struct SeriesView {
  char *data;
  std::ptrdiff_t step_stride, series_stride;
};

constexpr int kMaxOutputs = 6;

struct SeriesTask {
  std::size_t steps, series;
  SeriesView input;
  const std::int64_t *step_of;  // [steps], for all series; null: none
  SeriesView outputs[kMaxOutputs];
  int output_count;
  std::size_t least_chunk;  // values that a call should get where they must be gathered
  // Folds n values of one series; must not throw. out[i] is null where it is not wanted.
  void (*fold)(void *context, std::size_t series, const double *x, const std::int64_t *steps,
               std::size_t n, double *const *out);
  void *context;
};

// Series are independent: tiles of neighbours go to several threads, and within a tile the values
// are gathered so that each cache line is read once. False where memory ran out.
bool run_series(const SeriesTask &task) noexcept;

// Sen's slope (Sen, JASA 63, 1968): median of the slopes of all pairs with different x, intercept
// through the medians, and the interval of slopes whose rank is `z` standard errors of Kendall's
// statistic (with ties) away. NaN where no two x differ. n * (n - 1) / 2 doubles of memory.
struct SenSlope {
  double slope, intercept, low, high;
};
SenSlope theil_sen(const double *x, const double *y, std::size_t n, double z);

}  // namespace mlsd
