#include "bindings/module.hpp"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The native core; use it through ml_systems_debugger.kernels.";
  register_runtime(m);
  register_arrays(m);
  register_spans(m);
  register_distributions(m);
  register_folds(m);
  register_ranges(m);
  register_formats(m);
  register_trail(m);
  register_live(m);
}
