// The checksum of zip archives: CRC-32 with the reflected polynomial 0xEDB88320.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlsd {

// Of `bytes` that follow others whose checksum is `crc`; 0 to begin with.
std::uint32_t crc32(std::uint32_t crc, const void *data, std::size_t bytes) noexcept;

// The plain way, a few bytes at a time: what the vector code must agree with.
std::uint32_t crc32_plain(std::uint32_t crc, const void *data, std::size_t bytes) noexcept;

// Of two stretches, one behind the other, from their own and the length of the second.
std::uint32_t crc32_combine(std::uint32_t first, std::uint32_t second,
                            std::uint64_t second_bytes) noexcept;

}  // namespace mlsd
