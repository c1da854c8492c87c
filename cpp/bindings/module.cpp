#include "bindings/module.hpp"

// Nothing here relies on the GIL: what is kept between calls is atomic, behind a lock or of one
// thread. Who calls from several threads with one array that a call writes to has to take turns.
PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
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
