// Counting and divergences on every target against plain loops.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "mlsd/distributions.hpp"
#include "mlsd/targets.hpp"

namespace {

template <typename T>
std::vector<std::uint64_t> plain_counts(const std::vector<T> &x, const std::vector<double> &cuts) {
  std::vector<std::uint64_t> counts(mlsd::bin_counts_size(cuts.size()), 0);
  for (const T v : x) {
    const double value = static_cast<double>(v);
    std::size_t bin = 0;
    if (std::isnan(value))
      bin = cuts.size() + 1;
    else if (std::isinf(value))
      bin = cuts.size() + (value < 0 ? 2 : 3);
    else
      while (bin < cuts.size() && value >= cuts[bin]) ++bin;
    ++counts[bin];
  }
  return counts;
}

template <typename T>
void test_counts(mlsd::Dtype dtype, std::mt19937_64 &random) {
  std::normal_distribution<double> normal;
  const T infinity = std::numeric_limits<T>::infinity();
  for (const std::size_t count : {0, 1, 2, 9, 64, 65, 300}) {
    for (const bool even : {false, true}) {
      std::vector<double> cuts(count);
      for (std::size_t i = 0; i < count; ++i)
        cuts[i] = even ? -2.0 + 0.37 * static_cast<double>(i) : normal(random);
      std::sort(cuts.begin(), cuts.end());
      for (const std::size_t n : {0, 1, 15, 16, 17, 2048, 2100, 7000}) {
        std::vector<T> x(n);
        for (std::size_t i = 0; i < n; ++i) {
          x[i] = static_cast<T>(3 * normal(random));
          if (count > 0 && i % 5 == 0) x[i] = static_cast<T>(cuts[random() % count]);
          if (i % 97 == 3) x[i] = std::numeric_limits<T>::quiet_NaN();
          if (i % 101 == 3) x[i] = i % 2 != 0 ? infinity : -infinity;
        }
        std::vector<float> single(count);
        const mlsd::Cuts made = mlsd::make_cuts(cuts.data(), count, single.data());
        std::vector<std::uint64_t> found(mlsd::bin_counts_size(count), 0);
        CHECK(mlsd::count_bins({x.data(), n, dtype}, made, found.data()));
        CHECK(found == plain_counts(x, cuts));
      }
    }
  }
}

void test_divergences(std::mt19937_64 &random) {
  std::uniform_real_distribution<double> uniform;
  for (std::size_t n = 1; n < 700; n += 1 + n / 9) {
    std::vector<double> p(n), q(n);
    double ps = 0, qs = 0, kl = 0, tv = 0;
    for (std::size_t i = 0; i < n; ++i) {
      p[i] = i % 7 == 3 ? 0.0 : uniform(random);
      q[i] = 5 * uniform(random) + 1e-9;
      ps += p[i];
      qs += q[i];
    }
    for (std::size_t i = 0; i < n; ++i) {
      if (p[i] > 0) kl += p[i] / ps * std::log(p[i] / ps / (q[i] / qs));
      tv += 0.5 * std::fabs(p[i] / ps - q[i] / qs);
    }
    const auto of = [&](mlsd::DivergenceKind kind) {
      return mlsd::divergence(p.data(), q.data(), n, kind);
    };
    CHECK(std::fabs(of(mlsd::DivergenceKind::kl).value - kl) < 1e-13);
    CHECK(std::fabs(of(mlsd::DivergenceKind::total_variation).value - tv) < 1e-13);
    const double js = of(mlsd::DivergenceKind::js).value;
    CHECK(js >= 0 && js <= std::log(2.0) + 1e-15);
    q[n - 1] = -1;
    CHECK(of(mlsd::DivergenceKind::kl).invalid);
    CHECK(of(mlsd::DivergenceKind::total_variation).invalid);
  }
}

void test_two_samples() {
  const double x[] = {1, 2, 2, 4}, y[] = {2, 3, 9};
  const mlsd::TwoSamples found = mlsd::two_samples(x, 4, y, 3);
  CHECK(check::close(found.ks, 0.75 - 1.0 / 3, 1e-15));
  // F: 1/4 to 2, 3/4 to 4, 1; G: 0 to 2, 1/3 to 3, 2/3 to 9.
  CHECK(
      check::close(found.wasserstein, 0.25 + (0.75 - 1.0 / 3) + (0.75 - 2.0 / 3) + 5.0 / 3, 1e-14));
}

}  // namespace

int main() {
  std::mt19937_64 random(5);
  const char *const usual = mlsd::active_target().name;
  for (std::size_t i = 0; i < mlsd::target_count(); ++i) {
    if (!mlsd::target_supported(i)) continue;
    mlsd::force_target(mlsd::target_at(i).name);
    test_counts<float>(mlsd::Dtype::f32, random);
    test_counts<double>(mlsd::Dtype::f64, random);
    test_divergences(random);
  }
  mlsd::force_target(usual);
  test_two_samples();
  return check::done();
}
