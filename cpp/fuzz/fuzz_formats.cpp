// Coverage-guided fuzzing of the parsers of untrusted bytes, under the sanitizers (libFuzzer).
//
// The first byte chooses the parser, the second how the rest is cut into pieces. Beside what the
// sanitizers see, a file read in pieces must give what it gives when it is read at once.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "formats/delimited.hpp"
#include "formats/event_file.hpp"
#include "formats/wandb_file.hpp"

namespace {

void hold(bool good) {
  if (!good) std::abort();
}

bool same(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * 8) == 0);
}

// As the bindings do it: what is incomplete waits for the next piece.
void feed_in_pieces(mlsd::EventReader* reader, const std::uint8_t* data, std::size_t size,
                    std::size_t piece) {
  std::vector<std::uint8_t> waiting;
  for (std::size_t at = 0; at < size && !reader->stopped; at += piece) {
    const std::size_t count = std::min(piece, size - at);
    waiting.insert(waiting.end(), data + at, data + at + count);
    const std::size_t used = reader->feed(waiting.data(), waiting.size());
    hold(used <= waiting.size());
    waiting.erase(waiting.begin(), waiting.begin() + static_cast<std::ptrdiff_t>(used));
  }
}

void events(const std::uint8_t* data, std::size_t size, std::size_t piece) {
  mlsd::EventReader whole, cut;
  hold(whole.feed(data, size) <= size);
  feed_in_pieces(&cut, data, size, piece);
  hold(whole.tags.size() == cut.tags.size() && whole.faults.size() == cut.faults.size());
  hold(whole.records == cut.records && whole.skipped == cut.skipped);
  for (std::size_t i = 0; i < whole.tags.size(); ++i) {
    const mlsd::EventTag &a = whole.tags[i], &b = cut.tags[i];
    hold(a.name == b.name && a.steps == b.steps && a.records == b.records);
    hold(same(a.values, b.values) && same(a.times, b.times));
    hold(a.steps.size() == a.values.size() && a.steps.size() == a.times.size());
  }
}

void wandb(const std::uint8_t* data, std::size_t size, std::size_t piece) {
  mlsd::WandbReader whole, cut;
  whole.feed(data, size);
  for (std::size_t at = 0; at < size; at += piece) cut.feed(data + at, std::min(piece, size - at));
  hold(whole.columns.size() == cut.columns.size() && whole.steps == cut.steps);
  hold(whole.faults == cut.faults && whole.waiting() == cut.waiting());
  hold(whole.waiting() <= size);
  for (std::size_t i = 0; i < whole.columns.size(); ++i) {
    hold(whole.columns[i].rows == cut.columns[i].rows);
    hold(same(whole.columns[i].values, cut.columns[i].values));
    for (const std::int64_t row : whole.columns[i].rows)
      hold(row >= 0 && static_cast<std::size_t>(row) < whole.steps.size());
  }
}

void delimited(const std::uint8_t* data, std::size_t size, std::size_t choice) {
  const char* text = reinterpret_cast<const char*>(data);
  const char delimiter = ",;\t|"[choice % 4];
  const std::size_t columns = 1 + choice / 4 % 8;
  mlsd::DelimitedBlock block;
  if (!mlsd::parse_delimited(text, size, delimiter, columns, &block)) return;
  hold(block.columns.size() == columns && block.rows >= 0);
  for (const mlsd::DelimitedColumn& column : block.columns) {
    hold(column.values.size() <= static_cast<std::size_t>(block.rows));
    hold(column.dense || column.rows.size() == column.values.size());
  }
  for (const mlsd::OddCell& cell : block.odd)
    hold(cell.start <= cell.end && cell.end <= size && cell.row < block.rows &&
         static_cast<std::size_t>(cell.column) < columns);
}

// A number is what strtod reads, to the last bit.
void number(const std::uint8_t* data, std::size_t size) {
  std::vector<char> text(data, data + size);
  double value = 0;
  if (!mlsd::parse_number(text.data(), text.data() + size, &value)) return;
  text.push_back('\0');
  char* end = nullptr;
  const double expected = std::strtod(text.data(), &end);
  hold(end == text.data() + size);
  hold(value == expected || (std::isnan(value) && std::isnan(expected)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  // A copy that ends where the input ends: a byte read too far is seen.
  const std::vector<std::uint8_t> rest(data + 2, data + size);
  const std::size_t piece = 1 + data[1];
  switch (data[0] % 4) {
    case 0:
      events(rest.data(), rest.size(), piece);
      break;
    case 1:
      wandb(rest.data(), rest.size(), piece);
      break;
    case 2:
      delimited(rest.data(), rest.size(), data[1]);
      break;
    default:
      number(rest.data(), rest.size());
      break;
  }
  return 0;
}
