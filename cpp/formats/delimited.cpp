#include "formats/delimited.hpp"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <system_error>

#if !defined(__cpp_lib_to_chars)
#include <clocale>
#if defined(__APPLE__)
#include <xlocale.h>
#endif
#endif

namespace mlsd {
namespace {

constexpr double kPowers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                              1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                              1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

// Every decimal: the slow and exact way.
bool parse_exact(const char* first, const char* last, double* out) {
#if defined(__cpp_lib_to_chars)
  const auto result = std::from_chars(first, last, *out);
  if (result.ptr != last) return false;
  if (result.ec == std::errc()) return true;
  // Out of range: too large is infinite, too small is nothing, as strtod has it.
#endif
  const std::string copy(first, last);
  char* end = nullptr;
#if defined(__cpp_lib_to_chars)
  *out = std::strtod(copy.c_str(), &end);
#else
  static const locale_t c_locale = newlocale(LC_ALL_MASK, "C", nullptr);
  *out = strtod_l(copy.c_str(), &end, c_locale);
#endif
  return end == copy.c_str() + copy.size();
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool is_word(const char* first, const char* last, const char* word) {
  const std::size_t size = std::strlen(word);
  if (static_cast<std::size_t>(last - first) != size) return false;
  for (std::size_t i = 0; i < size; ++i) {
    if (lower(first[i]) != word[i]) return false;
  }
  return true;
}

bool parse_word(const char* first, const char* last, bool negative, double* out) {
  if (is_word(first, last, "nan")) {
    *out = std::numeric_limits<double>::quiet_NaN();
    return true;
  }
  if (is_word(first, last, "inf") || is_word(first, last, "infinity")) {
    *out = negative ? -std::numeric_limits<double>::infinity()
                    : std::numeric_limits<double>::infinity();
    return true;
  }
  return false;
}

void put(DelimitedColumn* column, std::int64_t row, double value) {
  column->values.push_back(value);
  if (!column->dense) column->rows.push_back(row);
}

void leave_out(DelimitedColumn* column, std::int64_t row) {
  if (!column->dense) return;
  column->dense = false;
  column->rows.resize(static_cast<std::size_t>(row));
  for (std::int64_t i = 0; i < row; ++i) column->rows[static_cast<std::size_t>(i)] = i;
}

}  // namespace

// A decimal of at most 19 digits whose value and power of ten are both exact floats is one exact
// operation (Clinger, PLDI 1990); the others take the slow way.
bool parse_number(const char* first, const char* last, double* out) {
  const char* at = first;
  bool negative = false;
  if (at < last && (*at == '-' || *at == '+')) {
    negative = *at == '-';
    ++at;
  }
  const char* digits = at;
  std::uint64_t mantissa = 0;
  int count = 0;
  int exponent = 0;
  bool any = false;
  for (; at < last && *at >= '0' && *at <= '9'; ++at) {
    mantissa = mantissa * 10 + static_cast<std::uint64_t>(*at - '0');
    count += mantissa != 0;
    any = true;
    if (count > 18) return parse_exact(digits, last, out) && (*out = negative ? -*out : *out, true);
  }
  if (at < last && *at == '.') {
    for (++at; at < last && *at >= '0' && *at <= '9'; ++at) {
      mantissa = mantissa * 10 + static_cast<std::uint64_t>(*at - '0');
      count += mantissa != 0;
      --exponent;
      any = true;
      if (count > 18) {
        return parse_exact(digits, last, out) && (*out = negative ? -*out : *out, true);
      }
    }
  }
  if (!any) return parse_word(digits, last, negative, out);
  if (at < last && (*at == 'e' || *at == 'E')) {
    ++at;
    bool down = false;
    if (at < last && (*at == '-' || *at == '+')) down = *at++ == '-';
    if (at == last) return false;
    int power = 0;
    for (; at < last && *at >= '0' && *at <= '9'; ++at) {
      if (power < 100000) power = power * 10 + (*at - '0');
    }
    exponent += down ? -power : power;
  }
  if (at != last) return false;
  double value;
  if (mantissa <= (1ULL << 53) && exponent >= -22 && exponent <= 22) {
    value = static_cast<double>(mantissa);
    value = exponent < 0 ? value / kPowers[-exponent] : value * kPowers[exponent];
  } else if (mantissa == 0) {
    value = 0.0;
  } else if (!parse_exact(digits, last, &value)) {
    return false;
  }
  *out = negative ? -value : value;
  return true;
}

bool parse_delimited(const char* text, std::size_t size, char delimiter, std::size_t columns,
                     DelimitedBlock* out) {
  out->columns.assign(columns, {});
  out->odd.clear();
  out->rows = 0;
  const char* at = text;
  const char* const end = text + size;
  while (at < end) {
    const void* found = std::memchr(at, '\n', static_cast<std::size_t>(end - at));
    const char* const next = found == nullptr ? end : static_cast<const char*>(found);
    const char* line_end = next;
    if (line_end > at && line_end[-1] == '\r') --line_end;
    if (line_end == at) return false;
    std::size_t column = 0;
    for (const char* cell = at;; ++column) {
      const char* stop = cell;
      while (stop < line_end && *stop != delimiter) ++stop;
      if (column == columns) return false;
      const char* first = cell;
      const char* last = stop;
      while (first < last && (*first == ' ' || *first == '\t')) ++first;
      while (first < last && (last[-1] == ' ' || last[-1] == '\t')) --last;
      double value;
      if (first == last) {
        leave_out(&out->columns[column], out->rows);
      } else if (parse_number(first, last, &value)) {
        put(&out->columns[column], out->rows, value);
      } else {
        leave_out(&out->columns[column], out->rows);
        out->odd.push_back({out->rows, static_cast<std::int32_t>(column),
                            static_cast<std::size_t>(first - text),
                            static_cast<std::size_t>(last - text)});
      }
      if (stop == line_end) break;
      cell = stop + 1;
    }
    if (column + 1 != columns) return false;
    ++out->rows;
    if (found == nullptr) break;
    at = next + 1;
  }
  return true;
}

}  // namespace mlsd
