// Distributions: argument checks and GIL release; the arithmetic is in kernels/.
#include <cmath>
#include <string>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "bindings/array_input.hpp"
#include "bindings/module.hpp"
#include "mlsd/distributions.hpp"

namespace py = pybind11;

namespace {

using Doubles = py::array_t<double, py::array::c_style>;

const double *one_dimension(const Doubles &array, const char *name) {
  if (array.ndim() != 1)
    throw py::value_error(std::string(name) + ": one dimension is needed, got " +
                          std::to_string(array.ndim()));
  return array.data();
}

py::array_t<std::uint64_t> bin_counts(const py::object &x, const Doubles &cuts,
                                      const py::object &dtype) {
  const double *exact = one_dimension(cuts, "cuts");
  const std::size_t count = static_cast<std::size_t>(cuts.size());
  for (std::size_t i = 0; i < count; ++i)
    if (!std::isfinite(exact[i]) || (i > 0 && !(exact[i] > exact[i - 1])))
      throw py::value_error("cuts: finite and ascending numbers are needed, number " +
                            std::to_string(i) + " is " + std::to_string(exact[i]));
  mlsd_bindings::Input input;
  PyObject *const named = dtype.is_none() ? nullptr : dtype.ptr();
  if (!mlsd_bindings::read_input(x.ptr(), named, &input)) throw py::error_already_set();
  std::vector<float> single(count);
  const mlsd::Cuts prepared = mlsd::make_cuts(exact, count, single.data());
  py::array_t<std::uint64_t> counts(static_cast<py::ssize_t>(mlsd::bin_counts_size(count)));
  std::uint64_t *out = counts.mutable_data();
  std::fill(out, out + counts.size(), std::uint64_t{0});
  bool done = false;
  {
    py::gil_scoped_release release;
    done = mlsd::count_bins(input.array, prepared, out);
  }
  if (!done) throw std::bad_alloc();
  return counts;
}

void require_same(const Doubles &p, const Doubles &q) {
  one_dimension(p, "p");
  one_dimension(q, "q");
  if (p.size() != q.size())
    throw py::value_error("p and q: as many bins in both are needed, got " +
                          std::to_string(p.size()) + " and " + std::to_string(q.size()));
}

[[noreturn]] void refuse(const Doubles &p, const Doubles &q) {
  for (const auto &[array, name] : {std::pair{&p, "p"}, std::pair{&q, "q"}})
    for (py::ssize_t i = 0; i < array->size(); ++i) {
      const double v = array->data()[i];
      if (!(v >= 0) || std::isinf(v))
        throw py::value_error(std::string(name) + "[" + std::to_string(i) +
                              "]: a count or a probability is needed, got " + std::to_string(v));
    }
  throw py::value_error("p and q: their sums are not finite");
}

// Value, sum of p, sum of q.
py::tuple divergence(const Doubles &p, const Doubles &q, int kind) {
  require_same(p, q);
  const std::size_t n = static_cast<std::size_t>(p.size());
  const double *a = p.data(), *b = q.data();
  mlsd::Divergence found = {};
  {
    py::gil_scoped_release release;
    found = mlsd::divergence(a, b, n, static_cast<mlsd::DivergenceKind>(kind));
  }
  if (found.invalid) refuse(p, q);
  return py::make_tuple(found.value, found.p, found.q);
}

py::tuple two_samples(const Doubles &x, const Doubles &y) {
  const double *a = one_dimension(x, "x"), *b = one_dimension(y, "y");
  if (x.size() == 0 || y.size() == 0) throw py::value_error("x and y: both need a value");
  mlsd::TwoSamples found = {};
  {
    py::gil_scoped_release release;
    found = mlsd::two_samples(a, static_cast<std::size_t>(x.size()), b,
                              static_cast<std::size_t>(y.size()));
  }
  return py::make_tuple(found.ks, found.wasserstein);
}

py::tuple two_histograms(const Doubles &p, const Doubles &q, const Doubles &places) {
  require_same(p, q);
  one_dimension(places, "places");
  if (places.size() != p.size())
    throw py::value_error("places: one per bin is needed, got " + std::to_string(places.size()) +
                          " for " + std::to_string(p.size()));
  mlsd::TwoSamples found = {};
  {
    py::gil_scoped_release release;
    found =
        mlsd::two_histograms(p.data(), q.data(), places.data(), static_cast<std::size_t>(p.size()));
  }
  return py::make_tuple(found.ks, found.wasserstein);
}

}  // namespace

void register_distributions(py::module_ &m) {
  m.def("bin_counts", &bin_counts, py::arg("x"), py::arg("cuts"), py::arg("dtype") = py::none(),
        "Counts of the bins between cuts, then of NaN, -infinity and +infinity.");
  m.def("divergence", &divergence, py::arg("p"), py::arg("q"), py::arg("kind"),
        "Divergence of kind 0 KL, 1 JS, 2 PSI, 3 total variation in nats, and the sums.");
  m.def("two_samples", &two_samples, py::arg("x"), py::arg("y"),
        "Kolmogorov-Smirnov and Wasserstein-1 distance of two sorted samples.");
  m.def("two_histograms", &two_histograms, py::arg("p"), py::arg("q"), py::arg("places"),
        "The same for masses at ascending places.");
}
