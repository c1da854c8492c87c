#include <string>
#include <vector>

#include "bindings/module.hpp"
#include "mlsd/targets.hpp"
#include "mlsd/threads.hpp"

#include <pybind11/stl.h>

namespace py = pybind11;

namespace {

std::vector<std::string> available_targets() {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < mlsd::target_count(); ++i)
    if (mlsd::target_supported(i)) names.emplace_back(mlsd::target_at(i).name);
  return names;
}

void set_target(const std::string &name) {
  if (!mlsd::force_target(name.c_str()))
    throw py::value_error("target: " + name + " is unknown or not supported by this machine");
}

void set_num_threads(int count) {
  if (!mlsd::set_num_threads(count))
    throw py::value_error("count: at least 0, got " + std::to_string(count));
}

}  // namespace

void register_runtime(py::module_ &m) {
  if (const char *refused = mlsd::refused_target())
    throw py::import_error("MLSD_TARGET=" + std::string(refused) +
                           " is unknown or not supported by this machine");
  m.def(
      "target", [] { return std::string(mlsd::active_target().name); },
      "Name of the instruction set that the kernels use.");
  m.def("available_targets", &available_targets,
        "Names of those that this machine can run, narrowest first.");
  m.def("set_target", &set_target, py::arg("name"), "Use another one from now on.");
  m.def(
      "get_num_threads", [] { return mlsd::num_threads(); }, "How many threads a kernel may use.");
  m.def("set_num_threads", &set_num_threads, py::arg("count"),
        "Limit the threads; 0 restores the default, never more than the usable cores.");
}
