#include "formats/event_file.hpp"

#include "formats/protobuf.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

namespace mlsd {
namespace {

// Eight tables, eight bytes a turn: no instruction that some machine lacks, above a gigabyte a
// second on any.
struct CrcTables {
  std::uint32_t at[8][256];
  CrcTables() {
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1U) ? 0x82F63B78U : 0U);
      at[0][i] = value;
    }
    for (std::uint32_t i = 0; i < 256; ++i) {
      for (int t = 1; t < 8; ++t) at[t][i] = (at[t - 1][i] >> 8) ^ at[0][at[t - 1][i] & 0xFFU];
    }
  }
};

float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

double double_of(std::uint64_t bits) {
  double value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

float half_of(std::uint32_t bits) {
  const std::uint32_t sign = (bits & 0x8000U) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1FU;
  const std::uint32_t fraction = bits & 0x3FFU;
  if (exponent == 0x1FU) return float_of(sign | 0x7F800000U | fraction << 13);
  if (exponent != 0) return float_of(sign | (exponent + 112U) << 23 | fraction << 13);
  const float tiny = static_cast<float>(fraction) * 0x1p-24F;
  return sign ? -tiny : tiny;
}

struct Moments {
  std::uint64_t count = 0;
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  double mean = 0.0;
  double squares = 0.0;  // sum of squared distances from the mean (Welford 1962)
  bool nan = false;

  void add(double value) {
    ++count;
    if (std::isnan(value)) nan = true;
    low = std::min(low, value);
    high = std::max(high, value);
    const double delta = value - mean;
    mean += delta / static_cast<double>(count);
    squares += delta * (value - mean);
  }
};

enum TensorType : std::uint64_t {
  kFloat = 1,
  kDouble = 2,
  kInt32 = 3,
  kUint8 = 4,
  kInt16 = 5,
  kInt8 = 6,
  kInt64 = 9,
  kBool = 10,
  kBfloat16 = 14,
  kUint16 = 17,
  kHalf = 19,
  kUint32 = 22,
  kUint64 = 23,
};

std::size_t width_of(std::uint64_t type) {
  switch (type) {
    case kDouble:
    case kInt64:
    case kUint64:
      return 8;
    case kFloat:
    case kInt32:
    case kUint32:
      return 4;
    case kInt16:
    case kUint16:
    case kHalf:
    case kBfloat16:
      return 2;
    case kUint8:
    case kInt8:
    case kBool:
      return 1;
    default:
      return 0;
  }
}

double element_of(std::uint64_t type, const std::uint8_t* p) {
  switch (type) {
    case kDouble:
      return double_of(little64(p));
    case kInt64:
      return static_cast<double>(static_cast<std::int64_t>(little64(p)));
    case kUint64:
      return static_cast<double>(little64(p));
    case kFloat:
      return static_cast<double>(float_of(little32(p)));
    case kInt32:
      return static_cast<double>(static_cast<std::int32_t>(little32(p)));
    case kUint32:
      return static_cast<double>(little32(p));
    case kInt8:
      return static_cast<double>(static_cast<std::int8_t>(p[0]));
    case kUint8:
    case kBool:
      return static_cast<double>(p[0]);
    default:
      break;
  }
  const std::uint32_t two = static_cast<std::uint32_t>(p[0]) | static_cast<std::uint32_t>(p[1])
                                                                   << 8;
  if (type == kHalf) return static_cast<double>(half_of(two));
  if (type == kBfloat16) return static_cast<double>(float_of(two << 16));
  if (type == kInt16) return static_cast<double>(static_cast<std::int16_t>(two));
  return static_cast<double>(two);
}

// The typed list of a tensor that is not packed into `tensor_content`: its field's number says of
// which type it is. False where the message is broken.
bool list_elements(const Fields& field, std::uint64_t type, Moments* out) {
  const bool packed = field.wire == 2;
  switch (field.number) {
    case 5:  // float_val
      if (!packed) {
        out->add(static_cast<double>(float_of(static_cast<std::uint32_t>(field.value))));
        return true;
      }
      if (field.size % 4 != 0) return false;
      for (std::size_t i = 0; i < field.size; i += 4) {
        out->add(static_cast<double>(float_of(little32(field.data + i))));
      }
      return true;
    case 6:  // double_val
      if (!packed) {
        out->add(double_of(field.value));
        return true;
      }
      if (field.size % 8 != 0) return false;
      for (std::size_t i = 0; i < field.size; i += 8) out->add(double_of(little64(field.data + i)));
      return true;
    default:
      break;
  }
  const auto number = [&](std::uint64_t raw) {
    if (field.number == 13) {  // half_val: the 16 bits of a half or a bfloat16
      const auto bits = static_cast<std::uint32_t>(raw & 0xFFFFU);
      return static_cast<double>(type == kBfloat16 ? float_of(bits << 16) : half_of(bits));
    }
    if (field.number == 16 || field.number == 17) return static_cast<double>(raw);
    return static_cast<double>(static_cast<std::int64_t>(raw));
  };
  if (!packed) {
    out->add(number(field.value));
    return true;
  }
  Fields inside(field.data, field.size);
  while (inside.at != inside.end) {
    std::uint64_t raw;
    if (!inside.varint(&raw)) return false;
    out->add(number(raw));
  }
  return true;
}

// Reads a TensorProto; `count` stays 0 for a tensor of text. False where it is broken.
bool tensor(const std::uint8_t* data, std::size_t size, Moments* out) {
  std::uint64_t type = 0;
  const std::uint8_t* content = nullptr;
  std::size_t content_size = 0;
  Fields field(data, size);
  while (field.next()) {
    if (field.number == 1 && field.wire == 0) type = field.value;
    if (field.number == 4 && field.wire == 2) {
      content = field.data;
      content_size = field.size;
    }
  }
  if (field.broken) return false;
  const std::size_t width = width_of(type);
  if (width == 0) return true;
  if (content_size != 0) {
    if (content_size % width != 0) return false;
    for (std::size_t i = 0; i < content_size; i += width) out->add(element_of(type, content + i));
    return true;
  }
  Fields again(data, size);
  while (again.next()) {
    const bool list = (again.number >= 5 && again.number <= 7) || again.number == 10 ||
                      again.number == 11 || again.number == 13 || again.number == 16 ||
                      again.number == 17;
    if (list && !list_elements(again, type, out)) return false;
  }
  return true;
}

// Reads a HistogramProto: minimum, maximum, number, sum and sum of squares are in it.
bool histogram(const std::uint8_t* data, std::size_t size, Moments* out) {
  double number = 0.0, sum = 0.0, squares = 0.0;
  Fields field(data, size);
  while (field.next()) {
    if (field.wire != 1) continue;
    const double value = double_of(field.value);
    switch (field.number) {
      case 1:
        out->low = value;
        break;
      case 2:
        out->high = value;
        break;
      case 3:
        number = value;
        break;
      case 4:
        sum = value;
        break;
      case 5:
        squares = value;
        break;
      default:
        break;
    }
  }
  if (field.broken) return false;
  if (!(number >= 1.0) || number > 1e18) return true;
  out->count = static_cast<std::uint64_t>(number);
  out->mean = sum / number;
  out->squares = std::fmax(0.0, squares - sum * out->mean);
  return true;
}

}  // namespace

std::uint32_t crc32c(const std::uint8_t* data, std::size_t size) {
  static const CrcTables tables;
  std::uint32_t crc = 0xFFFFFFFFU;
  for (; size >= 8; size -= 8, data += 8) {
    const std::uint32_t low = crc ^ little32(data);
    const std::uint32_t high = little32(data + 4);
    crc = tables.at[7][low & 0xFFU] ^ tables.at[6][low >> 8 & 0xFFU] ^
          tables.at[5][low >> 16 & 0xFFU] ^ tables.at[4][low >> 24] ^ tables.at[3][high & 0xFFU] ^
          tables.at[2][high >> 8 & 0xFFU] ^ tables.at[1][high >> 16 & 0xFFU] ^
          tables.at[0][high >> 24];
  }
  for (; size > 0; --size) crc = (crc >> 8) ^ tables.at[0][(crc ^ *data++) & 0xFFU];
  return crc ^ 0xFFFFFFFFU;
}

namespace {

std::uint32_t masked(std::uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xA282EAD8U; }

}  // namespace

std::size_t EventReader::feed(const std::uint8_t* data, std::size_t size) {
  std::size_t used = 0;
  wanted = 0;
  while (!stopped && size - used >= 12) {
    const std::uint8_t* head = data + used;
    const std::uint64_t length = little64(head);
    if (little32(head + 8) != masked(crc32c(head, 8))) {
      faults.push_back({EventDamage::length_checksum, offset});
      stopped = true;
      break;
    }
    const std::size_t left = size - used - 12;
    if (length > std::numeric_limits<std::uint64_t>::max() - 16) {
      faults.push_back({EventDamage::message, offset});
      stopped = true;
      break;
    }
    if (left < 4 || length > left - 4) {
      wanted = length + 16;
      break;
    }
    const auto count = static_cast<std::size_t>(length);
    const std::uint8_t* body = head + 12;
    if (little32(body + count) != masked(crc32c(body, count))) {
      faults.push_back({EventDamage::data_checksum, offset});
    } else if (!event(body, count)) {
      faults.push_back({EventDamage::message, offset});
    }
    ++records;
    used += count + 16;
    offset += count + 16;
  }
  return used;
}

void EventReader::forget() {
  tags.clear();
  index_.clear();
  faults.clear();
  records = 0;
  skipped = 0;
}

bool EventReader::event(const std::uint8_t* data, std::size_t size) {
  double time = 0.0;
  std::int64_t step = 0;
  Fields field(data, size);
  while (field.next()) {
    if (field.number == 1 && field.wire == 1) time = double_of(field.value);
    if (field.number == 2 && field.wire == 0) step = static_cast<std::int64_t>(field.value);
  }
  if (field.broken) return false;
  Fields again(data, size);
  while (again.next()) {
    if (again.number != 5 || again.wire != 2) continue;
    Fields summary(again.data, again.size);
    while (summary.next()) {
      if (summary.number == 1 && summary.wire == 2 &&
          !summary_value(summary.data, summary.size, step, time)) {
        return false;
      }
    }
    if (summary.broken) return false;
  }
  return true;
}

bool EventReader::summary_value(const std::uint8_t* data, std::size_t size, std::int64_t step,
                                double time) {
  Moments found;
  bool simple = false;
  bool spread = false;  // of several numbers
  name_.clear();
  Fields field(data, size);
  double value = 0.0;
  while (field.next()) {
    if (field.number == 1 && field.wire == 2) {
      name_.assign(reinterpret_cast<const char*>(field.data), field.size);
    } else if (field.number == 2 && field.wire == 5) {
      value = static_cast<double>(float_of(static_cast<std::uint32_t>(field.value)));
      simple = true;
    } else if (field.number == 5 && field.wire == 2) {
      if (!histogram(field.data, field.size, &found)) return false;
      spread = found.count > 0;
    } else if (field.number == 8 && field.wire == 2) {
      if (!tensor(field.data, field.size, &found)) return false;
      spread = found.count > 1;
      if (found.count == 1) {
        simple = true;
        value = found.nan ? std::numeric_limits<double>::quiet_NaN() : found.low;
      }
    }
  }
  if (field.broken) return false;
  if (simple) {
    add(name_, step, time, value);
  } else if (spread) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const std::string base = name_;
    add(base + "/min", step, time, found.nan ? nan : found.low);
    add(base + "/max", step, time, found.nan ? nan : found.high);
    add(base + "/mean", step, time, found.mean);
    add(base + "/std", step, time, std::sqrt(found.squares / static_cast<double>(found.count)));
  } else {
    ++skipped;
  }
  return true;
}

void EventReader::add(const std::string& name, std::int64_t step, double time, double value) {
  const auto [found, fresh] = index_.try_emplace(name, tags.size());
  if (fresh) {
    tags.emplace_back();
    tags.back().name = name;
  }
  EventTag& tag = tags[found->second];
  tag.records.push_back(records);
  tag.steps.push_back(step);
  tag.times.push_back(time);
  tag.values.push_back(value);
}

}  // namespace mlsd
