// Kernels over distributions: counting into bins, divergences between histograms, two samples.
//
// Counting  every element is compared with the cuts themselves; a product only guesses the bin, and
//           where it comes near a cut the guess is not trusted. Counts are exact and merge by
//           addition. Elements of 32 bits or less are compared as floats, others as doubles
//           (integers beyond 2^53 are rounded).
// NaN rule  NaN and the infinities have counts of their own.
// Sums      of divergences in doubles, several lanes; logarithms of ratios to about one ulp, also
//           where the ratio is near 1.
#pragma once

#include <cstddef>
#include <cstdint>

#include "mlsd/dtypes.hpp"
#include "mlsd/tensor_stats.hpp"

namespace mlsd {

// Cuts c[0] < c[1] < ... of the real line: below c[0] is bin 0, from c[i] on is bin i + 1.
struct Cuts {
  const double *exact;
  const float *single;  // rounded up, so that x >= single[i] where x >= exact[i], x being a float
  std::size_t count;
  // Where the cuts lie (almost) evenly: bin = 1 + floor((x - low) * scale), to be trusted where it
  // is not within `slack` of a whole number. A slack of 1 for never.
  double low, scale, slack;
  float low_single, scale_single, slack_single;
};

// Behind the count + 1 bins: NaN, -infinity, +infinity.
constexpr std::size_t bin_counts_size(std::size_t cuts) noexcept { return cuts + 4; }
// Doubles of scratch that one call needs.
constexpr std::size_t bin_scratch(std::size_t cuts) noexcept { return 2 * (cuts + 2) + 8192; }

enum class DivergenceKind : int { kl, js, psi, total_variation };

struct DivergenceSum {
  double sum = 0;        // of the terms of p * p_scale and q * q_scale, in nats
  double p = 0, q = 0;   // sums as given
  bool invalid = false;  // a negative value, NaN or infinity was met
};

struct DistributionKernels {
  // Adds to counts[bin_counts_size(cuts.count)].
  void (*count)(const void *data, std::size_t n, Dtype dtype, const Cuts &cuts,
                std::uint64_t *counts, double *scratch);
  DivergenceSum (*divergence)(const double *p, const double *q, std::size_t n, double p_scale,
                              double q_scale, DivergenceKind kind);
};

// Cuts from `count` ascending numbers; `single` is memory for as many floats, and both must live
// on.
Cuts make_cuts(const double *cuts, std::size_t count, float *single) noexcept;

// Adds the counts of an array, on several threads; false where memory ran out.
bool count_bins(ArrayRef array, const Cuts &cuts, std::uint64_t *counts) noexcept;

struct Divergence {
  double value;  // in nats
  double p, q;   // sums
  bool invalid;
};
// Of two histograms with any sums; p and q are scaled to 1. Zero bins: a bin empty in both says
// nothing; empty in one is infinite for KL (where it is q) and PSI, finite for JS and TV.
Divergence divergence(const double *p, const double *q, std::size_t n,
                      DivergenceKind kind) noexcept;

// Two samples, sorted ascending, without NaN: largest distance between the empirical distribution
// functions (Kolmogorov-Smirnov) and the area between them (Wasserstein-1).
struct TwoSamples {
  double ks, wasserstein;
};
TwoSamples two_samples(const double *x, std::size_t n, const double *y, std::size_t m) noexcept;
// The same for masses p and q at ascending places; p and q are scaled to 1.
TwoSamples two_histograms(const double *p, const double *q, const double *places,
                          std::size_t n) noexcept;

}  // namespace mlsd
