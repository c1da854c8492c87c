// Where magnitudes lie.
#include <array>
#include <vector>

#include <pybind11/numpy.h>

#include "bindings/array_input.hpp"
#include "bindings/module.hpp"

namespace py = pybind11;
using mlsd_bindings::Input;

namespace {

Input read(const py::object &x, const py::object &dtype) {
  Input input;
  if (!mlsd_bindings::read_input(x.ptr(), dtype.ptr(), &input)) throw py::error_already_set();
  return input;
}

// (counts by biased exponent, the bias): of a double for 64-bit types, of a float for all others.
py::tuple exponent_counts(const py::object &x, const py::object &dtype) {
  const Input input = read(x, dtype);
  const bool wide = mlsd::has_double_lanes(input.array.dtype);
  py::array_t<std::uint64_t> counts(wide ? 2048 : 256);
  std::vector<std::uint64_t> found(mlsd::kExponents, 0);
  {
    py::gil_scoped_release released;
    mlsd::exponent_counts(input.array, found.data());
  }
  std::copy_n(found.begin(), counts.size(), counts.mutable_data());
  return py::make_tuple(counts, wide ? 1023 : 127);
}

std::uint64_t count_below(const py::object &x, double bound, bool inclusive,
                          const py::object &dtype) {
  const Input input = read(x, dtype);
  py::gil_scoped_release released;
  return mlsd::count_below(input.array, bound, inclusive);
}

}  // namespace

void register_ranges(py::module_ &m) {
  m.def("exponent_counts", &exponent_counts, py::arg("x"), py::kw_only(),
        py::arg("dtype") = py::none(),
        "Return how many elements have each biased exponent, and the bias.");
  m.def("count_below", &count_below, py::arg("x"), py::arg("bound"), py::kw_only(),
        py::arg("inclusive") = false, py::arg("dtype") = py::none(),
        "Return how many magnitudes lie below a bound (or, inclusive, not above it).");
}
