#include <algorithm>
#include <cmath>

#include "mlsd/distributions.hpp"
#include "mlsd/targets.hpp"

namespace mlsd {

namespace {

constexpr double kLeastSum = 0x1p-1022;  // the reciprocal of less is infinite

double sum_of(const double *x, std::size_t n) noexcept {
  double sum[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (std::size_t k = 0; k < 8; ++k) sum[k] += x[i + k];
  for (; i < n; ++i) sum[i % 8] += x[i];
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

}  // namespace

Divergence divergence(const double *p, const double *q, std::size_t n,
                      DivergenceKind kind) noexcept {
  const auto kernel = active_target().distributions->divergence;
  Divergence out = {0, 0, 0, false};
  if (kind == DivergenceKind::kl) {
    // Mostly one pass: KL of the scaled ones is the sum over P, less log(P / Q). Where that takes
    // most of it away again, a second pass scales first.
    const DivergenceSum first = kernel(p, q, n, 1.0, 1.0, kind);
    out.p = first.p;
    out.q = first.q;
    out.invalid = first.invalid;
    if (first.invalid || !(first.p >= kLeastSum) || !(first.q >= kLeastSum)) return out;
    const double away = std::log(first.p / first.q);
    out.value = first.sum / first.p - away;
    // Terms of very large or small values overflow, or lose their digits.
    const bool extreme = !std::isfinite(first.sum) || !(first.p > 1e-200);
    if (extreme || !(std::fabs(away) <= 0.5 * std::fabs(out.value))) {
      const DivergenceSum second = kernel(p, q, n, 1.0 / first.p, 1.0 / first.q, kind);
      // Neither sum is exactly 1; to first order the difference cancels here.
      out.value = second.sum - (second.p / first.p - second.q / first.q);
      out.invalid = second.invalid;
    }
    if (out.value < 0) out.value = 0;
    return out;
  }
  out.p = sum_of(p, n);
  out.q = sum_of(q, n);
  const bool usable =
      out.p >= kLeastSum && out.q >= kLeastSum && std::isfinite(out.p) && std::isfinite(out.q);
  const DivergenceSum found =
      kernel(p, q, n, usable ? 1.0 / out.p : 1.0, usable ? 1.0 / out.q : 1.0, kind);
  out.invalid = found.invalid || !(std::isfinite(out.p) && std::isfinite(out.q));
  out.value = found.sum < 0 ? 0 : found.sum;
  return out;
}

TwoSamples two_samples(const double *x, std::size_t n, const double *y, std::size_t m) noexcept {
  TwoSamples out = {0, 0};
  const double a = 1.0 / static_cast<double>(n), b = 1.0 / static_cast<double>(m);
  std::size_t i = 0, j = 0;
  double at = std::min(x[0], y[0]);
  while (i < n || j < m) {
    const double next = j == m || (i < n && x[i] <= y[j]) ? x[i] : y[j];
    const double apart = std::fabs(static_cast<double>(i) * a - static_cast<double>(j) * b);
    out.wasserstein += next > at ? apart * (next - at) : 0.0;
    at = next;
    while (i < n && x[i] == next) ++i;
    while (j < m && y[j] == next) ++j;
    out.ks = std::max(out.ks, std::fabs(static_cast<double>(i) * a - static_cast<double>(j) * b));
  }
  return out;
}

TwoSamples two_histograms(const double *p, const double *q, const double *places,
                          std::size_t n) noexcept {
  TwoSamples out = {0, 0};
  const double a = 1.0 / sum_of(p, n), b = 1.0 / sum_of(q, n);
  double apart = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (i > 0) out.wasserstein += std::fabs(apart) * (places[i] - places[i - 1]);
    apart += p[i] * a - q[i] * b;
    out.ks = std::max(out.ks, std::fabs(apart));
  }
  return out;
}

}  // namespace mlsd
