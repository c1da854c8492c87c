// Spans of a buffer and of a file, for readers of files: a row of statistics for each.
#include <unistd.h>

#include <cerrno>
#include <string>

#include "bindings/module.hpp"
#include "bindings/stats.hpp"
#include "bindings/without_gil.hpp"
#include "mlsd/crc32.hpp"
#include "mlsd/targets.hpp"

namespace py = pybind11;
using mlsd_bindings::kGilBytes;
using mlsd_bindings::Stats;
using mlsd_bindings::without_gil;

namespace {

struct Span {
  std::int64_t offset, count, start, dtype;
};
struct SpanRow {
  std::uint64_t nan, posinf, neginf, zero, subnormal;
  double min, max, abs_sum, mean, squares_scale, squares_sum, deviations_scale, deviations_sum;
  std::int64_t first_nonfinite;
  std::uint64_t digest;
  std::int64_t count;
};

template <typename T>
T *rows_of(const py::buffer_info &info, const char *name, std::size_t *count) {
  const std::size_t bytes = static_cast<std::size_t>(info.size * info.itemsize);
  if (bytes % sizeof(T) != 0)
    throw py::value_error(std::string(name) + ": rows of " + std::to_string(sizeof(T)) +
                          " bytes are needed, got " + std::to_string(bytes) + " bytes");
  *count = bytes / sizeof(T);
  return static_cast<T *>(info.ptr);
}

void check_span(const Span &span, std::size_t index, std::size_t size) {
  const auto refuse = [&](const std::string &what) {
    throw py::value_error("spans[" + std::to_string(index) + "]: " + what);
  };
  if (span.dtype < 0 || static_cast<std::size_t>(span.dtype) >= mlsd::kDtypeCount)
    refuse("dtype " + std::to_string(span.dtype) + " is unknown");
  if (span.count < 0 || static_cast<std::size_t>(span.count) > mlsd::kBlock)
    refuse("count lies between 0 and " + std::to_string(mlsd::kBlock) + ", got " +
           std::to_string(span.count));
  if (span.start < 0 || span.start % 8 != 0)
    refuse("start is a multiple of 8, got " + std::to_string(span.start));
  const std::size_t bytes =
      static_cast<std::size_t>(span.count) * mlsd::item_size(static_cast<mlsd::Dtype>(span.dtype));
  if (span.offset < 0 || static_cast<std::size_t>(span.offset) > size ||
      bytes > size - static_cast<std::size_t>(span.offset))
    refuse(std::to_string(bytes) + " bytes from byte " + std::to_string(span.offset) +
           " on leave the buffer of " + std::to_string(size) + " bytes");
}

void fill(const mlsd::BlockStats &s, std::int64_t first, std::uint64_t digest, std::int64_t count,
          SpanRow *row) {
  *row = {s.nan,
          s.posinf,
          s.neginf,
          s.zero,
          s.subnormal,
          s.min,
          s.max,
          s.abs_sum,
          s.mean,
          s.squares.scale,
          s.squares.sum,
          s.deviations.scale,
          s.deviations.sum,
          first,
          digest,
          count};
}

void measure_span(const mlsd::ArrayKernels &kernels, const char *buffer, const Span &span,
                  SpanRow *row) {
  const mlsd::Dtype dtype = static_cast<mlsd::Dtype>(span.dtype);
  const std::size_t n = static_cast<std::size_t>(span.count);
  const char *data = buffer + span.offset;
  mlsd::BlockStats s;
  kernels.block_stats(data, n, dtype, &s);
  const bool bad = s.nan + s.posinf + s.neginf != 0;
  const std::size_t first = bad ? kernels.first_nonfinite(data, n, dtype) : n;
  fill(s, bad ? static_cast<std::int64_t>(first) : -1,
       kernels.digest(data, n * mlsd::item_size(dtype), static_cast<std::uint64_t>(span.start)),
       span.count, row);
}

void measure_spans(const py::buffer &buffer, const py::buffer &spans, const py::buffer &rows) {
  const py::buffer_info data = buffer.request(), from = spans.request(), into = rows.request(true);
  std::size_t count = 0, room = 0;
  const Span *first = rows_of<Span>(from, "spans", &count);
  SpanRow *out = rows_of<SpanRow>(into, "rows", &room);
  if (room != count)
    throw py::value_error("rows: " + std::to_string(count) + " are needed, got " +
                          std::to_string(room));
  const std::size_t size = static_cast<std::size_t>(data.size * data.itemsize);
  for (std::size_t i = 0; i < count; ++i) check_span(first[i], i, size);
  const mlsd::ArrayKernels &kernels = *mlsd::active_target().arrays;
  const char *base = static_cast<const char *>(data.ptr);
  without_gil(size, [&] {
    for (std::size_t i = 0; i < count; ++i) measure_span(kernels, base, first[i], &out[i]);
    return 0;
  });
}

// Bytes of one read of a file. Reads of 256 KiB, which stay in the second-level cache, took a sixth
// more processor time in all on Zen 4: the kernel's copy is faster where it is long.
constexpr std::size_t kRead = std::size_t{1} << 20;

// A block of a file, read in stretches that stay in the cache while they are looked at. 0: the row
// is written. 1: a second look at all of it is needed, as measure_spans takes. 2: the file ends
// before. Below zero: an error of the system, negated.
class FileBlock {
 public:
  // `crc`, where there is one, goes on over the bytes.
  FileBlock(int fd, std::int64_t place, const Span &span, char *buffer, std::size_t room,
            std::uint32_t *crc)
      : fd_(fd),
        place_(place),
        span_(span),
        buffer_(buffer),
        room_(room < kRead ? room : kRead),
        crc_(crc),
        sum_(crc == nullptr ? 0 : *crc) {}

  int measure(const mlsd::ArrayKernels &kernels, SpanRow *row) {
    kernels_ = &kernels;
    item_ = mlsd::item_size(static_cast<mlsd::Dtype>(span_.dtype));
    mlsd::BlockStats s;
    const bool whole = kernels.stream_stats(static_cast<std::size_t>(span_.count),
                                            static_cast<mlsd::Dtype>(span_.dtype), &FileBlock::next,
                                            &FileBlock::seen, this, &s);
    if (failure_ != 0) return failure_;
    if (crc_ != nullptr) *crc_ = sum_.value();
    if (!whole || s.nan + s.posinf + s.neginf != 0) return 1;
    fill(s, -1, digest_, span_.count, row);
    return 0;
  }

 private:
  static const void *next(void *self, std::size_t first, std::size_t count) {
    FileBlock *block = static_cast<FileBlock *>(self);
    return block->read(first * block->item_, count * block->item_);
  }

  // Statistics, digest and checksum one after the other, of as much as the first-level cache holds.
  static void seen(void *self, const void *data, std::size_t first, std::size_t count) {
    FileBlock *block = static_cast<FileBlock *>(self);
    const std::size_t bytes = count * block->item_;
    const std::uint64_t start =
        static_cast<std::uint64_t>(block->span_.start) + first * block->item_;
    unsigned char *folded = block->crc_ == nullptr ? nullptr : block->sum_.folded();
    if (folded != nullptr && bytes % 256 == 0 && block->kernels_->digest_and_fold != nullptr) {
      block->digest_ += block->kernels_->digest_and_fold(data, bytes, start, folded);
      return;
    }
    block->digest_ += block->kernels_->digest(data, bytes, start);
    if (block->crc_ != nullptr) block->sum_.add(data, bytes);
  }

  // The next piece; where it was not read yet, as many whole ones as the buffer takes.
  const void *read(std::size_t from, std::size_t bytes) {
    if (from < filled_) return buffer_ + (from - begin_);
    const std::size_t left = static_cast<std::size_t>(span_.count) * item_ - from;
    const std::size_t most = room_ / bytes * bytes;  // of the last one, bytes == left
    const std::size_t wanted = left < most ? left : most;
    for (std::size_t done = 0; done < wanted;) {
      const ssize_t got = pread(fd_, buffer_ + done, wanted - done,
                                static_cast<off_t>(place_) + static_cast<off_t>(from + done));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) {
        failure_ = got == 0 ? 2 : -errno;
        return nullptr;
      }
      done += static_cast<std::size_t>(got);
    }
    begin_ = from;
    filled_ = from + wanted;
    return buffer_;
  }

  int fd_;
  std::int64_t place_;
  Span span_;
  char *buffer_;
  std::size_t room_, begin_ = 0, filled_ = 0;  // of the block, what the buffer holds
  std::uint32_t *crc_;
  mlsd::Crc32 sum_;
  const mlsd::ArrayKernels *kernels_ = nullptr;
  std::size_t item_ = 1;
  std::uint64_t digest_ = 0;
  int failure_ = 0;
};

int measure_file(int fd, std::int64_t place, const py::buffer &span, const py::buffer &buffer,
                 const py::buffer &row, const py::object &crc) {
  const py::buffer_info from = span.request(), room = buffer.request(true),
                        into = row.request(true);
  std::size_t spans = 0, rows = 0;
  const Span *one = rows_of<Span>(from, "span", &spans);
  SpanRow *out = rows_of<SpanRow>(into, "row", &rows);
  if (spans != 1 || rows != 1) throw py::value_error("span and row: one of each is needed");
  if (place < 0) throw py::value_error("place is at least 0, got " + std::to_string(place));
  check_span(*one, 0, SIZE_MAX);
  const std::size_t item = mlsd::item_size(static_cast<mlsd::Dtype>(one->dtype));
  const std::size_t held = static_cast<std::size_t>(room.size * room.itemsize);
  if (held < mlsd::kPiece * item)
    throw py::value_error("buffer: " + std::to_string(mlsd::kPiece * item) +
                          " bytes are needed, got " + std::to_string(held));
  const mlsd::ArrayKernels &kernels = *mlsd::active_target().arrays;
  std::uint32_t *sum = nullptr;
  py::buffer_info sums;
  if (!crc.is_none()) {
    std::size_t count = 0;
    sums = py::cast<py::buffer>(crc).request(true);
    sum = rows_of<std::uint32_t>(sums, "crc", &count);
    if (count != 1) throw py::value_error("crc: one is needed, got " + std::to_string(count));
  }
  FileBlock block(fd, place, *one, static_cast<char *>(room.ptr), held, sum);
  return without_gil(kGilBytes, [&] { return block.measure(kernels, out); });
}

std::uint32_t crc32_of(const py::buffer &data, std::uint32_t value) {
  const py::buffer_info info = data.request();
  if (PyBuffer_IsContiguous(info.view(), 'C') == 0)
    throw py::value_error("data: bytes in one piece are needed");
  const std::size_t bytes = static_cast<std::size_t>(info.size * info.itemsize);
  return without_gil(bytes, [&] { return mlsd::crc32(value, info.ptr, bytes); });
}

// The rows of one tensor, in order; all but the last are whole blocks.
Stats combine_rows(const py::buffer &rows) {
  const py::buffer_info info = rows.request();
  std::size_t count = 0;
  const SpanRow *row = rows_of<SpanRow>(info, "rows", &count);
  Stats stats;
  stats.digested = true;
  for (std::size_t i = 0; i < count; ++i) {
    const SpanRow &r = row[i];
    mlsd::StatsRange one;
    one.start = stats.range.elements;
    one.elements = static_cast<std::uint64_t>(r.count);
    one.digest = r.digest;
    mlsd::StatsNode node;
    node.elements = one.elements;
    node.index = one.start / mlsd::kBlock;
    node.stats.nan = r.nan;
    node.stats.posinf = r.posinf;
    node.stats.neginf = r.neginf;
    node.stats.zero = r.zero;
    node.stats.subnormal = r.subnormal;
    node.stats.min = r.min;
    node.stats.max = r.max;
    node.stats.abs_sum = r.abs_sum;
    node.stats.mean = r.mean;
    node.stats.squares = {r.squares_scale, r.squares_sum};
    node.stats.deviations = {r.deviations_scale, r.deviations_sum};
    one.nodes.push_back(node);
    if (!mlsd::append(&stats.range, one))
      throw py::value_error("rows[" + std::to_string(i) + "]: the one before holds " +
                            std::to_string(row[i - 1].count) + " elements, not a whole block of " +
                            std::to_string(mlsd::kBlock));
  }
  stats.finish();
  return stats;
}

}  // namespace

void register_spans(py::module_ &m) {
  m.def("measure_spans", &measure_spans, py::arg("buffer"), py::arg("spans"), py::arg("rows"),
        "Write the statistics, first non-finite place and digest of spans of a buffer into rows.");
  m.def("measure_file", &measure_file, py::arg("fd"), py::arg("place"), py::arg("span"),
        py::arg("buffer"), py::arg("row"), py::arg("crc") = py::none(),
        "Read a span of a file piece by piece into a buffer and write its row; 0 where that is "
        "done, 1 where measure_spans has to see it whole, 2 where the file ends before, else an "
        "errno, negated.");
  m.def("crc32", &crc32_of, py::arg("data"), py::arg("value") = 0u,
        "Return the CRC-32 of bytes that follow others whose CRC-32 is `value`.");
  m.def("crc32_combine", &mlsd::crc32_combine, py::arg("first"), py::arg("second"),
        py::arg("second_bytes"), "Return the CRC-32 of two stretches, one behind the other.");
  m.attr("PIECE") = static_cast<std::size_t>(mlsd::kPiece);
  m.def("combine_rows", &combine_rows, py::arg("rows"),
        "Return the statistics of a tensor from the rows of its blocks, in order.");
}
