// Folds over series on every target: any cut gives the same bits, damaged rows are survived.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "mlsd/folds.hpp"
#include "mlsd/series.hpp"
#include "mlsd/targets.hpp"

namespace {

using Row = std::vector<double>;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Log {
  std::vector<mlsd::FoldEvent> events;
  static void emit(void *context, const mlsd::FoldEvent &event) {
    static_cast<Log *>(context)->events.push_back(event);
  }
};

std::vector<double> noise(std::mt19937_64 &random, std::size_t n, double bad) {
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  std::vector<double> x(n);
  for (double &v : x) {
    v = std::round(normal(random) * 8) / 8;
    if (uniform(random) < bad) v = uniform(random) < 0.5 ? kNan : kInfinity;
  }
  return x;
}

bool same(const std::vector<double> &a, const std::vector<double> &b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

// Runs `fold(x, n, row, out)` whole and cut at random places; both must agree bit for bit.
template <typename Fold>
void check_cuts(std::mt19937_64 &random, std::size_t width, double bad, Fold fold) {
  for (int round = 0; round < 30; ++round) {
    const std::size_t n = 1 + random() % 400;
    const std::vector<double> x = noise(random, n, bad);
    Row whole(width, 0.0), parts(width, 0.0);
    std::vector<double> a(6 * n, 0.0), b(6 * n, 0.0);
    fold(x.data(), n, whole.data(), a.data(), n);
    for (std::size_t at = 0; at < n;) {
      const std::size_t some = std::min<std::size_t>(n - at, 1 + random() % 50);
      fold(x.data() + at, some, parts.data(), b.data() + at, n);
      at += some;
    }
    CHECK(same(whole, parts));
    CHECK(same(a, b));
  }
}

void test_cuts(const mlsd::FoldKernels &k, double bad) {
  std::mt19937_64 random(7);
  Log log;
  const mlsd::FoldSink sink = {&Log::emit, &log};
  const mlsd::BaselineSettings baseline = {20, 6, 5, false, 3.0, 4, 0, 1e-9, 2.0, 0, 2};
  check_cuts(random, mlsd::baseline_size(20, 6), bad,
             [&](const double *x, std::size_t n, double *row, double *out, std::size_t) {
               k.baseline(x, nullptr, n, 0, row, baseline, out, &sink);
             });
  const mlsd::CusumSettings cusum = {20, 6, 8, 0.5, 2.0, 3.0, 0.98, 0, 1e-9};
  check_cuts(random, mlsd::cusum_size(20), bad,
             [&](const double *x, std::size_t n, double *row, double *out, std::size_t) {
               k.cusum(x, nullptr, n, 0, row, cusum, out, &sink);
             });
  CHECK(!log.events.empty());
  for (const std::size_t window : {1, 2, 7, 32, 33, 90}) {
    const mlsd::RollingSettings rolling = {window, std::max<std::size_t>(1, window / 2), 63, 1.0};
    std::vector<double> scratch(mlsd::rolling_scratch(window));
    check_cuts(random, mlsd::rolling_size(window), bad,
               [&](const double *x, std::size_t n, double *row, double *out, std::size_t stride) {
                 double *const outs[6] = {out,
                                          out + stride,
                                          out + 2 * stride,
                                          out + 3 * stride,
                                          out + 4 * stride,
                                          out + 5 * stride};
                 k.rolling(x, n, row, rolling, outs, scratch.data());
               });
  }
  check_cuts(random, mlsd::kBlocksSize, bad,
             [&](const double *x, std::size_t n, double *row, double *, std::size_t) {
               k.blocks(x, nullptr, n, row);
             });
}

void test_baseline_by_sorting(const mlsd::FoldKernels &k) {
  std::mt19937_64 random(3);
  const std::size_t window = 37, batch = 5;
  const mlsd::BaselineSettings settings = {window, batch, 2,         false, kInfinity, 9,
                                           0,      0,     kInfinity, 0,     1.0};
  const std::vector<double> x = noise(random, 1000, 0.0);
  Row row(mlsd::baseline_size(window, batch), 0.0);
  const double *header = row.data() + mlsd::kBaselineHeader + batch;
  for (std::size_t i = 0; i < x.size(); ++i) {
    k.baseline(&x[i], nullptr, 1, 0, row.data(), settings, nullptr, nullptr);
    if ((i + 1) % batch != 0) continue;
    const std::size_t n = std::min(i + 1, window);
    std::vector<double> last(x.begin() + static_cast<std::ptrdiff_t>(i + 1 - n),
                             x.begin() + static_cast<std::ptrdiff_t>(i + 1));
    const auto median = [&] {
      std::sort(last.begin(), last.end());
      return n % 2 != 0 ? last[n / 2] : 0.5 * (last[n / 2 - 1] + last[n / 2]);
    };
    const double middle = median();
    CHECK(header[mlsd::kWindowMedian] == middle);
    for (double &v : last) v = std::fabs(v - middle);
    CHECK(check::close(header[mlsd::kWindowDeviation], 1.4826022185056018 * median(), 1e-15));
  }
}

void test_damaged_rows(const mlsd::FoldKernels &k) {
  std::mt19937_64 random(11);
  Log log;
  const mlsd::FoldSink sink = {&Log::emit, &log};
  const double odd[] = {kNan, kInfinity, -kInfinity, -1.0, 0.5, 1e18, 1e308, 7.0, 63.0};
  const mlsd::BaselineSettings baseline = {32, 8, 5, false, 3.0, 4, 0, 1e-9, 2.0, 0, 2};
  const mlsd::CusumSettings cusum = {32, 8, 8, 0.5, 2.0, 3.0, 0.98, 0, 1e-9};
  const mlsd::RollingSettings rolling = {24, 3, 63, 0.0};
  std::vector<double> scratch(mlsd::rolling_scratch(24)), out(6 * 300);
  double *const outs[6] = {&out[0], &out[300], &out[600], &out[900], &out[1200], &out[1500]};
  for (int round = 0; round < 3000; ++round) {
    const std::vector<double> x = noise(random, 300, 0.01);
    Row a(mlsd::baseline_size(32, 8), 0.0), b(mlsd::cusum_size(32), 0.0);
    Row c(mlsd::rolling_size(24), 0.0), d(mlsd::kBlocksSize, 0.0);
    const std::size_t before = random() % 100;
    for (const bool damaged : {false, true}) {
      const std::size_t n = damaged ? x.size() : before;
      if (damaged)
        for (Row *row : {&a, &b, &c, &d})
          for (int i = 0; i < 4; ++i)
            (*row)[1 + random() % (row->size() - 1)] = odd[random() % (sizeof odd / sizeof *odd)];
      if (mlsd::baseline_row_valid(a.data(), baseline))
        k.baseline(x.data(), nullptr, n, 0, a.data(), baseline, out.data(), &sink);
      if (mlsd::cusum_row_valid(b.data(), cusum))
        k.cusum(x.data(), nullptr, n, 0, b.data(), cusum, out.data(), &sink);
      if (mlsd::rolling_row_valid(c.data(), rolling))
        k.rolling(x.data(), n, c.data(), rolling, outs, scratch.data());
      if (mlsd::blocks_row_valid(d.data())) k.blocks(x.data(), nullptr, n, d.data());
    }
  }
  CHECK(!log.events.empty());
}

// A long history in parts on several threads and the same in small calls: the same bits.
void test_parts() {
  std::mt19937_64 random(11);
  const std::size_t window = 21, n = 150000, step = 9973;
  const std::vector<double> x = noise(random, n, 1e-4);
  const mlsd::RollingSettings settings = {window, 1, 63, 0.0};
  std::vector<double> scratch(mlsd::rolling_scratch(window)), whole(6 * n), cut(6 * n);
  Row a(mlsd::rolling_size(window), 0.0), b = a;
  const auto fold = [&](std::size_t at, std::size_t count, Row *row, std::vector<double> *to) {
    double *out[6];
    for (std::size_t i = 0; i < 6; ++i) out[i] = to->data() + i * n + at;
    mlsd::fold_rolling_parts(x.data() + at, count, row->data(), settings, out, scratch.data());
  };
  fold(0, 5, &a, &whole);
  fold(5, n - 5, &a, &whole);
  for (std::size_t at = 0; at < n; at += step) fold(at, std::min(step, n - at), &b, &cut);
  CHECK(std::memcmp(whole.data(), cut.data(), whole.size() * sizeof(double)) == 0);
  CHECK(std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

void test_slope() {
  const double x[] = {0, 1, 2, 3, 4}, y[] = {1, 3, 5, 7, 100};
  const mlsd::SenSlope found = mlsd::theil_sen(x, y, 5, 1.96);
  CHECK(found.slope == 2.0);
  CHECK(found.low <= found.slope && found.slope <= found.high);
  CHECK(std::isnan(mlsd::theil_sen(x, y, 1, 1.96).slope));
}

}  // namespace

int main() {
  for (std::size_t i = 0; i < mlsd::target_count(); ++i) {
    if (!mlsd::target_supported(i)) continue;
    const mlsd::FoldKernels &kernels = *mlsd::target_at(i).folds;
    test_cuts(kernels, 0.0);
    test_cuts(kernels, 0.1);
    test_baseline_by_sorting(kernels);
    test_damaged_rows(kernels);
  }
  test_parts();
  test_slope();
  return check::done();
}
