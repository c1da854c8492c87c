// Work on memory that runs without the GIL where that is worth it.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <type_traits>

namespace mlsd_bindings {

// Below this many bytes the work takes less time than giving up the GIL and taking it back.
constexpr std::size_t kGilBytes = std::size_t{1} << 17;

// Returns what `work`, which throws nothing, returns. Not gil_scoped_release: a thread that
// outlives the interpreter is ended where it takes the GIL back, and a destructor would then end
// the process.
template <typename F>
auto without_gil(std::size_t bytes, F work) {
  if (bytes < kGilBytes) return work();
  PyThreadState *state = PyEval_SaveThread();
  if constexpr (std::is_void_v<decltype(work())>) {
    work();
    PyEval_RestoreThread(state);
  } else {
    auto result = work();
    PyEval_RestoreThread(state);
    return result;
  }
}

}  // namespace mlsd_bindings
