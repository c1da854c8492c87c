#include "mlsd/crc32.hpp"

#include <array>
#include <cstring>

#include "kernels/crc_folds.hpp"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define MLSD_CRC_FOLDS 1
#include <immintrin.h>
#endif

namespace mlsd {
using namespace crc_folds;
namespace {

constexpr std::size_t kSlices = 8;
using Tables = std::array<std::array<std::uint32_t, 256>, kSlices>;

constexpr Tables make_tables() noexcept {
  Tables t{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = times_x(c);
    t[0][i] = c;
  }
  for (std::size_t s = 1; s < kSlices; ++s)
    for (std::size_t i = 0; i < 256; ++i) t[s][i] = (t[s - 1][i] >> 8) ^ t[0][t[s - 1][i] & 255];
  return t;
}

constexpr Tables kTables = make_tables();

// Without the inversions at both ends. Byte by byte, so that the order of bytes does not matter.
std::uint32_t by_tables(std::uint32_t c, const unsigned char *p, std::size_t n) noexcept {
  for (; n >= kSlices; p += kSlices, n -= kSlices)
    c = kTables[7][(c ^ p[0]) & 255] ^ kTables[6][((c >> 8) ^ p[1]) & 255] ^
        kTables[5][((c >> 16) ^ p[2]) & 255] ^ kTables[4][(c >> 24) ^ p[3]] ^ kTables[3][p[4]] ^
        kTables[2][p[5]] ^ kTables[1][p[6]] ^ kTables[0][p[7]];
  for (; n != 0; ++p, --n) c = (c >> 8) ^ kTables[0][(c ^ *p) & 255];
  return c;
}

#if MLSD_CRC_FOLDS

__attribute__((target("pclmul,sse4.1"))) inline __m128i fold(__m128i a, __m128i factors) {
  return _mm_xor_si128(_mm_clmulepi64_si128(a, factors, 0x00),
                       _mm_clmulepi64_si128(a, factors, 0x11));
}

// At least 64 bytes.
__attribute__((target("pclmul,sse4.1"))) std::uint32_t by_sixteen(std::uint32_t c,
                                                                  const unsigned char *p,
                                                                  std::size_t n) noexcept {
  constexpr long long low_far = low_factor(512), high_far = high_factor(512);
  constexpr long long low_near = low_factor(128), high_near = high_factor(128);
  const __m128i far = _mm_set_epi64x(high_far, low_far);
  const __m128i near = _mm_set_epi64x(high_near, low_near);
  __m128i lanes[kFoldLanes];
  for (std::size_t i = 0; i < kFoldLanes; ++i)
    lanes[i] = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p + 16 * i));
  lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi32_si128(static_cast<int>(c)));
  for (p += 64, n -= 64; n >= 64; p += 64, n -= 64)
    for (std::size_t i = 0; i < kFoldLanes; ++i)
      lanes[i] = _mm_xor_si128(fold(lanes[i], far),
                               _mm_loadu_si128(reinterpret_cast<const __m128i *>(p + 16 * i)));
  __m128i all = lanes[0];
  for (std::size_t i = 1; i < kFoldLanes; ++i) all = _mm_xor_si128(fold(all, near), lanes[i]);
  for (; n >= 16; p += 16, n -= 16)
    all = _mm_xor_si128(fold(all, near), _mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
  unsigned char rest[16];
  _mm_storeu_si128(reinterpret_cast<__m128i *>(rest), all);
  return by_tables(by_tables(0, rest, sizeof rest), p, n);
}

__attribute__((target("avx512f,vpclmulqdq"))) inline __m512i fold_wide(__m512i a, __m512i factors,
                                                                       __m512i next) {
  return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(a, factors, 0x00),
                                   _mm512_clmulepi64_epi128(a, factors, 0x11), next, 0x96);
}

// Folds a multiple of 256 bytes onto the 256 of `state`.
__attribute__((target("avx512f,vpclmulqdq"))) void fold_on(unsigned char *state,
                                                           const unsigned char *p,
                                                           std::size_t n) noexcept {
  constexpr long long low = low_factor(2048), high = high_factor(2048);
  const __m512i far = _mm512_set_epi64(high, low, high, low, high, low, high, low);
  __m512i lanes[kFoldLanes];
  for (std::size_t i = 0; i < kFoldLanes; ++i) lanes[i] = _mm512_loadu_si512(state + 64 * i);
  for (; n >= kFolded; p += kFolded, n -= kFolded)
    for (std::size_t i = 0; i < kFoldLanes; ++i)
      lanes[i] = fold_wide(lanes[i], far, _mm512_loadu_si512(p + 64 * i));
  for (std::size_t i = 0; i < kFoldLanes; ++i) _mm512_storeu_si512(state + 64 * i, lanes[i]);
}

// The first 256 bytes behind others whose checksum is `c`, ready to be folded upon.
void begin_fold(std::uint32_t c, const unsigned char *p, unsigned char *state) noexcept {
  std::memcpy(state, p, kFolded);
  for (std::size_t i = 0; i < 4; ++i)
    state[i] = static_cast<unsigned char>(state[i] ^ (c >> (8 * i)));
}

std::uint32_t end_fold(const unsigned char *state) noexcept {
  return by_sixteen(0, state, kFolded);
}

bool has_sixteen() noexcept {
  static const bool has = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
  return has;
}

bool has_sixty_four() noexcept {
  static const bool has =
      has_sixteen() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq");
  return has;
}

#endif

}  // namespace

std::uint32_t crc32_plain(std::uint32_t crc, const void *data, std::size_t bytes) noexcept {
  return ~by_tables(~crc, static_cast<const unsigned char *>(data), bytes);
}

std::uint32_t crc32(std::uint32_t crc, const void *data, std::size_t bytes) noexcept {
  Crc32 sum(crc);
  sum.add(data, bytes);
  return sum.value();
}

void Crc32::add(const void *data, std::size_t bytes) noexcept {
  const unsigned char *p = static_cast<const unsigned char *>(data);
#if MLSD_CRC_FOLDS
  if (bytes >= kFolded && has_sixty_four()) {
    if (!folding_) {
      begin_fold(state_, p, folded_);
      folding_ = true;
      p += kFolded;
      bytes -= kFolded;
    }
    const std::size_t whole = bytes / kFolded * kFolded;
    fold_on(folded_, p, whole);
    p += whole;
    bytes -= whole;
  }
  if (bytes == 0) return;
  if (folding_) state_ = end_fold(folded_);
  folding_ = false;
  if (bytes >= 64 && has_sixteen()) {
    state_ = by_sixteen(state_, p, bytes);
    return;
  }
#endif
  state_ = by_tables(state_, p, bytes);
}

std::uint32_t Crc32::value() const noexcept {
#if MLSD_CRC_FOLDS
  if (folding_) return ~end_fold(folded_);
#endif
  return ~state_;
}

std::uint32_t crc32_combine(std::uint32_t first, std::uint32_t second,
                            std::uint64_t second_bytes) noexcept {
  // x^(8 n), the exponent kept apart so that it cannot overflow.
  std::uint32_t shift = kOne, square = power(8);
  for (; second_bytes != 0; second_bytes >>= 1) {
    if ((second_bytes & 1) != 0) shift = times(shift, square);
    square = times(square, square);
  }
  return times(shift, first) ^ second;
}

}  // namespace mlsd
