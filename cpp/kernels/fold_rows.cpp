#include "mlsd/folds.hpp"

namespace mlsd {
namespace {

bool in_range(double count, double limit) noexcept {
  return count >= 0 && count <= limit &&
         count == static_cast<double>(static_cast<long long>(count));
}
bool of_layout(double version, double layout) noexcept { return version == 0 || version == layout; }

constexpr double kMost = 9007199254740992.0;  // 2^53

bool window_valid(const double *header, std::size_t window, std::size_t batch) noexcept {
  return in_range(header[kWindowCount], static_cast<double>(window)) &&
         in_range(header[kWindowPlace], static_cast<double>(window - 1)) &&
         in_range(header[kWindowFresh], static_cast<double>(batch - 1));
}

}  // namespace

bool baseline_row_valid(const double *row, const BaselineSettings &s) noexcept {
  return of_layout(row[kBaselineVersion], kBaselineLayout) &&
         in_range(row[kBaselineRejected], kMost) &&
         window_valid(row + kBaselineHeader + s.batch, s.window, s.batch);
}

bool cusum_row_valid(const double *row, const CusumSettings &s) noexcept {
  return of_layout(row[kCusumVersion], kCusumLayout) &&
         window_valid(row + kCusumHeader, s.window, s.batch);
}

bool ewma_row_valid(const double *row) noexcept {
  return of_layout(row[kEwmaVersion], kEwmaLayout);
}

bool extrema_row_valid(const double *row) noexcept {
  return of_layout(row[kExtremaVersion], kExtremaLayout);
}

bool blocks_row_valid(const double *row) noexcept {
  return of_layout(row[kBlocksVersion], kBlocksLayout) &&
         in_range(row[kBlocksUsed], static_cast<double>(kBlocks));
}

bool rolling_row_valid(const double *row, const RollingSettings &s) noexcept {
  return of_layout(row[kRollingVersion], kRollingLayout) &&
         in_range(row[kRollingPlace], static_cast<double>(s.window - 1));
}

}  // namespace mlsd
