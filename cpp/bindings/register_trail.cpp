#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

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

}  // namespace

void register_trail(py::module_& m) {
  m.attr("TRAIL_SIZE") = static_cast<int>(mlsd::kTrailSize);
  m.def("trail_fold", &fold, py::arg("values"), py::arg("steps"), py::arg("at"),
        py::arg("row").noconvert(), py::arg("settings"),
        "Fold values[at:] into a trail row, in place, until there is a reason to look.");
}
