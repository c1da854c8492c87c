// Scalars in TensorBoard event files: TFRecord framing, masked CRC-32C, `Event` messages.
//
// Input: untrusted bytes. Every length is checked against what is there before it is used; memory
// grows with the measurements found (32 bytes each) and never with a length that the file states.
// Nothing is recursive. Both encodings of a scalar are read (`simple_value`, and a tensor of one
// number), a histogram or a larger tensor gives its minimum, maximum, mean and standard deviation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace mlsd {

struct EventTag {
  std::string name;
  std::vector<std::int64_t> records;  // number of the record in the file, from 0
  std::vector<std::int64_t> steps;
  std::vector<double> times;  // seconds since the epoch
  std::vector<double> values;
};

enum class EventDamage { none, length_checksum, data_checksum, message };

struct EventFault {
  EventDamage kind;
  std::uint64_t offset;  // of the record in the file
};

// A file is given in pieces; what is incomplete at the end of one is kept by the caller and given
// again at the head of the next.
class EventReader {
 public:
  // Reads the whole records among `size` bytes; returns how many bytes they take. After a damaged
  // length nothing more can be read: `stopped` is then set.
  std::size_t feed(const std::uint8_t* data, std::size_t size);

  // Forgets what was found; the place in the file is kept, records count from 0 again.
  void forget();

  std::vector<EventTag> tags;
  std::vector<EventFault> faults;
  std::uint64_t offset = 0;  // of the next record
  std::int64_t records = 0;
  std::int64_t skipped = 0;  // values that are no numbers: text, images, audio, graphs
  std::uint64_t wanted = 0;  // bytes of the record that is incomplete, 0 where unknown
  bool stopped = false;

 private:
  bool event(const std::uint8_t* data, std::size_t size);
  bool summary_value(const std::uint8_t* data, std::size_t size, std::int64_t step, double time);
  void add(const std::string& name, std::int64_t step, double time, double value);

  std::unordered_map<std::string, std::size_t> index_;
  std::string name_;  // scratch
};

// CRC-32C (Castagnoli), as RFC 3720 has it.
std::uint32_t crc32c(const std::uint8_t* data, std::size_t size);

}  // namespace mlsd
