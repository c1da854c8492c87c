// Numbers in delimited text, a block of whole lines at a time.
//
// Input: untrusted bytes without quotes. Nothing behind `size` is read, nothing is allocated beyond
// 16 bytes per cell. Numbers are rounded correctly (to nearest, ties to even), as strtod does; nan,
// inf and infinity of either sign and in any case are numbers. An empty cell is absent. Cells that
// are neither are given back by their place, for the caller to judge.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mlsd {

struct DelimitedColumn {
  std::vector<double> values;
  std::vector<std::int64_t> rows;  // filled from the first absent cell on; see `dense`
  bool dense = true;               // every row so far has a value; `rows` is empty
};

struct OddCell {
  std::int64_t row;
  std::int32_t column;
  std::size_t start;  // offsets into the block
  std::size_t end;
};

struct DelimitedBlock {
  std::vector<DelimitedColumn> columns;
  std::vector<OddCell> odd;
  std::int64_t rows = 0;
};

// Reads one number that takes all of [first, last); false where it is none.
bool parse_number(const char* first, const char* last, double* out);

// Parses `size` bytes at `text`; the last line may lack its end. False, with `out` undefined, where
// a line does not have exactly `columns` cells (a blank line among them).
bool parse_delimited(const char* text, std::size_t size, char delimiter, std::size_t columns,
                     DelimitedBlock* out);

}  // namespace mlsd
