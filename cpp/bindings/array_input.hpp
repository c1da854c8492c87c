// From a Python object to a dense array that the kernels can read, in tens of nanoseconds where it
// is a NumPy array or a torch tensor, and through ml_systems_debugger.kernels._arrays otherwise.
#pragma once

#include <pybind11/pybind11.h>

#include "mlsd/tensor_stats.hpp"

namespace mlsd_bindings {

// Keeps whatever owns the memory alive while the kernel runs.
struct Input {
  mlsd::ArrayRef array{nullptr, 0, mlsd::Dtype::f32};
  pybind11::object owner;  // empty where the caller's reference is enough
};

// Must be called once, at import; false with a Python error set where NumPy's C API is not there.
bool init_arrays();

// Reads `object` (borrowed); `dtype` (borrowed, may be null) names the type of raw bytes. False
// with a Python error set.
bool read_input(PyObject *object, PyObject *dtype, Input *out) noexcept;

// Reads the objects up to the first that is not a plain, dense, native NumPy array of a type that
// NumPy itself has; returns how many that were, and adds their bytes. Some nanoseconds each.
std::size_t read_plain(PyObject *const *objects, std::size_t count, mlsd::ArrayRef *out,
                       std::size_t *bytes) noexcept;

// The dtype by its name, as "bfloat16"; false where there is none of that name.
bool dtype_by_name(const char *name, mlsd::Dtype *out) noexcept;

}  // namespace mlsd_bindings
