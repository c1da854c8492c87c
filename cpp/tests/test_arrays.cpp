// Every target, dtype, awkward length and offset against plain loops, with exact-size allocations
// so that a sanitizer sees any read outside the array.
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "mlsd/arrays.hpp"
#include "mlsd/targets.hpp"
#include "mlsd/tensor_stats.hpp"

namespace {

using mlsd::Dtype;

std::mt19937_64 random_bits(7);

const Dtype kEightBits[] = {Dtype::f8_e4m3fn, Dtype::f8_e5m2, Dtype::f8_e4m3fnuz,
                            Dtype::f8_e5m2fnuz, Dtype::f8_e8m0};

double eight_bits(std::uint8_t code, Dtype dtype) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  if (dtype == Dtype::f8_e8m0) return code == 0xff ? nan : std::ldexp(1.0, code - 127);
  const bool unsigned_zero = dtype == Dtype::f8_e4m3fnuz || dtype == Dtype::f8_e5m2fnuz;
  if (unsigned_zero && code == 0x80) return nan;
  const int fraction = dtype == Dtype::f8_e4m3fn || dtype == Dtype::f8_e4m3fnuz ? 3 : 2;
  const int bias = (fraction == 3 ? 7 : 15) + (unsigned_zero ? 1 : 0);
  const int magnitude = code & 0x7f, exponent = magnitude >> fraction;
  const double sign = (code & 0x80) != 0 ? -1.0 : 1.0;
  if (dtype == Dtype::f8_e4m3fn && magnitude == 0x7f) return nan;
  if (dtype == Dtype::f8_e5m2 && magnitude >= 0x7c)
    return magnitude == 0x7c ? sign * std::numeric_limits<double>::infinity() : nan;
  const double part = std::ldexp(magnitude & ((1 << fraction) - 1), -fraction);
  return sign *
         (exponent == 0 ? std::ldexp(part, 1 - bias) : std::ldexp(1.0 + part, exponent - bias));
}

double float_of(const char *p, Dtype dtype) {
  if (mlsd::item_size(dtype) == 1) return eight_bits(static_cast<std::uint8_t>(*p), dtype);
  switch (dtype) {
    case Dtype::f64: {
      double x;
      std::memcpy(&x, p, 8);
      return x;
    }
    case Dtype::f32: {
      float x;
      std::memcpy(&x, p, 4);
      return static_cast<double>(x);
    }
    case Dtype::bf16: {
      std::uint16_t h;
      std::memcpy(&h, p, 2);
      const std::uint32_t bits = static_cast<std::uint32_t>(h) << 16;
      float x;
      std::memcpy(&x, &bits, 4);
      return static_cast<double>(x);
    }
    default: {
      std::uint16_t h;
      std::memcpy(&h, p, 2);
      const int exponent = (h >> 10) & 31;
      const double mantissa = (h & 1023) / 1024.0;
      const double sign = (h & 0x8000) != 0 ? -1.0 : 1.0;
      if (exponent == 31)
        return mantissa == 0 ? sign * std::numeric_limits<double>::infinity()
                             : std::numeric_limits<double>::quiet_NaN();
      return sign * (exponent == 0 ? std::ldexp(mantissa, -14)
                                   : std::ldexp(1.0 + mantissa, exponent - 15));
    }
  }
}

void compare(const mlsd::ArrayKernels &kernels, const char *p, std::size_t n, Dtype dtype) {
  const std::size_t item = mlsd::item_size(dtype);
  std::uint64_t nan = 0, posinf = 0, neginf = 0, zero = 0, finite = 0;
  std::size_t first = n;
  double low = HUGE_VAL, high = -HUGE_VAL;
  long double sum = 0, magnitude = 0, squares = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double x = float_of(p + i * item, dtype);
    if (!std::isfinite(x)) {
      if (first == n) first = i;
      if (std::isnan(x))
        ++nan;
      else
        ++(x > 0 ? posinf : neginf);
      continue;
    }
    ++finite;
    zero += x == 0;
    low = std::fmin(low, x);
    high = std::fmax(high, x);
    sum += x;
    magnitude += std::fabs(x);
    squares += static_cast<long double>(x) * x;
  }
  const mlsd::NonfiniteCounts counts = kernels.count_nonfinite(p, n, dtype);
  CHECK(counts.nan == nan && counts.posinf == posinf && counts.neginf == neginf);
  CHECK(kernels.has_nonfinite(p, n, dtype) == (first != n));
  CHECK(kernels.first_nonfinite(p, n, dtype) == first);
  mlsd::BlockStats stats;
  kernels.block_stats(p, n, dtype, &stats);
  CHECK(stats.nan == nan && stats.posinf == posinf && stats.neginf == neginf);
  CHECK(stats.zero == zero);
  if (finite == 0) return;
  CHECK(stats.min == low && stats.max == high);
  CHECK(check::close(stats.abs_sum, static_cast<double>(magnitude), 1e-6));
  CHECK(check::close(mlsd::root(stats.squares), static_cast<double>(sqrtl(squares)), 1e-6));
  const double mean = static_cast<double>(sum / static_cast<long double>(finite));
  CHECK(std::fabs(stats.mean - mean) <= 1e-6 * static_cast<double>(magnitude) + 1e-300);
  if (first == n) {
    CHECK(check::close(mlsd::root(kernels.sum_squares(p, n, dtype)),
                       static_cast<double>(sqrtl(squares)), 1e-6));
    CHECK(check::close(kernels.sum_abs(p, n, dtype), static_cast<double>(magnitude), 1e-6));
    CHECK(kernels.max_abs(p, n, dtype) == std::fmax(-low, high));
  } else {
    CHECK(!std::isfinite(mlsd::root(kernels.sum_squares(p, n, dtype))));
  }
}

// `values`: 0 plain, 1 any bit pattern, 2 all NaN.
std::vector<char> fill(std::size_t n, Dtype dtype, int values, std::size_t offset) {
  const std::size_t item = mlsd::item_size(dtype);
  std::vector<char> memory(n * item + offset);
  std::normal_distribution<double> normal;
  for (std::size_t i = 0; i < n; ++i) {
    std::uint64_t bits = random_bits();
    if (values == 2) bits = ~std::uint64_t{0};
    char *p = memory.data() + offset + i * item;
    if (values == 0) {
      const double x = normal(random_bits);
      const float narrow = static_cast<float>(x);
      std::uint32_t word;
      std::memcpy(&word, &narrow, 4);
      const std::uint16_t half = static_cast<std::uint16_t>(0x3000u | (bits & 0x8bffu));
      const std::uint16_t brain = static_cast<std::uint16_t>(word >> 16);
      if (dtype == Dtype::f64) std::memcpy(p, &x, 8);
      if (dtype == Dtype::f32) std::memcpy(p, &narrow, 4);
      if (dtype == Dtype::f16) std::memcpy(p, &half, 2);
      if (dtype == Dtype::bf16) std::memcpy(p, &brain, 2);
      // Neither NaN nor infinite in any of the formats, and close enough together for e8m0.
      const std::uint8_t eight = dtype == Dtype::f8_e8m0
                                     ? static_cast<std::uint8_t>(0x70u | (bits & 0x0fu))
                                     : static_cast<std::uint8_t>(0x01u | (bits & 0xb7u));
      if (item == 1) std::memcpy(p, &eight, 1);
    } else {
      std::memcpy(p, &bits, item);
    }
  }
  return memory;
}

void every_target() {
  for (std::size_t t = 0; t < mlsd::target_count(); ++t) {
    if (!mlsd::target_supported(t)) continue;
    const mlsd::ArrayKernels &kernels = *mlsd::target_at(t).arrays;
    std::vector<Dtype> dtypes(std::begin(kEightBits), std::end(kEightBits));
    dtypes.insert(dtypes.end(), {Dtype::f64, Dtype::f32, Dtype::f16, Dtype::bf16});
    for (const Dtype dtype : dtypes)
      for (int values = 0; values < 3; ++values)
        for (std::size_t offset = 0; offset < 64; offset += values == 0 ? 1 : 9) {
          const std::size_t longest = 3 * 64 / mlsd::item_size(dtype) + 1;
          for (std::size_t n = 0; n <= longest; ++n) {
            // Any bit pattern of wide types holds magnitudes whose squares overflow a long double's
            // sum here and there: those are compared by the Python tests.
            if (values == 1 && (dtype == Dtype::f64 || dtype == Dtype::f8_e8m0)) continue;
            const std::vector<char> memory = fill(n, dtype, values, offset);
            compare(kernels, memory.data() + offset, n, dtype);
          }
        }
    for (const std::size_t n : {2047u, 2048u, 2049u, 16385u}) {
      for (const Dtype dtype : dtypes) {
        const std::vector<char> memory = fill(n, dtype, 0, 1);
        compare(kernels, memory.data() + 1, n, dtype);
      }
    }
  }
}

void same_bits_for_any_cut() {
  const std::size_t n = 5 * mlsd::kBlock + 12345;
  const std::vector<char> memory = fill(n, Dtype::f32, 0, 0);
  const mlsd::ArrayRef whole{memory.data(), n, Dtype::f32};
  mlsd::StatsRange once;
  mlsd::stats_of(whole, 0, true, &once);
  for (std::size_t cut = 1; cut <= 5; ++cut) {
    const std::size_t at = cut * mlsd::kBlock;
    const mlsd::ArrayRef parts[2] = {{memory.data(), at, Dtype::f32},
                                     {memory.data() + 4 * at, n - at, Dtype::f32}};
    mlsd::StatsRange left, right;
    mlsd::stats_of(parts[0], 0, true, &left);
    mlsd::stats_of(parts[1], at, true, &right);
    CHECK(mlsd::append(&left, right));
    const mlsd::BlockStats a = mlsd::total(once), b = mlsd::total(left);
    CHECK(a.mean == b.mean && a.abs_sum == b.abs_sum && a.squares.sum == b.squares.sum &&
          a.deviations.sum == b.deviations.sum && left.digest == once.digest);
    CHECK(!mlsd::append(&right, left));
  }
}

struct Pieces {
  mlsd::ArrayRef array;
  std::size_t seen;  // elements
};

const void *piece_of(void *context, std::size_t first, std::size_t) {
  const mlsd::ArrayRef &array = static_cast<Pieces *>(context)->array;
  return static_cast<const char *>(array.data) + first * mlsd::item_size(array.dtype);
}

void seen_in_order(void *context, const void *data, std::size_t first, std::size_t count) {
  Pieces &pieces = *static_cast<Pieces *>(context);
  CHECK(first == pieces.seen && data == piece_of(context, first, count));
  pieces.seen += count;
}

// A block that comes in pieces, with stretches of zeros, of subnormal values, and with a NaN: which
// way a span is added must not depend on how spans come together.
void same_bits_in_pieces() {
  const std::size_t n = 3 * mlsd::kPiece + 5000;
  for (std::size_t t = 0; t < mlsd::target_count(); ++t) {
    if (!mlsd::target_supported(t)) continue;
    const mlsd::ArrayKernels &kernels = *mlsd::target_at(t).arrays;
    for (const Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::f8_e4m3fn}) {
      const std::size_t item = mlsd::item_size(dtype);
      std::vector<char> memory = fill(n, dtype, 0, 0);
      for (const std::size_t at :
           {std::size_t{5000}, mlsd::kPiece - 3000, 2 * mlsd::kPiece + 7000}) {
        std::memset(memory.data() + at * item, 0, 100 * item);
        memory[at * item] = memory[(at + 6000) * item] = 1;  // the least of all values, roughly
        for (std::size_t i = 1; i < item; ++i) memory[(at + 6000) * item + i] = 0;
      }
      std::memset(memory.data() + (mlsd::kPiece + 20000) * item, 0xff, item);
      Pieces given{{memory.data(), n, dtype}, 0};
      mlsd::BlockStats whole, pieces;
      kernels.block_stats(memory.data(), n, dtype, &whole);
      CHECK(kernels.stream_stats(n, dtype, piece_of, seen_in_order, &given, &pieces));
      CHECK(given.seen == n);
      CHECK(whole.nan == 1 && whole.nan == pieces.nan && whole.zero == pieces.zero);
      CHECK(whole.zero >= 3 * 99 && whole.subnormal >= 3 && whole.subnormal == pieces.subnormal);
      CHECK(whole.mean == pieces.mean && whole.abs_sum == pieces.abs_sum);
      CHECK(whole.squares.sum == pieces.squares.sum &&
            whole.deviations.sum == pieces.deviations.sum);
      CHECK(whole.min == pieces.min && whole.max == pieces.max);
    }
  }
}

}  // namespace

int main() {
  every_target();
  same_bits_in_pieces();
  same_bits_for_any_cut();
  return check::done();
}
