// Statistics of a tensor as Python sees them: of the whole, or of a run of its blocks.
#pragma once

#include <cmath>
#include <cstdint>

#include "mlsd/tensor_stats.hpp"

namespace mlsd_bindings {

// What is told of the finite values: NaN where there is none.
struct Told {
  const mlsd::BlockStats &all;
  double finite;

  Told(const mlsd::BlockStats &stats, std::uint64_t size)
      : all(stats), finite(static_cast<double>(size - stats.nan - stats.posinf - stats.neginf)) {}
  double or_nan(double value) const { return finite == 0 ? std::nan("") : value; }
  double min() const { return or_nan(all.min); }
  double max() const { return or_nan(all.max); }
  double absmax() const { return or_nan(all.max > -all.min ? all.max : -all.min); }
  double mean() const { return or_nan(all.mean); }
  double std() const {
    return finite == 0 ? std::nan("")
                       : all.deviations.scale * std::sqrt(all.deviations.sum / finite);
  }
};

// Everything about a tensor, or about a run of its blocks: mergeable, see tensor_stats.hpp.
struct Stats {
  mlsd::StatsRange range;
  mlsd::BlockStats all;
  bool digested = false;

  void finish() { all = mlsd::total(range); }
  Told told() const { return {all, range.elements}; }
};

}  // namespace mlsd_bindings
