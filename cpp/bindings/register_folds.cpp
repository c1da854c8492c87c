// Folds over series: argument checks, strides, GIL release; the arithmetic is in kernels/.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "bindings/module.hpp"
#include "mlsd/folds.hpp"
#include "mlsd/series.hpp"
#include "mlsd/targets.hpp"
#include "mlsd/threads.hpp"

namespace py = pybind11;
using mlsd::FoldEvent;

namespace {

std::string shape_of(const py::array &array) {
  std::string text = "[";
  for (py::ssize_t i = 0; i < array.ndim(); ++i)
    text += (i != 0 ? ", " : "") + std::to_string(array.shape(i));
  return text + "]";
}

void require_doubles(const py::array &array, const char *name) {
  if (!py::isinstance<py::array_t<double>>(array))
    throw py::type_error(std::string(name) + ": float64 is needed, got " +
                         std::string(py::str(array.dtype())));
}

// Values of one or two dimensions as [steps, series].
struct Input {
  std::size_t steps, series;
  mlsd::SeriesView view;
  bool flat;
};

Input values_of(const py::array &values) {
  require_doubles(values, "values");
  if (values.ndim() != 1 && values.ndim() != 2)
    throw py::value_error("values: [steps] or [steps, series] is needed, got shape " +
                          shape_of(values));
  const bool flat = values.ndim() == 1;
  Input in = {};
  in.flat = flat;
  in.steps = static_cast<std::size_t>(values.shape(0));
  in.series = flat ? 1 : static_cast<std::size_t>(values.shape(1));
  // Never written: the view is shared with outputs, which are.
  in.view.data = const_cast<char *>(static_cast<const char *>(values.data()));
  in.view.step_stride = values.strides(0);
  in.view.series_stride = flat ? 0 : values.strides(1);
  return in;
}

const std::int64_t *steps_of(const py::object &steps, std::size_t count) {
  if (steps.is_none()) return nullptr;
  if (!py::isinstance<py::array_t<std::int64_t>>(steps))
    throw py::type_error("steps: an int64 array or None is needed");
  const auto array = py::reinterpret_borrow<py::array_t<std::int64_t>>(steps);
  if (array.ndim() != 1 || static_cast<std::size_t>(array.shape(0)) != count ||
      (count > 1 && array.strides(0) != sizeof(std::int64_t)))
    throw py::value_error("steps: a contiguous array of " + std::to_string(count) +
                          " is needed, got shape " + shape_of(array));
  return array.data();
}

// The rows of a state, checked; `valid` looks at one row.
template <typename Valid>
double *rows_of(py::array &state, const Input &in, std::size_t width, Valid valid) {
  require_doubles(state, "state");
  const bool one = state.ndim() == 1 && in.series == 1;
  const bool fits = one ? static_cast<std::size_t>(state.shape(0)) == width
                        : state.ndim() == 2 &&
                              static_cast<std::size_t>(state.shape(0)) == in.series &&
                              static_cast<std::size_t>(state.shape(1)) == width;
  if (!fits)
    throw py::value_error("state: shape [" + std::to_string(in.series) + ", " +
                          std::to_string(width) + "] is needed, got " + shape_of(state));
  if ((state.flags() & py::array::c_style) == 0 || !state.writeable())
    throw py::value_error("state: a writeable C-contiguous array is needed");
  double *rows = static_cast<double *>(state.mutable_data());
  for (std::size_t i = 0; i < in.series; ++i)
    if (!valid(rows + i * width))
      throw py::value_error("state: row " + std::to_string(i) +
                            " is damaged or of another layout (version field " +
                            std::to_string(rows[i * width]) + ")");
  return rows;
}

// An output laid out as the input is, so that each series is written the way it is read.
py::array_t<double> output_like(const Input &in) {
  const auto steps = static_cast<py::ssize_t>(in.steps);
  const auto series = static_cast<py::ssize_t>(in.series);
  if (in.flat) return py::array_t<double>(std::vector<py::ssize_t>{steps});
  const bool by_series = std::abs(in.view.step_stride) <= std::abs(in.view.series_stride);
  const auto item = static_cast<py::ssize_t>(sizeof(double));
  const std::vector<py::ssize_t> strides = by_series
                                               ? std::vector<py::ssize_t>{item, item * steps}
                                               : std::vector<py::ssize_t>{item * series, item};
  return py::array_t<double>(std::vector<py::ssize_t>{steps, series}, strides);
}

mlsd::SeriesView view_of(py::array_t<double> &array) {
  return {reinterpret_cast<char *>(array.mutable_data()), array.strides(0),
          array.ndim() == 2 ? array.strides(1) : 0};
}

// Events of all series; they are rare, so one lock is enough.
struct Events {
  std::mutex lock;
  std::vector<FoldEvent> list;
  bool failed = false;

  static void emit(void *context, const FoldEvent &event) {
    auto *self = static_cast<Events *>(context);
    const std::lock_guard<std::mutex> guard(self->lock);
    try {
      self->list.push_back(event);
    } catch (const std::bad_alloc &) {
      self->failed = true;
    }
  }
  py::array_t<FoldEvent> take() {
    std::stable_sort(list.begin(), list.end(), [](const FoldEvent &a, const FoldEvent &b) {
      return a.step != b.step ? a.step < b.step : a.series < b.series;
    });
    return py::array_t<FoldEvent>(static_cast<py::ssize_t>(list.size()), list.data());
  }
};

// Runs `body(series, x, steps, n, out)` over all series without the GIL.
template <typename Body>
void run(const Input &in, const std::int64_t *steps, std::vector<py::array_t<double>> &outputs,
         const std::vector<bool> &wanted, std::size_t least_chunk, Body &body) {
  mlsd::SeriesTask task = {};
  task.steps = in.steps;
  task.series = in.series;
  task.input = in.view;
  task.step_of = steps;
  task.output_count = static_cast<int>(wanted.size());
  task.least_chunk = least_chunk;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    outputs.push_back(wanted[i] ? output_like(in) : py::array_t<double>());
    if (wanted[i]) task.outputs[i] = view_of(outputs.back());
  }
  task.context = &body;
  task.fold = [](void *context, std::size_t series, const double *x, const std::int64_t *at,
                 std::size_t n,
                 double *const *out) { (*static_cast<Body *>(context))(series, x, at, n, out); };
  bool done = false;
  {
    py::gil_scoped_release release;
    done = mlsd::run_series(task);
  }
  if (!done) throw std::bad_alloc();
}

py::object or_none(const py::array_t<double> &array, bool wanted) {
  return wanted ? py::object(array) : py::object(py::none());
}

void require_window(std::size_t window, std::size_t batch) {
  if (window < 2 || window > mlsd::kMaxWindow)
    throw py::value_error("window: from 2 to " + std::to_string(mlsd::kMaxWindow) + ", got " +
                          std::to_string(window));
  if (batch < 1 || batch > window)
    throw py::value_error("batch: from 1 to window (" + std::to_string(window) + "), got " +
                          std::to_string(batch));
}

py::tuple baseline_fold(const py::array &values, py::array state, const py::object &steps,
                        std::size_t window, std::size_t batch, double warmup, bool logarithm,
                        double clip, double relearn, double floor, double relative,
                        double threshold, int side, double patience, bool want_z) {
  require_window(window, batch);
  const Input in = values_of(values);
  const std::int64_t *at = steps_of(steps, in.steps);
  const mlsd::BaselineSettings settings = {window, batch,    warmup,    logarithm, clip,    relearn,
                                           floor,  relative, threshold, side,      patience};
  const std::size_t width = mlsd::baseline_size(window, batch);
  double *rows = rows_of(
      state, in, width, [&](const double *row) { return mlsd::baseline_row_valid(row, settings); });
  Events events;
  const mlsd::FoldSink sink = {&Events::emit, &events};
  const auto kernel = mlsd::active_target().folds->baseline;
  auto body = [&](std::size_t series, const double *x, const std::int64_t *t, std::size_t n,
                  double *const *out) {
    kernel(x, t, n, static_cast<std::int64_t>(series), rows + series * width, settings, out[0],
           &sink);
  };
  std::vector<py::array_t<double>> outputs;
  run(in, at, outputs, {want_z}, 0, body);
  if (events.failed) throw std::bad_alloc();
  return py::make_tuple(or_none(outputs[0], want_z), events.take());
}

py::array_t<FoldEvent> baseline_open(py::array state, std::size_t width) {
  require_doubles(state, "state");
  if (state.ndim() != 2 || static_cast<std::size_t>(state.shape(1)) != width)
    throw py::value_error("state: shape [series, " + std::to_string(width) + "] is needed, got " +
                          shape_of(state));
  std::vector<FoldEvent> open;
  const auto rows = state.unchecked<double, 2>();
  for (py::ssize_t i = 0; i < rows.shape(0); ++i) {
    const auto field = [&](int at) { return rows(i, at); };
    const auto whole = [&](int at) { return static_cast<std::int64_t>(rows(i, at)); };
    if (field(mlsd::kRunActive) == 0) continue;
    open.push_back({i, -1, whole(mlsd::kRunFirst), whole(mlsd::kRunLast), whole(mlsd::kRunPeakStep),
                    whole(mlsd::kRunCount), field(mlsd::kRunPeak) > 0 ? 1 : -1,
                    field(mlsd::kRunPeak), field(mlsd::kRunPeakValue)});
  }
  return py::array_t<FoldEvent>(static_cast<py::ssize_t>(open.size()), open.data());
}

py::tuple cusum_fold(const py::array &values, py::array state, const py::object &steps,
                     std::size_t window, std::size_t batch, double warmup, double drift,
                     double threshold, double clip, double max_phi, double floor, double relative,
                     bool want_statistic) {
  require_window(window, batch);
  const Input in = values_of(values);
  const std::int64_t *at = steps_of(steps, in.steps);
  const mlsd::CusumSettings settings = {window, batch,   warmup, drift,   threshold,
                                        clip,   max_phi, floor,  relative};
  const std::size_t width = mlsd::cusum_size(window);
  double *rows = rows_of(state, in, width,
                         [&](const double *row) { return mlsd::cusum_row_valid(row, settings); });
  Events events;
  const mlsd::FoldSink sink = {&Events::emit, &events};
  const auto kernel = mlsd::active_target().folds->cusum;
  auto body = [&](std::size_t series, const double *x, const std::int64_t *t, std::size_t n,
                  double *const *out) {
    kernel(x, t, n, static_cast<std::int64_t>(series), rows + series * width, settings, out[0],
           &sink);
  };
  std::vector<py::array_t<double>> outputs;
  run(in, at, outputs, {want_statistic}, 0, body);
  if (events.failed) throw std::bad_alloc();
  return py::make_tuple(or_none(outputs[0], want_statistic), events.take());
}

py::tuple ewma_fold(const py::array &values, py::array state, double alpha, bool want_mean,
                    bool want_variance) {
  const Input in = values_of(values);
  double *rows = rows_of(state, in, mlsd::kEwmaSize, mlsd::ewma_row_valid);
  const auto kernel = mlsd::active_target().folds->ewma;
  auto body = [&](std::size_t series, const double *x, const std::int64_t *, std::size_t n,
                  double *const *out) {
    kernel(x, n, rows + series * mlsd::kEwmaSize, alpha, out[0], out[1]);
  };
  std::vector<py::array_t<double>> outputs;
  run(in, nullptr, outputs, {want_mean, want_variance}, 0, body);
  return py::make_tuple(or_none(outputs[0], want_mean), or_none(outputs[1], want_variance));
}

py::tuple extrema_fold(const py::array &values, py::array state, const py::object &steps,
                       double alpha, double warmup, bool want) {
  const Input in = values_of(values);
  const std::int64_t *at = steps_of(steps, in.steps);
  double *rows = rows_of(state, in, mlsd::kExtremaSize, mlsd::extrema_row_valid);
  const auto kernel = mlsd::active_target().folds->extrema;
  auto body = [&](std::size_t series, const double *x, const std::int64_t *t, std::size_t n,
                  double *const *out) {
    kernel(x, t, n, rows + series * mlsd::kExtremaSize, alpha, warmup, out[0], out[1], out[2]);
  };
  std::vector<py::array_t<double>> outputs;
  run(in, at, outputs, {want, want, want}, 0, body);
  return py::make_tuple(or_none(outputs[0], want), or_none(outputs[1], want),
                        or_none(outputs[2], want));
}

void blocks_fold(const py::array &values, py::array state, const py::object &steps) {
  const Input in = values_of(values);
  const std::int64_t *at = steps_of(steps, in.steps);
  double *rows = rows_of(state, in, mlsd::kBlocksSize, mlsd::blocks_row_valid);
  const auto kernel = mlsd::active_target().folds->blocks;
  auto body = [&](std::size_t series, const double *x, const std::int64_t *t, std::size_t n,
                  double *const *) { kernel(x, t, n, rows + series * mlsd::kBlocksSize); };
  std::vector<py::array_t<double>> outputs;
  run(in, at, outputs, {}, 0, body);
}

py::array_t<mlsd::ReplicaSpread> replica_spread(const py::array &values) {
  const Input in = values_of(values);
  if (in.flat)
    throw py::value_error("values: [steps, replicas] is needed, got shape " + shape_of(values));
  py::array_t<mlsd::ReplicaSpread> result(static_cast<py::ssize_t>(in.steps));
  mlsd::ReplicaSpread *out = result.mutable_data();
  const auto kernel = mlsd::active_target().folds->spread;
  const std::size_t n = in.series;
  const std::size_t parts =
      std::min(in.steps, static_cast<std::size_t>(std::max(mlsd::num_threads(), 1)));
  const auto odd = reinterpret_cast<std::uintptr_t>(in.view.data) |
                   static_cast<std::uintptr_t>(in.view.step_stride);
  const bool dense = in.view.series_stride == sizeof(double) && odd % alignof(double) == 0;
  const std::size_t room = dense ? n : 2 * n;
  std::vector<double> scratch(parts * room);
  {
    py::gil_scoped_release release;
    auto part = [&](std::size_t p) {
      double *mine = scratch.data() + p * room;
      for (std::size_t t = p * in.steps / parts; t < (p + 1) * in.steps / parts; ++t) {
        const char *at = in.view.data + static_cast<std::ptrdiff_t>(t) * in.view.step_stride;
        const double *row = dense ? reinterpret_cast<const double *>(at) : mine + n;
        for (std::size_t s = 0; s < n && !dense; ++s)
          std::memcpy(&mine[n + s], at + static_cast<std::ptrdiff_t>(s) * in.view.series_stride,
                      sizeof(double));
        out[t] = kernel(row, n, mine);
      }
    };
    // Threads for tens of milliseconds only: they may wait for a time slice of some.
    mlsd::parallel_for(parts, in.steps * n * sizeof(double) / 32, part);
  }
  return result;
}

py::tuple theil_sen(const py::array_t<double> &x, const py::array_t<double> &y, double z) {
  constexpr py::ssize_t kMost = 4096;  // 64 MiB of slopes
  if (x.ndim() != 1 || y.ndim() != 1 || x.shape(0) != y.shape(0))
    throw py::value_error("x and y: two arrays of one length are needed, got shapes " +
                          shape_of(x) + " and " + shape_of(y));
  if (x.shape(0) > kMost)
    throw py::value_error("x: at most " + std::to_string(kMost) + " points, got " +
                          std::to_string(x.shape(0)));
  const std::size_t n = static_cast<std::size_t>(x.shape(0));
  std::vector<double> xs(n), ys(n);
  for (std::size_t i = 0; i < n; ++i) {
    xs[i] = x.at(static_cast<py::ssize_t>(i));
    ys[i] = y.at(static_cast<py::ssize_t>(i));
    if (!std::isfinite(xs[i]) || !std::isfinite(ys[i]))
      throw py::value_error("x and y: finite values are needed, point " + std::to_string(i) +
                            " is (" + std::to_string(xs[i]) + ", " + std::to_string(ys[i]) + ")");
  }
  mlsd::SenSlope found = {};
  {
    py::gil_scoped_release release;
    found = mlsd::theil_sen(xs.data(), ys.data(), n, z);
  }
  return py::make_tuple(found.slope, found.intercept, found.low, found.high);
}

py::tuple rolling_fold(const py::array &values, py::array state, std::size_t window,
                       std::size_t min_count, unsigned stats, double ddof) {
  if (window < 1 || window > (std::size_t{1} << 17))
    throw py::value_error("window: from 1 to 131072, got " + std::to_string(window));
  if (min_count < 1 || min_count > window)
    throw py::value_error("min_count: from 1 to window, got " + std::to_string(min_count));
  const Input in = values_of(values);
  const mlsd::RollingSettings settings = {window, min_count, stats, ddof};
  const std::size_t width = mlsd::rolling_size(window);
  double *rows = rows_of(state, in, width,
                         [&](const double *row) { return mlsd::rolling_row_valid(row, settings); });
  const auto kernel = mlsd::active_target().folds->rolling;
  const std::size_t scratch_size = mlsd::rolling_scratch(window);
  // Each thread brings its scratch with it: a live step must not allocate it anew.
  std::atomic<bool> failed{false};
  auto body = [&](std::size_t series, const double *x, const std::int64_t *, std::size_t n,
                  double *const *out) {
    thread_local std::vector<double> scratch;
    try {
      if (scratch.size() < scratch_size) scratch.resize(scratch_size);
    } catch (const std::bad_alloc &) {
      failed.store(true);
      return;
    }
    if (in.series == 1)
      mlsd::fold_rolling_parts(x, n, rows, settings, out, scratch.data());
    else
      kernel(x, n, rows + series * width, settings, out, scratch.data());
  };
  std::vector<bool> wanted;
  for (int i = 0; i < mlsd::kRollingStats; ++i) wanted.push_back((stats >> i & 1u) != 0);
  std::vector<py::array_t<double>> outputs;
  run(in, nullptr, outputs, wanted, 8 * window, body);
  if (failed.load()) throw std::bad_alloc();
  py::tuple result(mlsd::kRollingStats);
  for (std::size_t i = 0; i < wanted.size(); ++i) result[i] = or_none(outputs[i], wanted[i]);
  return result;
}

}  // namespace

void register_folds(py::module_ &m) {
  PYBIND11_NUMPY_DTYPE(FoldEvent, series, step, first, last, peak_step, count, direction, statistic,
                       value);
  PYBIND11_NUMPY_DTYPE_EX(mlsd::ReplicaSpread, median, "median", deviation, "mad", low, "min", high,
                          "max", z, "z", worst, "worst", finite, "finite");
  m.attr("FOLD_EVENT") = py::dtype::of<FoldEvent>();
  m.attr("MAX_WINDOW") = static_cast<int>(mlsd::kMaxWindow);
  m.attr("EWMA_SIZE") = static_cast<int>(mlsd::kEwmaSize);
  m.attr("EXTREMA_SIZE") = static_cast<int>(mlsd::kExtremaSize);
  m.attr("BLOCKS_SIZE") = static_cast<int>(mlsd::kBlocksSize);
  m.def("baseline_size", &mlsd::baseline_size, py::arg("window"), py::arg("batch"),
        "Doubles of a state row.");
  m.def("cusum_size", &mlsd::cusum_size, py::arg("window"), "Doubles of a state row.");
  m.def("rolling_size", &mlsd::rolling_size, py::arg("window"), "Doubles of a state row.");
  m.def("baseline_fold", &baseline_fold, py::arg("values"), py::arg("state").noconvert(),
        py::arg("steps"), py::arg("window"), py::arg("batch"), py::arg("warmup"),
        py::arg("logarithm"), py::arg("clip"), py::arg("relearn"), py::arg("floor"),
        py::arg("relative"), py::arg("threshold"), py::arg("side"), py::arg("patience"),
        py::arg("want_z"), "Fold values into robust baselines, in place; z and closed runs.");
  m.def("baseline_open", &baseline_open, py::arg("state"), py::arg("width"),
        "The runs that have not ended.");
  m.def("cusum_fold", &cusum_fold, py::arg("values"), py::arg("state").noconvert(),
        py::arg("steps"), py::arg("window"), py::arg("batch"), py::arg("warmup"), py::arg("drift"),
        py::arg("threshold"), py::arg("clip"), py::arg("max_phi"), py::arg("floor"),
        py::arg("relative"), py::arg("want_statistic"),
        "Fold values into CUSUMs, in place; statistic and alarms.");
  m.def("ewma_fold", &ewma_fold, py::arg("values"), py::arg("state").noconvert(), py::arg("alpha"),
        py::arg("want_mean"), py::arg("want_variance"), "Fold values into EWMAs, in place.");
  m.def("extrema_fold", &extrema_fold, py::arg("values"), py::arg("state").noconvert(),
        py::arg("steps"), py::arg("alpha"), py::arg("warmup"), py::arg("want"),
        "Fold values into running extrema of their EWMA, in place.");
  m.def("blocks_fold", &blocks_fold, py::arg("values"), py::arg("state").noconvert(),
        py::arg("steps"), "Fold values into block means, in place.");
  m.def("replica_spread", &replica_spread, py::arg("values"),
        "Per step over replicas: median, MAD, range, the farthest one.");
  m.def("theil_sen", &theil_sen, py::arg("x"), py::arg("y"), py::arg("z"),
        "Sen's slope, intercept and interval.");
  m.def("rolling_fold", &rolling_fold, py::arg("values"), py::arg("state").noconvert(),
        py::arg("window"), py::arg("min_count"), py::arg("stats"), py::arg("ddof"),
        "Fold values into rolling statistics, in place.");
}
