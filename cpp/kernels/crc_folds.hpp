// Factors of the folds of CRC-32, computed here rather than copied.
//
// Bits are reflected: the highest bit of a word is the coefficient of x^0. A stretch of message is
// folded onto one that lies D bits behind it by multiplying with x^D modulo the polynomial, without
// carries (Gopal and others, "Fast CRC computation using PCLMULQDQ", Intel 2009).
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlsd {
namespace crc_folds {

constexpr std::uint32_t kPolynomial = 0xEDB88320u;
constexpr std::uint32_t kOne = 0x80000000u;  // x^0
constexpr std::size_t kFoldLanes = 4;
constexpr std::size_t kFolded = 64 * kFoldLanes;  // bytes that are kept folded in wide vectors

constexpr std::uint32_t times_x(std::uint32_t a) noexcept {
  return (a >> 1) ^ ((a & 1) != 0 ? kPolynomial : 0);
}

constexpr std::uint32_t times(std::uint32_t a, std::uint32_t b) noexcept {
  std::uint32_t product = 0;
  for (std::uint32_t bit = kOne; bit != 0; bit >>= 1) {
    if ((a & bit) != 0) product ^= b;
    b = times_x(b);
  }
  return product;
}

// x^n modulo the polynomial.
constexpr std::uint32_t power(std::uint64_t n) noexcept {
  std::uint32_t out = kOne, square = kOne >> 1;
  for (; n != 0; n >>= 1) {
    if ((n & 1) != 0) out = times(out, square);
    square = times(square, square);
  }
  return out;
}

// For a fold over `distance` bits: the low half of a vector is 64 bits further away than the high
// one. A product of reflected words is one bit short, hence the shift.
constexpr long long low_factor(unsigned distance) noexcept {
  return static_cast<long long>(static_cast<std::uint64_t>(power(distance + 32)) << 1);
}
constexpr long long high_factor(unsigned distance) noexcept {
  return static_cast<long long>(static_cast<std::uint64_t>(power(distance - 32)) << 1);
}

}  // namespace crc_folds
}  // namespace mlsd
