#include "formats/wandb_file.hpp"

#include <algorithm>
#include <limits>

#include "formats/delimited.hpp"
#include "formats/protobuf.hpp"

namespace mlsd {
namespace {

constexpr std::size_t kBlock = 32768;
constexpr std::size_t kHead = 7;  // of the file, and of every piece

enum Piece : std::uint8_t { kFull = 1, kFirst = 2, kMiddle = 3, kLast = 4 };

struct Tables {
  std::uint32_t at[8][256];
  Tables() {
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1U) ? 0xEDB88320U : 0U);
      at[0][i] = value;
    }
    for (std::uint32_t i = 0; i < 256; ++i) {
      for (int t = 1; t < 8; ++t) at[t][i] = (at[t - 1][i] >> 8) ^ at[0][at[t - 1][i] & 0xFFU];
    }
  }
};

double unknown() { return std::numeric_limits<double>::quiet_NaN(); }

// A number as JSON writes it, or true or false; quoted non-finite words as some writers have it.
bool number_of(const std::string& json, double* out) {
  if (json == "true" || json == "false") {
    *out = json == "true" ? 1.0 : 0.0;
    return true;
  }
  const char* first = json.data();
  const char* last = first + json.size();
  if (json.size() > 2 && json.front() == '"' && json.back() == '"') {
    ++first;
    --last;
    const char lead = *first == '-' || *first == '+' ? first[1] : *first;
    if (lead != 'N' && lead != 'I') return false;  // text, even where it looks like a number
  }
  return first != last && parse_number(first, last, out);
}

}  // namespace

std::uint32_t crc32(std::uint32_t crc, const std::uint8_t* data, std::size_t size) {
  static const Tables tables;
  crc = ~crc;
  for (; size >= 8; size -= 8, data += 8) {
    const std::uint32_t low = crc ^ little32(data);
    const std::uint32_t high = little32(data + 4);
    crc = tables.at[7][low & 0xFFU] ^ tables.at[6][low >> 8 & 0xFFU] ^
          tables.at[5][low >> 16 & 0xFFU] ^ tables.at[4][low >> 24] ^ tables.at[3][high & 0xFFU] ^
          tables.at[2][high >> 8 & 0xFFU] ^ tables.at[1][high >> 16 & 0xFFU] ^
          tables.at[0][high >> 24];
  }
  for (; size > 0; --size) crc = (crc >> 8) ^ tables.at[0][(crc ^ *data++) & 0xFFU];
  return ~crc;
}

void WandbReader::feed(const std::uint8_t* data, std::size_t size) {
  waiting_.insert(waiting_.end(), data, data + size);
  std::size_t used = 0;
  if (!started_) {
    if (waiting_.size() < kHead) return;
    used = kHead;  // the caller has looked at the magic number
    offset = kHead;
    started_ = true;
  }
  for (;;) {
    const auto in_block = static_cast<std::size_t>(offset % kBlock);
    const std::size_t left = waiting_.size() - used;
    std::size_t take;
    if (skip_ > 0) {
      if (left == 0) break;
      take = std::min(skip_, left);
      skip_ -= take;
    } else if (kBlock - in_block < kHead) {
      take = kBlock - in_block;  // too little room for a piece: padding
      if (left < take) break;
    } else {
      if (left < kHead) break;
      const std::uint8_t* piece = waiting_.data() + used;
      const std::size_t length =
          static_cast<std::size_t>(piece[4]) | static_cast<std::size_t>(piece[5]) << 8;
      const std::uint8_t type = piece[6];
      const bool fits = length <= kBlock - in_block - kHead;
      if (fits && left < kHead + length) break;
      if (!fits || type < kFull || type > kLast ||
          crc32(0, piece + 6, length + 1) != little32(piece)) {
        faults.push_back(offset);
        in_record_ = false;
        record_.clear();
        skip_ = kBlock - in_block;  // where the next piece is, nobody knows: the next block
        continue;
      }
      const std::uint8_t* body = piece + kHead;
      if (type == kFull || type == kFirst) {
        if (in_record_) faults.push_back(offset);  // the record before has no end
        record_.clear();
      }
      const bool orphan = (type == kMiddle || type == kLast) && !in_record_;
      in_record_ = !orphan && (type == kFirst || type == kMiddle);
      if (type == kFull) {
        if (!record(body, length)) faults.push_back(offset);
      } else if (!orphan) {
        record_.insert(record_.end(), body, body + length);
        if (type == kLast) {
          if (!record(record_.data(), record_.size())) faults.push_back(offset);
          record_.clear();
        }
      }
      take = kHead + length;
    }
    used += take;
    offset += take;
  }
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(used));
}

void WandbReader::forget() {
  columns.clear();
  index_.clear();
  steps.clear();
  times.clear();
  config.clear();
  faults.clear();
  skipped = 0;
}

bool WandbReader::record(const std::uint8_t* data, std::size_t size) {
  Fields field(data, size);
  while (field.next()) {
    if (field.wire != 2) continue;
    bool good = true;
    if (field.number == 2) {
      good = history(field.data, field.size);
    } else if (field.number == 5) {
      good = configuration(field.data, field.size);
    } else if (field.number == 7) {
      good = stats(field.data, field.size);
    } else if (field.number == 17) {
      Fields run(field.data, field.size);
      while (good && run.next()) {
        if (run.number == 4 && run.wire == 2) good = configuration(run.data, run.size);
      }
      good = good && !run.broken;
    }
    if (!good) return false;
  }
  return !field.broken;
}

// Leaves the key of a HistoryItem or StatsItem, nested keys joined by slashes, in `name_`.
bool WandbReader::item(const std::uint8_t* data, std::size_t size, std::string* value) {
  name_.clear();
  value->clear();
  Fields field(data, size);
  while (field.next()) {
    if (field.wire != 2) continue;
    if (field.number == 1 || field.number == 2) {
      if (field.size == 0) continue;
      if (!name_.empty()) name_ += '/';
      name_.append(reinterpret_cast<const char*>(field.data), field.size);
    } else if (field.number == 16) {
      value->assign(reinterpret_cast<const char*>(field.data), field.size);
    }
  }
  return !field.broken;
}

// Reads a row and its measurements; a row that turns out broken keeps what was read of it.
bool WandbReader::history(const std::uint8_t* data, std::size_t size) {
  std::int64_t step = 0;
  double time = unknown();
  const bool good = history_items(data, size, &step, &time);
  steps.push_back(step);
  times.push_back(time);
  last_step_ = step;
  return good;
}

bool WandbReader::history_items(const std::uint8_t* data, std::size_t size, std::int64_t* step_out,
                                double* time_out) {
  std::string value;
  std::int64_t& step = *step_out;
  double& time = *time_out;
  bool stepped = false;
  double number;
  Fields field(data, size);
  while (field.next()) {
    if (field.wire != 2) continue;
    if (field.number == 2) {
      Fields inner(field.data, field.size);
      while (inner.next()) {
        if (inner.number == 1 && inner.wire == 0 && !stepped) {
          step = static_cast<std::int64_t>(inner.value);
        }
      }
      if (inner.broken) return false;
    } else if (field.number == 1) {
      if (!item(field.data, field.size, &value)) return false;
      const bool numeric = number_of(value, &number);
      if (name_ == "_step" && numeric && number > -9e15 && number < 9e15) {
        step = static_cast<std::int64_t>(number);
        stepped = true;
      } else if (name_ == "_timestamp" && numeric) {
        time = number;
      } else if (numeric) {
        add(name_, number);
      } else {
        ++skipped;
      }
    }
  }
  return !field.broken;
}

bool WandbReader::stats(const std::uint8_t* data, std::size_t size) {
  double time = unknown();
  const bool good = stats_items(data, size, &time);
  steps.push_back(last_step_);
  times.push_back(time);
  return good;
}

bool WandbReader::stats_items(const std::uint8_t* data, std::size_t size, double* time_out) {
  std::string value;
  double& time = *time_out;
  double number;
  Fields field(data, size);
  while (field.next()) {
    if (field.wire != 2) continue;
    if (field.number == 2) {
      double seconds = 0.0, nanoseconds = 0.0;
      Fields inner(field.data, field.size);
      while (inner.next()) {
        if (inner.wire != 0) continue;
        if (inner.number == 1) seconds = static_cast<double>(inner.value);
        if (inner.number == 2) nanoseconds = static_cast<double>(inner.value);
      }
      if (inner.broken) return false;
      time = seconds + nanoseconds * 1e-9;
    } else if (field.number == 3) {
      if (!item(field.data, field.size, &value)) return false;
      if (number_of(value, &number)) {
        add("system/" + name_, number);
      } else {
        ++skipped;
      }
    }
  }
  return !field.broken;
}

bool WandbReader::configuration(const std::uint8_t* data, std::size_t size) {
  std::string value;
  Fields field(data, size);
  while (field.next()) {
    if (field.number != 1 || field.wire != 2) continue;  // of an update
    if (!item(field.data, field.size, &value)) return false;
    config.emplace_back(name_, value);
  }
  return !field.broken;
}

void WandbReader::add(const std::string& name, double value) {
  const auto [found, fresh] = index_.try_emplace(name, columns.size());
  if (fresh) {
    columns.emplace_back();
    columns.back().name = name;
  }
  WandbColumn& column = columns[found->second];
  const auto row = static_cast<std::int64_t>(steps.size());
  if (!column.rows.empty() && column.rows.back() == row) {
    column.values.back() = value;  // a key twice in one record: the later one holds
    return;
  }
  column.rows.push_back(row);
  column.values.push_back(value);
}

}  // namespace mlsd
