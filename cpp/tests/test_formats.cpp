// The parsers of untrusted bytes: known answers, then mutated and truncated input, which is only
// asked to end (the sanitizers look at how).
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "formats/delimited.hpp"
#include "formats/event_file.hpp"
#include "formats/wandb_file.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes bytes_of(const std::string &text) { return Bytes(text.begin(), text.end()); }

void put32(Bytes *out, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) out->push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

void append(Bytes *out, const Bytes &more) { out->insert(out->end(), more.begin(), more.end()); }

std::uint32_t masked(const Bytes &data) {
  const std::uint32_t crc = mlsd::crc32c(data.data(), data.size());
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8U;
}

Bytes record(const Bytes &data) {
  Bytes out;
  put32(&out, static_cast<std::uint32_t>(data.size()));
  put32(&out, 0);
  put32(&out, masked(Bytes(out.begin(), out.end())));
  append(&out, data);
  put32(&out, masked(data));
  return out;
}

Bytes field(std::uint8_t key, const Bytes &data) {
  Bytes out{key, static_cast<std::uint8_t>(data.size())};
  append(&out, data);
  return out;
}

// An event with a float in each encoding.
Bytes event(std::uint8_t step) {
  Bytes simple = field(0x0A, bytes_of("loss"));
  append(&simple, {0x15, 0, 0, 0, 0x3F});
  Bytes tensor{0x08, 0x02};
  append(&tensor, field(0x32, {0, 0, 0, 0, 0, 0, 0xE0, 0x3F}));
  Bytes other = field(0x0A, bytes_of("x"));
  append(&other, field(0x42, tensor));
  Bytes summary = field(0x0A, simple);
  append(&summary, field(0x0A, other));
  Bytes out{0x10, step};
  append(&out, field(0x2A, summary));
  return out;
}

Bytes piece(const Bytes &data) {
  Bytes typed{1};
  append(&typed, data);
  Bytes out;
  put32(&out, mlsd::crc32(0, typed.data(), typed.size()));
  out.push_back(static_cast<std::uint8_t>(data.size()));
  out.push_back(0);
  append(&out, typed);
  return out;
}

Bytes history(std::uint8_t step) {
  Bytes item = field(0x0A, bytes_of("loss"));
  append(&item, {0x82, 0x01, 3, '0', '.', '5'});
  Bytes inner = field(0x0A, item);
  append(&inner, field(0x12, {0x08, step}));
  return field(0x12, inner);
}

void known_answers() {
  const std::string text = "123456789";
  const auto *data = reinterpret_cast<const std::uint8_t *>(text.data());
  check::that(mlsd::crc32c(data, 9) == 0xE3069283U, "crc32c", __FILE__, __LINE__);
  check::that(mlsd::crc32(0, data, 9) == 0xCBF43926U, "crc32", __FILE__, __LINE__);

  mlsd::EventReader events;
  Bytes file = record(event(1));
  append(&file, record(event(2)));
  check::that(events.feed(file.data(), file.size()) == file.size(), "all used", __FILE__, __LINE__);
  check::that(events.tags.size() == 2, "two tags", __FILE__, __LINE__);
  check::that(events.tags[0].values == std::vector<double>{0.5, 0.5}, "floats", __FILE__, __LINE__);
  check::that(events.tags[1].steps == std::vector<std::int64_t>{1, 2}, "steps", __FILE__, __LINE__);

  mlsd::WandbReader wandb;
  Bytes run = bytes_of(":W&B\xE1\xBE");
  run.push_back(0);
  append(&run, piece(history(3)));
  wandb.feed(run.data(), run.size());
  check::that(wandb.columns.size() == 1 && wandb.columns[0].values[0] == 0.5, "history", __FILE__,
              __LINE__);
  check::that(wandb.steps == std::vector<std::int64_t>{3}, "its step", __FILE__, __LINE__);

  // Forgetting what was found keeps the place in the file: what follows counts from 0 again.
  events.forget();
  const Bytes more = record(event(3));
  events.feed(more.data(), more.size());
  check::that(events.tags.size() == 2 && events.tags[0].records[0] == 0, "anew", __FILE__,
              __LINE__);
  check::that(events.offset == file.size() + more.size(), "its place", __FILE__, __LINE__);
  const Bytes next = piece(history(4));
  wandb.forget();
  wandb.feed(next.data(), next.size());
  check::that(wandb.columns.size() == 1 && wandb.columns[0].rows[0] == 0, "anew", __FILE__,
              __LINE__);
  check::that(wandb.faults.empty() && wandb.steps[0] == 4, "its step", __FILE__, __LINE__);

  mlsd::DelimitedBlock block;
  const std::string csv = "1,,nan\n2,x,-inf";
  check::that(mlsd::parse_delimited(csv.data(), csv.size(), ',', 3, &block), "csv", __FILE__,
              __LINE__);
  check::that(block.rows == 2 && block.odd.size() == 1, "rows", __FILE__, __LINE__);
  check::that(!mlsd::parse_delimited(csv.data(), csv.size(), ',', 2, &block), "ragged", __FILE__,
              __LINE__);
}

// Copies of exactly their size, so that a byte read behind the end is seen.
template <typename Parse>
void mutate(const Bytes &whole, std::uint32_t seed, Parse parse) {
  std::mt19937 random(seed);
  for (int round = 0; round < 4000; ++round) {
    Bytes data = whole;
    for (auto n = random() % 6; n > 0; --n) {
      const std::size_t at = random() % data.size();
      switch (random() % 3) {
        case 0:
          data[at] = static_cast<std::uint8_t>(random());
          break;
        case 1:
          data.erase(data.begin() + static_cast<std::ptrdiff_t>(at));
          break;
        default:
          data.insert(data.begin() + static_cast<std::ptrdiff_t>(at), 0xFF);
          break;
      }
      if (data.empty()) data.push_back(0);
    }
    if (random() % 4 == 0) data.resize(random() % (data.size() + 1));
    data.shrink_to_fit();
    parse(data);
  }
}

void hostile() {
  Bytes events;
  Bytes run = bytes_of(":W&B\xE1\xBE");
  run.push_back(0);
  for (std::uint8_t i = 0; i < 6; ++i) {
    append(&events, record(event(i)));
    append(&run, piece(history(i)));
  }
  mutate(events, 1, [](const Bytes &data) {
    mlsd::EventReader reader;
    const std::size_t used = reader.feed(data.data(), data.size());
    check::that(used <= data.size(), "used", __FILE__, __LINE__);
  });
  // Messages that are broken within a frame that is whole.
  mutate(event(3), 2, [](const Bytes &data) {
    mlsd::EventReader reader;
    const Bytes framed = record(data);
    reader.feed(framed.data(), framed.size());
    check::that(reader.records == 1, "framed", __FILE__, __LINE__);
  });
  mutate(run, 3, [](const Bytes &data) {
    mlsd::WandbReader reader;
    const std::size_t half = data.size() / 2;
    reader.feed(data.data(), half);
    reader.feed(data.data() + half, data.size() - half);
    check::that(reader.offset <= data.size() + 7, "offset", __FILE__, __LINE__);
  });
  mutate(history(3), 4, [](const Bytes &data) {
    if (data.size() > 255) return;
    mlsd::WandbReader reader;
    Bytes framed = bytes_of(":W&B\xE1\xBE");
    framed.push_back(0);
    append(&framed, piece(data));
    append(&framed, piece(history(9)));
    reader.feed(framed.data(), framed.size());
    check::that(!reader.steps.empty() && reader.steps.back() == 9, "the next", __FILE__, __LINE__);
  });
  mutate(bytes_of("1,2.5e-3,nan\n-7,,1e400\n123456789012345678901,0x1,inf\n"), 5,
         [](const Bytes &data) {
           mlsd::DelimitedBlock block;
           const auto *text = reinterpret_cast<const char *>(data.data());
           if (!mlsd::parse_delimited(text, data.size(), ',', 3, &block)) return;
           for (const auto &column : block.columns) {
             check::that(static_cast<std::int64_t>(column.values.size()) <= block.rows, "cells",
                         __FILE__, __LINE__);
           }
         });
}

}  // namespace

int main() {
  known_answers();
  hostile();
  return check::done();
}
