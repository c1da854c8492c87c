#include "mlsd/tensor_stats.hpp"

#include <atomic>
#include <cmath>

#include "mlsd/targets.hpp"
#include "mlsd/threads.hpp"

namespace mlsd {
namespace {

const char *at(const ArrayRef &array, std::size_t element) noexcept {
  return static_cast<const char *>(array.data) + element * item_size(array.dtype);
}

std::size_t blocks_of(std::size_t n) noexcept { return (n + kBlock - 1) / kBlock; }

std::size_t block_length(std::size_t n, std::size_t block) noexcept {
  const std::size_t rest = n - block * kBlock;
  return rest < kBlock ? rest : kBlock;
}

// Blocks of all arrays in one row, so that threads share them evenly whatever the sizes.
struct Plan {
  std::vector<std::size_t> first;  // of each array, and one past the last
  std::size_t bytes = 0;

  Plan() = default;
  Plan(const ArrayRef *arrays, std::size_t count) { lay(arrays, count); }
  void lay(const ArrayRef *arrays, std::size_t count) {
    first.assign(count + 1, 0);
    bytes = 0;
    for (std::size_t i = 0; i < count; ++i) {
      first[i + 1] = first[i] + blocks_of(arrays[i].n);
      bytes += arrays[i].n * item_size(arrays[i].dtype);
    }
  }
  std::size_t blocks() const noexcept { return first.back(); }
  // The array that a block belongs to.
  std::size_t owner(std::size_t block) const noexcept {
    std::size_t low = 0, high = first.size() - 1;
    while (high - low > 1) {
      const std::size_t middle = (low + high) / 2;
      (first[middle] <= block ? low : high) = middle;
    }
    return low;
  }
};

// A few tasks per thread: fewer are uneven, more cost a visit to the queue each.
template <typename F>
void over_blocks(const Plan &plan, F work) {
  const std::size_t blocks = plan.blocks();
  auto body = [&](std::size_t block) { work(block); };
  parallel_for(blocks, plan.bytes, body);
}

// Combines in place, neighbours first: the same tree for any number of threads.
template <typename Value, typename Combine>
Value tree(Value *values, std::size_t count, Combine combine_two) {
  for (std::size_t width = 1; width < count; width *= 2)
    for (std::size_t i = 0; i + width < count; i += 2 * width)
      values[i] = combine_two(values[i], values[i + width]);
  return count == 0 ? Value{} : values[0];
}

// The same tree over sums of one and the same scale that are no more than a double holds together,
// closed up level by level; changes `values`.
double plain_tree(ScaledSquares *values, std::size_t count) {
  for (; count > 1; count = (count + 1) / 2) {
    for (std::size_t i = 0; i < count / 2; ++i)
      values[i].sum = values[2 * i].sum + values[2 * i + 1].sum;
    if (count % 2 != 0) values[count / 2].sum = values[count - 1].sum;
  }
  return count == 0 ? 0.0 : values[0].sum;
}

std::uint64_t finite_of(const StatsNode &node) noexcept {
  return node.elements - node.stats.nan - node.stats.posinf - node.stats.neginf;
}

void push(std::vector<StatsNode> *nodes, StatsNode node) {
  // A left child waits for its right one; both are whole, but for the last of the tensor.
  while (!nodes->empty() && nodes->back().level == node.level && (node.index & 1) == 1 &&
         nodes->back().index + 1 == node.index) {
    const StatsNode left = nodes->back();
    nodes->pop_back();
    node.stats = combine(left.stats, finite_of(left), node.stats, finite_of(node));
    node.elements += left.elements;
    node.index /= 2;
    ++node.level;
  }
  nodes->push_back(node);
}

// a + b, on a larger scale where two that are finite are too large together.
ScaledSquares added(double scale, double a, double b) noexcept {
  const double sum = a + b;
  if (std::isinf(sum) && std::isfinite(a) && std::isfinite(b))
    return {scale * 0x1p64, a * 0x1p-128 + b * 0x1p-128};
  return {scale, sum};
}

}  // namespace

ScaledSquares combine(ScaledSquares a, ScaledSquares b) noexcept {
  if (a.sum == 0.0) return b;
  if (b.sum == 0.0) return a;
  if (a.scale == b.scale) return added(a.scale, a.sum, b.sum);
  // Onto the larger scale: both are powers of two, so this is exact or harmlessly small.
  if (a.scale < b.scale) return combine(b, a);
  const double ratio = b.scale / a.scale;
  return added(a.scale, a.sum, b.sum * ratio * ratio);
}

double root(ScaledSquares squares) noexcept { return squares.scale * std::sqrt(squares.sum); }

BlockStats combine(const BlockStats &a, std::uint64_t a_finite, const BlockStats &b,
                   std::uint64_t b_finite) noexcept {
  BlockStats out = a;
  out.nan += b.nan;
  out.posinf += b.posinf;
  out.neginf += b.neginf;
  out.zero += b.zero;
  out.subnormal += b.subnormal;
  if (b_finite == 0) return out;
  if (a_finite == 0) {
    out.min = b.min;
    out.max = b.max;
    out.abs_sum = b.abs_sum;
    out.mean = b.mean;
    out.squares = b.squares;
    out.deviations = b.deviations;
    return out;
  }
  out.min = a.min < b.min ? a.min : b.min;
  out.max = a.max > b.max ? a.max : b.max;
  out.abs_sum = a.abs_sum + b.abs_sum;
  out.squares = combine(a.squares, b.squares);
  // Chan, Golub and LeVeque (1979).
  const double na = static_cast<double>(a_finite), nb = static_cast<double>(b_finite);
  const double share = nb / (na + nb);
  const double delta = b.mean - a.mean;
  const double half = b.mean / 2 - a.mean / 2;  // delta itself may overflow
  out.mean = std::isfinite(delta) ? a.mean + delta * share : 2 * (a.mean / 2 + half * share);
  int exponent = 0;
  if (half != 0) std::frexp(half, &exponent);
  const double scale = std::ldexp(1.0, exponent < -1000 ? -1000 : exponent);
  const double unit = half / scale;
  const ScaledSquares between = {2 * scale, unit * unit * na * share};
  out.deviations = combine(combine(a.deviations, b.deviations), between);
  return out;
}

namespace {

// Kept by each calling thread: from the second call on nothing is allocated.
struct Scratch {
  Plan plan;
  std::vector<BlockStats> stats;
  std::vector<std::uint64_t> digests;
  std::vector<ScaledSquares> sums;
  StatsRange range;
};
thread_local Scratch scratch;

StatsNode node_of(const BlockStats &stats, std::size_t elements, std::uint64_t index) {
  StatsNode node;
  node.stats = stats;
  node.elements = elements;
  node.index = index;
  return node;
}

}  // namespace

void each_stats(const ArrayRef *arrays, std::size_t count, std::uint64_t start, bool with_digest,
                void (*each)(void *, std::size_t, const StatsRange &), void *context) {
  const ArrayKernels &kernels = *active_target().arrays;
  Scratch &s = scratch;
  s.plan.lay(arrays, count);
  s.stats.resize(s.plan.blocks());
  s.digests.resize(s.plan.blocks());
  // Workers see the caller's scratch, not their own.
  over_blocks(s.plan,
              [&, &plan = s.plan, &stats = s.stats, &digests = s.digests](std::size_t block) {
                const std::size_t which = plan.owner(block), own = block - plan.first[which];
                const ArrayRef &array = arrays[which];
                const std::size_t n = block_length(array.n, own), item = item_size(array.dtype);
                const char *data = at(array, own * kBlock);
                kernels.block_stats(data, n, array.dtype, &stats[block]);
                digests[block] =
                    with_digest ? kernels.digest(data, n * item, (start + own * kBlock) * item) : 0;
              });
  for (std::size_t i = 0; i < count; ++i) {
    StatsRange &range = s.range;
    range.start = start;
    range.elements = arrays[i].n;
    range.nodes.clear();
    range.digest = 0;
    for (std::size_t block = s.plan.first[i]; block < s.plan.first[i + 1]; ++block) {
      const std::size_t own = block - s.plan.first[i];
      push(&range.nodes,
           node_of(s.stats[block], block_length(arrays[i].n, own), start / kBlock + own));
      range.digest += s.digests[block];
    }
    each(context, i, range);
  }
}

void stats_of(const ArrayRef &array, std::uint64_t start, bool with_digest, StatsRange *out) {
  if (array.n == 0 || array.n > kBlock) {
    each_stats(
        &array, 1, start, with_digest,
        [](void *to, std::size_t, const StatsRange &range) {
          *static_cast<StatsRange *>(to) = range;
        },
        out);
    return;
  }
  const ArrayKernels &kernels = *active_target().arrays;
  const std::size_t item = item_size(array.dtype);
  *out = StatsRange{};
  out->start = start;
  out->elements = array.n;
  out->nodes.emplace_back();
  out->nodes[0].elements = array.n;
  out->nodes[0].index = start / kBlock;
  kernels.block_stats(array.data, array.n, array.dtype, &out->nodes[0].stats);
  if (with_digest) out->digest = kernels.digest(array.data, array.n * item, start * item);
}

BlockStats total(const StatsRange &range) noexcept {
  BlockStats out;
  out.min = HUGE_VAL;
  out.max = -HUGE_VAL;
  std::uint64_t finite = 0;
  // From the right: the small nodes at the end first, the same whichever way they came together.
  for (std::size_t i = range.nodes.size(); i-- > 0;) {
    const StatsNode &node = range.nodes[i];
    out = combine(node.stats, finite_of(node), out, finite);
    finite += finite_of(node);
  }
  return out;
}

bool append(StatsRange *left, const StatsRange &right) {
  if (left->start + left->elements != right.start || left->elements % kBlock != 0) return false;
  for (const StatsNode &node : right.nodes) push(&left->nodes, node);
  left->elements += right.elements;
  left->digest += right.digest;
  return true;
}

double global_norm(const ArrayRef *arrays, std::size_t count) {
  const ArrayKernels &kernels = *active_target().arrays;
  if (count == 1 && arrays[0].n <= kBlock)
    return root(kernels.sum_squares(arrays[0].data, arrays[0].n, arrays[0].dtype));
  // Lists of small arrays, as the gradients of biases and norms: no plan, nothing on the heap.
  constexpr std::size_t kFew = 256;
  if (count <= kFew) {
    bool small = true;
    for (std::size_t i = 0; i < count && small; ++i) small = arrays[i].n <= 4096;
    if (small) {
      ScaledSquares few[kFew];
      std::size_t blocks = 0;  // an empty array has none
      bool plain = true;
      for (std::size_t i = 0; i < count; ++i) {
        if (arrays[i].n == 0) continue;
        const ScaledSquares one = kernels.sum_squares(arrays[i].data, arrays[i].n, arrays[i].dtype);
        // Beyond 2^1015, 256 sums may be more than a double holds.
        plain &= one.scale == 1.0 && !(one.sum > 0x1p1015);
        few[blocks++] = one;
      }
      if (plain) return root({1.0, plain_tree(few, blocks)});
      return root(
          tree(few, blocks, [](ScaledSquares a, ScaledSquares b) { return combine(a, b); }));
    }
  }
  const Plan plan(arrays, count);
  std::vector<ScaledSquares> sums(plan.blocks());
  over_blocks(plan, [&](std::size_t block) {
    const std::size_t which = plan.owner(block), own = block - plan.first[which];
    const ArrayRef &array = arrays[which];
    sums[block] =
        kernels.sum_squares(at(array, own * kBlock), block_length(array.n, own), array.dtype);
  });
  return root(tree(sums.data(), sums.size(),
                   [](ScaledSquares a, ScaledSquares b) { return combine(a, b); }));
}

void each_norm(const ArrayRef *arrays, std::size_t count, double *out) {
  const ArrayKernels &kernels = *active_target().arrays;
  std::size_t bytes = 0;
  bool short_ones = true;
  for (std::size_t i = 0; i < count; ++i) {
    bytes += arrays[i].n * item_size(arrays[i].dtype);
    short_ones &= arrays[i].n <= kBlock;
  }
  if (short_ones) {
    auto one = [&](std::size_t i) {
      const ArrayRef &array = arrays[i];
      out[i] = array.n == 0 ? 0.0 : root(kernels.sum_squares(array.data, array.n, array.dtype));
    };
    parallel_for(count, bytes, one);
    return;
  }
  Scratch &s = scratch;
  s.plan.lay(arrays, count);
  s.sums.resize(s.plan.blocks());
  // Workers see the caller's scratch, not their own.
  over_blocks(s.plan, [&, &plan = s.plan, &sums = s.sums](std::size_t block) {
    const std::size_t which = plan.owner(block), own = block - plan.first[which];
    const ArrayRef &array = arrays[which];
    sums[block] =
        kernels.sum_squares(at(array, own * kBlock), block_length(array.n, own), array.dtype);
  });
  for (std::size_t i = 0; i < count; ++i)
    out[i] = root(tree(s.sums.data() + s.plan.first[i], s.plan.first[i + 1] - s.plan.first[i],
                       [](ScaledSquares a, ScaledSquares b) { return combine(a, b); }));
}

double l1_norm(ArrayRef array) {
  const ArrayKernels &kernels = *active_target().arrays;
  const Plan plan(&array, 1);
  std::vector<double> sums(plan.blocks());
  over_blocks(plan, [&](std::size_t block) {
    sums[block] =
        kernels.sum_abs(at(array, block * kBlock), block_length(array.n, block), array.dtype);
  });
  return tree(sums.data(), sums.size(), [](double a, double b) { return a + b; });
}

double max_norm(ArrayRef array) {
  const ArrayKernels &kernels = *active_target().arrays;
  const Plan plan(&array, 1);
  std::vector<double> largest(plan.blocks());
  over_blocks(plan, [&](std::size_t block) {
    largest[block] =
        kernels.max_abs(at(array, block * kBlock), block_length(array.n, block), array.dtype);
  });
  return tree(largest.data(), largest.size(),
              [](double a, double b) { return a >= b || a != a ? a : b; });
}

bool has_nonfinite(ArrayRef array) {
  const ArrayKernels &kernels = *active_target().arrays;
  if (array.n <= kBlock) return kernels.has_nonfinite(array.data, array.n, array.dtype);
  std::atomic<bool> found{false};
  const Plan plan(&array, 1);
  over_blocks(plan, [&](std::size_t block) {
    if (found.load(std::memory_order_relaxed)) return;
    if (kernels.has_nonfinite(at(array, block * kBlock), block_length(array.n, block), array.dtype))
      found.store(true, std::memory_order_relaxed);
  });
  return found.load();
}

NonfiniteCounts count_nonfinite(ArrayRef array) {
  const ArrayKernels &kernels = *active_target().arrays;
  const Plan plan(&array, 1);
  std::vector<NonfiniteCounts> counts(plan.blocks());
  over_blocks(plan, [&](std::size_t block) {
    counts[block] = kernels.count_nonfinite(at(array, block * kBlock), block_length(array.n, block),
                                            array.dtype);
  });
  NonfiniteCounts out;
  for (const NonfiniteCounts &part : counts) {
    out.nan += part.nan;
    out.posinf += part.posinf;
    out.neginf += part.neginf;
  }
  return out;
}

std::size_t first_nonfinite(ArrayRef array) {
  const ArrayKernels &kernels = *active_target().arrays;
  const Plan plan(&array, 1);
  std::atomic<std::size_t> first{array.n};
  over_blocks(plan, [&](std::size_t block) {
    const std::size_t begin = block * kBlock;
    if (begin >= first.load(std::memory_order_relaxed)) return;
    const std::size_t n = block_length(array.n, block);
    const std::size_t found = kernels.first_nonfinite(at(array, begin), n, array.dtype);
    if (found == n) return;
    std::size_t best = first.load(std::memory_order_relaxed);
    while (begin + found < best && !first.compare_exchange_weak(best, begin + found)) {
    }
  });
  return first.load();
}

std::uint64_t digest(const void *data, std::size_t bytes, std::uint64_t start) {
  const ArrayKernels &kernels = *active_target().arrays;
  const ArrayRef array{data, bytes, Dtype::u8};
  const Plan plan(&array, 1);
  std::vector<std::uint64_t> parts(plan.blocks());
  over_blocks(plan, [&](std::size_t block) {
    parts[block] = kernels.digest(at(array, block * kBlock), block_length(bytes, block),
                                  start + block * kBlock);
  });
  std::uint64_t sum = 0;
  for (const std::uint64_t part : parts) sum += part;
  return sum;
}

void exponent_counts(ArrayRef array, std::uint64_t *counts) {
  const ArrayKernels &kernels = *active_target().arrays;
  const Plan plan(&array, 1);
  // A table per stretch of blocks, not per block: many blocks would need many tables.
  constexpr std::size_t kStretches = 16;
  const std::size_t stretches = plan.blocks() < kStretches ? plan.blocks() : kStretches;
  std::vector<std::uint64_t> tables(stretches * kExponents, 0);
  auto body = [&](std::size_t stretch) {
    for (std::size_t block = stretch; block < plan.blocks(); block += stretches)
      kernels.exponents(at(array, block * kBlock), block_length(array.n, block), array.dtype,
                        &tables[stretch * kExponents]);
  };
  parallel_for(stretches, plan.bytes, body);
  for (std::size_t i = 0; i < tables.size(); ++i) counts[i % kExponents] += tables[i];
}

std::uint64_t count_below(ArrayRef array, double bound, bool inclusive) {
  const ArrayKernels &kernels = *active_target().arrays;
  const Plan plan(&array, 1);
  std::atomic<std::uint64_t> count{0};
  over_blocks(plan, [&](std::size_t block) {
    count.fetch_add(kernels.below(at(array, block * kBlock), block_length(array.n, block),
                                  array.dtype, bound, inclusive),
                    std::memory_order_relaxed);
  });
  return count.load();
}

std::uint64_t read_all(const void *data, std::size_t bytes) {
  const ArrayKernels &kernels = *active_target().arrays;
  if (bytes <= kBlock) return kernels.read(data, bytes);
  // Long stretches, since every new one costs the prefetcher a start.
  const ArrayRef array{data, bytes / 8, Dtype::u64};
  const Plan plan(&array, 1);
  std::atomic<std::uint64_t> all{kernels.read(at(array, array.n), bytes % 8)};
  over_blocks(plan, [&](std::size_t block) {
    all.fetch_or(kernels.read(at(array, block * kBlock), block_length(array.n, block) * 8),
                 std::memory_order_relaxed);
  });
  return all.load();
}

}  // namespace mlsd
