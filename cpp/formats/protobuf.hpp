// The fields of a protocol buffer message, one after the other, within its bounds.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlsd {

inline std::uint32_t little32(const std::uint8_t* p) {
  return static_cast<std::uint32_t>(p[0]) | static_cast<std::uint32_t>(p[1]) << 8 |
         static_cast<std::uint32_t>(p[2]) << 16 | static_cast<std::uint32_t>(p[3]) << 24;
}

inline std::uint64_t little64(const std::uint8_t* p) {
  return static_cast<std::uint64_t>(little32(p)) | static_cast<std::uint64_t>(little32(p + 4))
                                                       << 32;
}

// A bounded cursor over one message.
struct Fields {
  const std::uint8_t* at;
  const std::uint8_t* end;
  std::uint32_t number = 0;
  std::uint32_t wire = 0;
  std::uint64_t value = 0;             // of a varint or a fixed field
  const std::uint8_t* data = nullptr;  // of a field with a length
  std::size_t size = 0;
  bool broken = false;

  Fields(const std::uint8_t* first, std::size_t count) : at(first), end(first + count) {}

  bool varint(std::uint64_t* out) {
    std::uint64_t result = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (at == end) return false;
      const std::uint8_t byte = *at++;
      if (shift < 64) result |= static_cast<std::uint64_t>(byte & 0x7FU) << shift;
      if ((byte & 0x80U) == 0) {
        *out = result;
        return true;
      }
    }
    return false;
  }

  // Steps to the next field; false at the end, or with `broken` set.
  bool next() {
    if (at == end) return false;
    std::uint64_t key;
    broken = true;
    if (!varint(&key) || key >> 3 == 0 || key >> 3 > 0x1FFFFFFFU) return false;
    number = static_cast<std::uint32_t>(key >> 3);
    wire = static_cast<std::uint32_t>(key & 7U);
    const auto left = static_cast<std::size_t>(end - at);
    if (wire == 0) {
      if (!varint(&value)) return false;
    } else if (wire == 1) {
      if (left < 8) return false;
      value = little64(at);
      at += 8;
    } else if (wire == 5) {
      if (left < 4) return false;
      value = little32(at);
      at += 4;
    } else if (wire == 2) {
      std::uint64_t length;
      if (!varint(&length) || length > static_cast<std::uint64_t>(end - at)) return false;
      data = at;
      size = static_cast<std::size_t>(length);
      at += size;
    } else {
      return false;  // groups are not part of these messages
    }
    broken = false;
    return true;
  }
};

}  // namespace mlsd
