#include "mlsd/live.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "mlsd/threads.hpp"

namespace mlsd {
namespace {

// Bytes that reading one far element costs: a line of the cache.
constexpr std::size_t kLine = 64;

template <typename T>
double element(const char *at) noexcept {
  T value;
  std::memcpy(&value, at, sizeof value);  // at any alignment
  return static_cast<double>(value);
}

double from_bf16(const char *at) noexcept {
  std::uint16_t half;
  std::memcpy(&half, at, sizeof half);
  const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return static_cast<double>(value);
}

double from_f16(const char *at) noexcept {
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  double value;
  if (exponent == 31)
    value = fraction == 0 ? std::numeric_limits<double>::infinity()
                          : std::numeric_limits<double>::quiet_NaN();
  else if (exponent == 0)
    value = std::ldexp(fraction, -24);
  else
    value = std::ldexp(1024 + fraction, exponent - 25);
  return (bits & 0x8000) != 0 ? -value : value;
}

using Read = double (*)(const char *);

Read reader(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::f64:
      return element<double>;
    case Dtype::f32:
      return element<float>;
    case Dtype::f16:
      return from_f16;
    case Dtype::bf16:
      return from_bf16;
    default:
      return nullptr;
  }
}

template <Read read>
double moved_by(const char *data, std::size_t step, std::size_t size, double *sample) {
  double away = 0, whole = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const double now = read(data + i * step), before = sample[i];
    away += (now - before) * (now - before);
    whole += before * before;
    sample[i] = now;
  }
  if (whole > 0) return std::sqrt(away / whole);
  // NaN stays NaN.
  return away == 0 && whole == 0 ? 0.0 : away + std::numeric_limits<double>::infinity();
}

template <Read read>
void take(const char *data, std::size_t step, std::size_t size, double *sample) {
  for (std::size_t i = 0; i < size; ++i) sample[i] = read(data + i * step);
}

template <Read read>
void move_one(const char *data, std::size_t step, std::size_t size, bool known, double *sample,
              double *moved) {
  if (known)
    *moved = moved_by<read>(data, step, size, sample);
  else
    take<read>(data, step, size, sample);
}

}  // namespace

Sample sample_of(std::size_t n, std::size_t width) noexcept {
  const std::size_t stride = n < width ? 1 : n / width;
  const std::size_t all = (n + stride - 1) / stride;
  return {stride, all < width ? all : width};
}

bool sampled(Dtype dtype) noexcept { return reader(dtype) != nullptr; }

void live_norms(const ArrayRef *arrays, std::size_t count, double *out) {
  each_norm(arrays, count, out);
  for (std::size_t i = 0; i < count; ++i) {
    if (std::isfinite(out[i])) continue;
    const NonfiniteCounts bad = count_nonfinite(arrays[i]);
    if (bad.nan != 0)
      out[i] = std::numeric_limits<double>::quiet_NaN();
    else if (bad.posinf + bad.neginf != 0)
      out[i] = std::numeric_limits<double>::infinity();
  }
}

void live_moves(const ArrayRef *arrays, std::size_t count, std::size_t width, bool known,
                double *samples, double *moved) {
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < count; ++i) bytes += sample_of(arrays[i].n, width).size * kLine;
  auto one = [&](std::size_t i) {
    const ArrayRef &array = arrays[i];
    const Sample sample = sample_of(array.n, width);
    const std::size_t step = sample.stride * item_size(array.dtype);
    const char *data = static_cast<const char *>(array.data);
    double *kept = samples + i * width;
    switch (array.dtype) {
      case Dtype::f64:
        return move_one<element<double>>(data, step, sample.size, known, kept, moved + i);
      case Dtype::f32:
        return move_one<element<float>>(data, step, sample.size, known, kept, moved + i);
      case Dtype::f16:
        return move_one<from_f16>(data, step, sample.size, known, kept, moved + i);
      default:
        return move_one<from_bf16>(data, step, sample.size, known, kept, moved + i);
    }
  };
  parallel_for(count, bytes, one);
}

}  // namespace mlsd
