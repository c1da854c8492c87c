// The checksum of zip archives: CRC-32 with the reflected polynomial 0xEDB88320.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlsd {

// Of `bytes` that follow others whose checksum is `crc`; 0 to begin with.
std::uint32_t crc32(std::uint32_t crc, const void *data, std::size_t bytes) noexcept;

// The same for bytes that come in pieces. Between pieces that are multiples of 256 bytes the
// message stays folded in vectors: bringing it down to 32 bits takes as long as 8 KiB of folding.
class Crc32 {
 public:
  explicit Crc32(std::uint32_t crc = 0) noexcept : state_(~crc) {}
  void add(const void *data, std::size_t bytes) noexcept;
  // Of all that was added.
  std::uint32_t value() const noexcept;
  // Where ArrayKernels::digest_and_fold goes on; nullptr where nothing is folded.
  unsigned char *folded() noexcept { return folding_ ? folded_ : nullptr; }

 private:
  alignas(64) unsigned char folded_[256] = {};
  std::uint32_t state_;  // without the inversions at both ends; where nothing is folded
  bool folding_ = false;
};

// The plain way, a few bytes at a time: what the vector code must agree with.
std::uint32_t crc32_plain(std::uint32_t crc, const void *data, std::size_t bytes) noexcept;

// Of two stretches, one behind the other, from their own and the length of the second.
std::uint32_t crc32_combine(std::uint32_t first, std::uint32_t second,
                            std::uint64_t second_bytes) noexcept;

}  // namespace mlsd
