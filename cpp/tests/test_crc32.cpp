#include <cstdint>
#include <vector>

#include "check.hpp"
#include "mlsd/crc32.hpp"

int main() {
  CHECK(mlsd::crc32(0, "123456789", 9) == 0xCBF43926u);
  CHECK(mlsd::crc32(0, "", 0) == 0);
  std::vector<unsigned char> bytes(5000);
  std::uint32_t x = 1;
  for (unsigned char &b : bytes) {
    x = x * 1664525u + 1013904223u;
    b = static_cast<unsigned char>(x >> 24);
  }
  for (std::size_t n = 0; n < 1400; ++n)
    for (std::size_t from = 0; from < 3; ++from) {
      const unsigned char *p = bytes.data() + from;
      const std::uint32_t all = mlsd::crc32(0, p, n);
      CHECK(all == mlsd::crc32_plain(0, p, n));
      CHECK(mlsd::crc32(mlsd::crc32(0, p, n / 3), p + n / 3, n - n / 3) == all);
      CHECK(mlsd::crc32_combine(mlsd::crc32(0, p, n / 3), mlsd::crc32(0, p + n / 3, n - n / 3),
                                n - n / 3) == all);
    }
  CHECK(mlsd::crc32(0, bytes.data(), 5000) == mlsd::crc32_plain(0, bytes.data(), 5000));
  // In pieces of every length, some of which leave the message folded.
  for (std::size_t piece : {1u, 63u, 64u, 255u, 256u, 257u, 512u, 1000u, 2048u}) {
    mlsd::Crc32 sum;
    for (std::size_t at = 0; at < 5000; at += piece) {
      sum.add(bytes.data() + at, piece < 5000 - at ? piece : 5000 - at);
      CHECK(sum.value() ==
            mlsd::crc32_plain(0, bytes.data(), at + piece < 5000 ? at + piece : 5000));
    }
    CHECK(sum.value() == mlsd::crc32_plain(0, bytes.data(), 5000));
    mlsd::Crc32 behind(mlsd::crc32_plain(0, bytes.data(), 100));
    behind.add(bytes.data() + 100, 4608);
    behind.add(bytes.data() + 4708, 292);
    CHECK(behind.value() == sum.value());
  }
  // A length near the largest does not overflow: what follows is zeros only in thought.
  CHECK(mlsd::crc32_combine(0, 7, UINT64_MAX) == 7);
  return check::done();
}
