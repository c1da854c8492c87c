// Offline W&B run files: a LevelDB-style log of 32 KiB blocks that holds `Record` messages.
//
// Input: untrusted bytes. Every length is checked against what is there; memory grows with the
// numbers found (16 bytes each) and with one record, which is as long as its pieces in the file.
// A piece whose checksum is wrong costs the rest of its block and the record it belongs to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mlsd {

struct WandbColumn {
  std::string name;
  std::vector<std::int64_t> rows;
  std::vector<double> values;
};

class WandbReader {
 public:
  void feed(const std::uint8_t* data, std::size_t size);
  // Forgets what was found; the place in the file is kept, rows count from 0 again.
  void forget();
  std::size_t waiting() const { return waiting_.size() + (in_record_ ? record_.size() : 0); }

  std::vector<WandbColumn> columns;
  std::vector<std::int64_t> steps;  // of every row: a record of history or of system metrics
  std::vector<double> times;        // seconds since the epoch, NaN where unknown
  std::vector<std::pair<std::string, std::string>> config;
  std::vector<std::uint64_t> faults;  // offsets of damaged pieces and records
  std::int64_t skipped = 0;           // values that are no numbers
  std::uint64_t offset = 0;           // of the next piece

 private:
  bool record(const std::uint8_t* data, std::size_t size);
  bool history(const std::uint8_t* data, std::size_t size);
  bool history_items(const std::uint8_t* data, std::size_t size, std::int64_t* step, double* time);
  bool stats(const std::uint8_t* data, std::size_t size);
  bool stats_items(const std::uint8_t* data, std::size_t size, double* time);
  bool configuration(const std::uint8_t* data, std::size_t size);
  bool item(const std::uint8_t* data, std::size_t size, std::string* value);
  void add(const std::string& name, double value);

  std::unordered_map<std::string, std::size_t> index_;
  std::vector<std::uint8_t> waiting_;
  std::vector<std::uint8_t> record_;
  bool in_record_ = false;
  bool started_ = false;
  std::size_t skip_ = 0;  // bytes of a damaged block still to be passed over
  std::int64_t last_step_ = 0;
  std::string name_;  // scratch
};

// CRC-32 (IEEE 802.3), as zlib has it.
std::uint32_t crc32(std::uint32_t crc, const std::uint8_t* data, std::size_t size);

}  // namespace mlsd
