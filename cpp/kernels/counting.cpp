#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <new>

#include "mlsd/distributions.hpp"
#include "mlsd/targets.hpp"
#include "mlsd/threads.hpp"

namespace mlsd {
namespace {

// How far a computed place may be from the true one, for every x: where the cuts lie, plus the
// roundings of a difference, a product and a sum of that size, half a unit each.
template <typename T>
double slack_of(const double *cuts, std::size_t count, T low, T scale) {
  double worst = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double place = (cuts[i] - static_cast<double>(low)) * static_cast<double>(scale);
    worst = std::max(worst, std::fabs(place - static_cast<double>(i)));
  }
  const double unit = static_cast<double>(std::numeric_limits<T>::epsilon());
  const double slack = worst + 2 * unit * static_cast<double>(count + 1);
  return slack < 0.25 ? slack : 1.0;  // also where it is NaN
}

float rounded_up(double x) {
  const float nearest = static_cast<float>(x);
  const float infinity = std::numeric_limits<float>::infinity();
  return static_cast<double>(nearest) < x ? std::nextafter(nearest, infinity) : nearest;
}

}  // namespace

Cuts make_cuts(const double *cuts, std::size_t count, float *single) noexcept {
  Cuts out = {};
  out.exact = cuts;
  out.single = single;
  out.count = count;
  for (std::size_t i = 0; i < count; ++i) single[i] = rounded_up(cuts[i]);
  out.slack = 1.0;
  out.slack_single = 1.0f;
  if (count < 2) return out;
  out.low = cuts[0];
  out.scale = static_cast<double>(count - 1) / (cuts[count - 1] - cuts[0]);
  out.low_single = static_cast<float>(out.low);
  out.scale_single = static_cast<float>(out.scale);
  out.slack = slack_of<double>(cuts, count, out.low, out.scale);
  out.slack_single =
      static_cast<float>(slack_of<float>(cuts, count, out.low_single, out.scale_single));
  return out;
}

bool count_bins(ArrayRef array, const Cuts &cuts, std::uint64_t *counts) noexcept {
  const auto kernel = active_target().distributions->count;
  const std::size_t width = bin_counts_size(cuts.count), bytes = array.n * item_size(array.dtype);
  // Parts that are worth a table of counts each; which parts there are does not show in the sums.
  const std::size_t least = std::max<std::size_t>(std::size_t{1} << 18, 8 * cuts.count);
  const auto wanted = static_cast<std::size_t>(num_threads()) * 4;
  const std::size_t parts = std::max<std::size_t>(1, std::min(wanted, array.n / least));
  const std::size_t scratch_size = bin_scratch(cuts.count) + width;
  std::atomic<bool> failed{false};
  const std::unique_ptr<std::uint64_t[]> all(new (std::nothrow) std::uint64_t[parts * width]());
  if (all == nullptr) return false;
  auto part = [&](std::size_t i) {
    const std::unique_ptr<double[]> scratch(new (std::nothrow) double[scratch_size]);
    if (scratch == nullptr) {
      failed.store(true);
      return;
    }
    const std::size_t first = array.n / parts * i;
    const std::size_t last = i + 1 == parts ? array.n : array.n / parts * (i + 1);
    kernel(static_cast<const char *>(array.data) + first * item_size(array.dtype), last - first,
           array.dtype, cuts, all.get() + i * width, scratch.get());
  };
  parallel_for(parts, bytes, part);
  if (failed.load()) return false;
  for (std::size_t i = 0; i < parts; ++i)
    for (std::size_t b = 0; b < width; ++b) counts[b] += all[i * width + b];
  return true;
}

}  // namespace mlsd
