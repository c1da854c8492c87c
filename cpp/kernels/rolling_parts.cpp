#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "mlsd/folds.hpp"
#include "mlsd/targets.hpp"
#include "mlsd/threads.hpp"

namespace mlsd {

// What a window is made of reaches back to the beginning of the block before, and no further: a
// part that begins with a block starts from a fresh row that has seen one block.
void fold_rolling_parts(const double *x, std::size_t n, double *row,
                        const RollingSettings &settings, double *const *out,
                        double *scratch) noexcept {
  const auto kernel = active_target().folds->rolling;
  const std::size_t w = settings.window, width = rolling_size(w), work = rolling_scratch(w);
  // Parts in which the block seen twice is little, and a few of them per thread.
  const std::size_t least = std::max<std::size_t>(32 * w, std::size_t{1} << 15);
  const int threads = num_threads();
  const std::size_t wanted = threads == 1 ? 1 : 4 * static_cast<std::size_t>(threads);
  const std::size_t parts = std::min(wanted, n / least);
  std::unique_ptr<double[]> memory;
  // All of it first: where memory is short, the history is folded as one.
  if (parts > 1) memory.reset(new (std::nothrow) double[(parts - 1) * (width + work)]);
  if (memory == nullptr) return kernel(x, n, row, settings, out, scratch);

  const double seen = row[kRollingSeen];
  const std::size_t place = static_cast<std::size_t>(row[kRollingPlace]);
  const std::size_t first = place == 0 ? 0 : w - place;  // where a block begins
  const std::size_t blocks = (n - first) / w;
  const auto begin_of = [&](std::size_t i) {
    if (i == 0 || i == parts) return i == 0 ? 0 : n;
    return first + w * (blocks * i / parts);
  };
  const auto row_of = [&](std::size_t i) { return memory.get() + (i - 1) * (width + work); };
  auto part = [&](std::size_t i) {
    const std::size_t begin = begin_of(i), count = begin_of(i + 1) - begin;
    double *to[kRollingStats];
    for (int s = 0; s < kRollingStats; ++s) to[s] = out[s] == nullptr ? nullptr : out[s] + begin;
    if (i == 0) return kernel(x, count, row, settings, to, scratch);
    double *const own = row_of(i), *const room = own + width;
    double *const nowhere[kRollingStats] = {};
    std::fill(own, own + width, 0.0);
    kernel(x + begin - w, w, own, settings, nowhere, room);
    kernel(x + begin, count, own, settings, to, room);
  };
  parallel_for(parts, n * sizeof(double), part);
  std::memcpy(row, row_of(parts - 1), width * sizeof(double));
  row[kRollingSeen] = seen + static_cast<double>(n);
}

}  // namespace mlsd
