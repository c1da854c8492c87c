#include "mlsd/series.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "mlsd/threads.hpp"

namespace mlsd {
namespace {

constexpr std::size_t kTile = 8;  // doubles of a cache line
constexpr std::size_t kChunk = 512;
constexpr std::ptrdiff_t kDense = sizeof(double);

bool dense(const SeriesTask &task) {
  if (task.input.step_stride != kDense && task.steps > 1) return false;
  for (int i = 0; i < task.output_count; ++i)
    if (task.outputs[i].data != nullptr && task.outputs[i].step_stride != kDense && task.steps > 1)
      return false;
  return true;
}

void fold_dense(const SeriesTask &task, std::size_t series) {
  const auto at = [&](const SeriesView &view) {
    char *data = view.data;
    if (data != nullptr) data += static_cast<std::ptrdiff_t>(series) * view.series_stride;
    return reinterpret_cast<double *>(data);
  };
  double *out[kMaxOutputs] = {};
  for (int i = 0; i < task.output_count; ++i) out[i] = at(task.outputs[i]);
  task.fold(task.context, series, at(task.input), task.step_of, task.steps, out);
}

// Copies values [t, t + n) of series [first, first + count) to or from a dense buffer, one row of
// `chunk` doubles per series.
template <bool Gather>
void move(const SeriesView &view, std::size_t t, std::size_t n, std::size_t first,
          std::size_t count, std::size_t chunk, double *buffer) {
  char *row = view.data + static_cast<std::ptrdiff_t>(t) * view.step_stride +
              static_cast<std::ptrdiff_t>(first) * view.series_stride;
  for (std::size_t i = 0; i < n; ++i, row += view.step_stride) {
    char *at = row;
    for (std::size_t s = 0; s < count; ++s, at += view.series_stride) {
      if (Gather)
        std::memcpy(buffer + s * chunk + i, at, sizeof(double));
      else
        std::memcpy(at, buffer + s * chunk + i, sizeof(double));
    }
  }
}

void fold_tile(const SeriesTask &task, std::size_t first, std::size_t count, std::size_t chunk,
               double *buffer) {
  const std::size_t area = chunk * kTile;
  for (std::size_t t = 0; t < task.steps; t += chunk) {
    const std::size_t n = std::min(chunk, task.steps - t);
    move<true>(task.input, t, n, first, count, chunk, buffer);
    const std::int64_t *steps = task.step_of == nullptr ? nullptr : task.step_of + t;
    for (std::size_t s = 0; s < count; ++s) {
      double *out[kMaxOutputs] = {};
      for (int i = 0; i < task.output_count; ++i)
        if (task.outputs[i].data != nullptr)
          out[i] = buffer + area * static_cast<std::size_t>(1 + i) + s * chunk;
      task.fold(task.context, first + s, buffer + s * chunk, steps, n, out);
    }
    for (int i = 0; i < task.output_count; ++i)
      if (task.outputs[i].data != nullptr)
        move<false>(task.outputs[i], t, n, first, count, chunk,
                    buffer + area * static_cast<std::size_t>(1 + i));
  }
}

}  // namespace

bool run_series(const SeriesTask &task) noexcept {
  if (task.steps == 0 || task.series == 0) return true;
  const std::size_t bytes = task.steps * task.series * sizeof(double);
  if (dense(task)) {
    auto one = [&](std::size_t series) { fold_dense(task, series); };
    parallel_for(task.series, bytes, one);
    return true;
  }
  const std::size_t chunk = std::min(std::max(kChunk, task.least_chunk), task.steps);
  const std::size_t doubles = chunk * kTile * static_cast<std::size_t>(1 + task.output_count);
  constexpr std::size_t kSmall = 1024;  // a live step must not allocate
  std::atomic<bool> failed{false};
  auto tile = [&](std::size_t index) {
    const std::size_t first = index * kTile;
    const std::size_t count = std::min(kTile, task.series - first);
    if (doubles <= kSmall) {
      double buffer[kSmall];
      fold_tile(task, first, count, chunk, buffer);
      return;
    }
    const std::unique_ptr<double[]> buffer(new (std::nothrow) double[doubles]);
    if (buffer == nullptr)
      failed.store(true, std::memory_order_relaxed);
    else
      fold_tile(task, first, count, chunk, buffer.get());
  };
  parallel_for((task.series + kTile - 1) / kTile, bytes, tile);
  return !failed.load();
}

namespace {

double median_in_place(std::vector<double> &v) {
  const std::size_t n = v.size(), k = n / 2;
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(k), v.end());
  if (n % 2 != 0) return v[k];
  const double below = *std::max_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(k));
  return 0.5 * (below + v[k]);
}

// Sum over groups of equal values of t (t - 1) (2 t + 5).
double tie_correction(std::vector<double> sorted) {
  std::sort(sorted.begin(), sorted.end());
  double sum = 0;
  for (std::size_t i = 0; i < sorted.size();) {
    std::size_t j = i;
    while (j < sorted.size() && sorted[j] == sorted[i]) ++j;
    const double t = static_cast<double>(j - i);
    sum += t * (t - 1) * (2 * t + 5);
    i = j;
  }
  return sum;
}

}  // namespace

SenSlope theil_sen(const double *x, const double *y, std::size_t n, double z) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> slopes;
  slopes.reserve(n * (n - (n > 0)) / 2);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = i + 1; j < n; ++j)
      if (x[i] != x[j]) slopes.push_back((y[j] - y[i]) / (x[j] - x[i]));
  if (slopes.empty()) return {nan, nan, nan, nan};
  std::vector<double> xs(x, x + n), ys(y, y + n);
  const double count = static_cast<double>(n), pairs = static_cast<double>(slopes.size());
  const double variance =
      (count * (count - 1) * (2 * count + 5) - tie_correction(xs) - tie_correction(ys)) / 18.0;
  SenSlope out = {};
  out.slope = median_in_place(slopes);
  out.intercept = median_in_place(ys) - out.slope * median_in_place(xs);
  // The ranks of the ends, halves to even, as for the same interval elsewhere.
  const double sigma = std::sqrt(variance > 0 ? variance : 0.0);
  const double high = std::min(std::nearbyint((pairs + z * sigma) / 2.0), pairs - 1);
  const double low = std::max(std::nearbyint((pairs - z * sigma) / 2.0) - 1, 0.0);
  const auto ranked = [&](double rank) {
    const auto at = slopes.begin() + static_cast<std::ptrdiff_t>(rank);
    std::nth_element(slopes.begin(), at, slopes.end());
    return *at;
  };
  out.low = ranked(low);
  out.high = ranked(high);
  return out;
}

}  // namespace mlsd
