// The element types that the array kernels read.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlsd {

enum class Dtype : std::uint8_t {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3fn,
  f8_e5m2,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  f8_e8m0,
  i8,
  i16,
  i32,
  i64,
  u8,
  u16,
  u32,
  u64,
};
constexpr std::size_t kDtypeCount = 17;

// Whether the kernels hold elements in 64-bit lanes: all others are exact in 32-bit floats.
constexpr bool has_double_lanes(Dtype dtype) noexcept {
  return dtype == Dtype::f64 || dtype >= Dtype::i8;
}

constexpr std::size_t item_size(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::f64:
    case Dtype::i64:
    case Dtype::u64:
      return 8;
    case Dtype::f32:
    case Dtype::i32:
    case Dtype::u32:
      return 4;
    case Dtype::f16:
    case Dtype::bf16:
    case Dtype::i16:
    case Dtype::u16:
      return 2;
    default:
      return 1;
  }
}

}  // namespace mlsd
