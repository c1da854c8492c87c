#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <utility>

#include "mlsd/trail.hpp"

namespace py = pybind11;

namespace {

template <typename T>
void require(const py::array_t<T>& array, const char* name, py::ssize_t size) {
  if (array.ndim() != 1 || (array.size() > 1 && array.strides(0) != sizeof(T))) {
    throw py::value_error(std::string(name) + " is a contiguous array of one dimension");
  }
  if (size >= 0 && array.size() != size) {
    throw py::value_error(std::string(name) + " holds " + std::to_string(size) + " values, got " +
                          std::to_string(array.size()));
  }
}

std::ptrdiff_t fold(const py::array_t<double>& values, const py::array_t<std::int64_t>& steps,
                    std::ptrdiff_t at, py::array_t<double>& row,
                    const py::array_t<double>& settings) {
  require(values, "values", -1);
  require(steps, "steps", values.size());
  require(row, "row", mlsd::kTrailSize);
  require(settings, "settings", mlsd::kSettings);
  if (at < 0 || at > values.size()) {
    throw py::index_error("at lies between 0 and " + std::to_string(values.size()) + ", got " +
                          std::to_string(at));
  }
  const double* v = values.data();
  const std::int64_t* s = steps.data();
  double* r = row.mutable_data();
  const double* set = settings.data();
  const std::ptrdiff_t n = values.size();
  py::gil_scoped_release release;
  return mlsd::trail_fold(v, s, at, n, r, set);
}

template <typename T>
void require_table(const py::array_t<T>& array, const char* name, py::ssize_t width) {
  if (array.ndim() != 2 || (array.flags() & py::array::c_style) == 0 ||
      (width >= 0 && array.shape(1) != width)) {
    throw py::value_error(std::string(name) + " is a dense array [rows, " +
                          (width < 0 ? "columns" : std::to_string(width)) + "]");
  }
}

// Indices below a limit, as many as there are columns.
const std::int64_t* require_indices(const py::array_t<std::int64_t>& array, const char* name,
                                    py::ssize_t count, py::ssize_t limit) {
  require(array, name, count);
  const std::int64_t* found = array.data();
  for (py::ssize_t i = 0; i < count; ++i) {
    if (found[i] < 0 || found[i] >= limit) {
      throw py::index_error(std::string(name) + "[" + std::to_string(i) + "] lies between 0 and " +
                            std::to_string(limit - 1) + ", got " + std::to_string(found[i]));
    }
  }
  return found;
}

std::pair<std::ptrdiff_t, std::ptrdiff_t> fold_table(
    const py::array_t<double>& values, const py::array_t<std::int64_t>& steps,
    const py::array_t<std::int64_t>& columns, const py::array_t<std::int64_t>& rows,
    const py::array_t<std::int64_t>& which, py::array_t<double>& trails,
    const py::array_t<double>& settings, std::ptrdiff_t series, std::ptrdiff_t at) {
  require_table(values, "values", -1);
  require_table(trails, "trails", mlsd::kTrailSize);
  require_table(settings, "settings", mlsd::kSettings);
  require(steps, "steps", values.shape(0));
  require(columns, "columns", -1);
  const py::ssize_t count = columns.size();
  mlsd::TrailTable table{};
  table.values = values.data();
  table.steps = steps.data();
  table.n = values.shape(0);
  table.width = values.shape(1);
  table.columns = require_indices(columns, "columns", count, table.width);
  table.rows = require_indices(rows, "rows", count, trails.shape(0));
  table.which = require_indices(which, "which", count, settings.shape(0));
  table.count = count;
  table.trails = trails.mutable_data();
  table.settings = settings.data();
  if (series < 0 || series > count || at < 0 || at > table.n) {
    throw py::index_error("series and at lie within the table, got " + std::to_string(series) +
                          " and " + std::to_string(at));
  }
  py::gil_scoped_release release;
  const mlsd::TrailPlace found = mlsd::trail_fold_table(table, {series, at});
  return {found.series, found.at};
}

}  // namespace

void register_trail(py::module_& m) {
  m.attr("TRAIL_SIZE") = static_cast<int>(mlsd::kTrailSize);
  m.def("trail_fold", &fold, py::arg("values"), py::arg("steps"), py::arg("at"),
        py::arg("row").noconvert(), py::arg("settings"),
        "Fold values[at:] into a trail row, in place, until there is a reason to look.");
  m.def("trail_fold_table", &fold_table, py::arg("values").noconvert(), py::arg("steps"),
        py::arg("columns").noconvert(), py::arg("rows").noconvert(), py::arg("which").noconvert(),
        py::arg("trails").noconvert(), py::arg("settings").noconvert(), py::arg("series"),
        py::arg("at"),
        "Fold columns of values [n, width] into rows of trails, from value `at` of the column "
        "number `series` on; return that place at the next reason to look.");
}
