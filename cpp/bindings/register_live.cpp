// What a live monitor measures at every step: C calls rather than pybind11's, for the same reason
// as in register_arrays.cpp.
#include <cmath>
#include <new>
#include <vector>

#include "bindings/array_input.hpp"
#include "bindings/module.hpp"
#include "bindings/without_gil.hpp"
#include "mlsd/live.hpp"

namespace py = pybind11;
using mlsd_bindings::Input;
using mlsd_bindings::without_gil;

namespace {

// A writable, dense buffer of one kind of element.
class Room {
 public:
  ~Room() {
    if (held_) PyBuffer_Release(&view_);
  }
  Room() = default;
  Room(const Room &) = delete;
  Room &operator=(const Room &) = delete;
  bool take(PyObject *object, const char *name, std::size_t item, std::size_t count) {
    if (PyObject_GetBuffer(object, &view_, PyBUF_CONTIG) < 0) return false;
    held_ = true;
    if (static_cast<std::size_t>(view_.len) == item * count) return true;
    PyErr_Format(PyExc_ValueError, "%s: %zu bytes are needed, got %zd", name, item * count,
                 view_.len);
    return false;
  }
  template <typename T>
  T *as() const {
    return static_cast<T *>(view_.buf);
  }

 private:
  Py_buffer view_;
  bool held_ = false;
};

// The arrays of a step, with what keeps them alive; kept from call to call, so that nothing is
// allocated: one for each thread, never of two calls at once.
struct Step {
  std::vector<mlsd::ArrayRef> arrays;
  std::vector<std::size_t> places;
  std::vector<double> norms;
  std::vector<PyObject *> owners;
  std::size_t bytes = 0;

  void clear() {
    for (PyObject *owner : owners) Py_DECREF(owner);
    owners.clear();
    arrays.clear();
    places.clear();
    bytes = 0;
  }
  ~Step() { clear(); }
  // Takes `object` (a new reference); false with an error set.
  bool add(PyObject *object, std::size_t place) {
    owners.push_back(object);
    Input input;
    if (!mlsd_bindings::read_input(object, nullptr, &input)) return false;
    if (input.owner) owners.push_back(input.owner.release().ptr());
    arrays.push_back(input.array);
    places.push_back(place);
    bytes += input.array.n * mlsd::item_size(input.array.dtype);
    return true;
  }
};

PyObject *sequence_of(PyObject *xs) {
  // A list could change under the work: a tuple holds the arrays.
  if (PyTuple_Check(xs)) {
    Py_INCREF(xs);
    return xs;
  }
  return PySequence_Tuple(xs);
}

bool is_sparse(PyObject *object) {
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyObject *told = PyObject_GetAttrString(object, "is_sparse");
  const bool sparse = told == Py_True;
  Py_XDECREF(told);
  PyErr_Clear();
  if (sparse) {
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
  } else {
    PyErr_Restore(type, value, trace);
  }
  return sparse;
}

// live_norms(xs, attribute, norms, there)
PyObject *live_norms(PyObject *, PyObject *const *args, Py_ssize_t count) {
  if (count != 4) {
    PyErr_Format(PyExc_TypeError, "live_norms() takes xs, attribute, norms and there, got %zd",
                 count);
    return nullptr;
  }
  try {
    const auto xs = py::reinterpret_steal<py::object>(sequence_of(args[0]));
    if (!xs) return nullptr;
    const auto n = static_cast<std::size_t>(PyTuple_GET_SIZE(xs.ptr()));
    PyObject *attribute = args[1] == Py_None ? nullptr : args[1];
    Room norms, there;
    if (!norms.take(args[2], "norms", sizeof(double), n) || !there.take(args[3], "there", 1, n))
      return nullptr;
    thread_local Step kept;
    Step step;  // a finaliser may call in here again: it finds the kept one empty
    std::swap(step, kept);
    double *out = norms.as<double>();
    bool *present = there.as<bool>();
    for (std::size_t i = 0; i < n; ++i) {
      PyObject *object = PyTuple_GET_ITEM(xs.ptr(), static_cast<Py_ssize_t>(i));
      if (attribute == nullptr)
        Py_INCREF(object);
      else if ((object = PyObject_GetAttr(object, attribute)) == nullptr)
        return nullptr;
      present[i] = object != Py_None;
      if (object == Py_None) {
        Py_DECREF(object);
      } else if (!step.add(object, i)) {
        if (!is_sparse(object)) return nullptr;
        present[i] = false;
      }
      out[i] = 0.0;
    }
    const std::size_t found = step.arrays.size();
    step.norms.resize(found);
    double total = 0;
    without_gil(step.bytes, [&] {
      mlsd::live_norms(step.arrays.data(), found, step.norms.data());
      const mlsd::ArrayRef all{step.norms.data(), found, mlsd::Dtype::f64};
      mlsd::live_norms(&all, 1, &total);
    });
    for (std::size_t i = 0; i < found; ++i) out[step.places[i]] = step.norms[i];
    step.clear();
    std::swap(step, kept);
    return PyFloat_FromDouble(total);
  } catch (const std::bad_alloc &) {
    return PyErr_NoMemory();
  } catch (py::error_already_set &error) {
    error.restore();
    return nullptr;
  }
}

// live_moves(xs, norms, samples, moved, known)
PyObject *live_moves(PyObject *, PyObject *const *args, Py_ssize_t count) {
  if (count != 5) {
    PyErr_Format(PyExc_TypeError, "live_moves() takes xs, norms, samples, moved and known, got %zd",
                 count);
    return nullptr;
  }
  try {
    const auto xs = py::reinterpret_steal<py::object>(sequence_of(args[0]));
    const int known = xs ? PyObject_IsTrue(args[4]) : -1;
    if (known < 0) return nullptr;
    const auto n = static_cast<std::size_t>(PyTuple_GET_SIZE(xs.ptr()));
    Step step;
    for (std::size_t i = 0; i < n; ++i) {
      PyObject *object = PyTuple_GET_ITEM(xs.ptr(), static_cast<Py_ssize_t>(i));
      Py_INCREF(object);
      if (!step.add(object, i)) return nullptr;
      if (!mlsd::sampled(step.arrays.back().dtype)) {
        PyErr_Format(PyExc_TypeError, "xs[%zu]: elements of this type are not sampled", i);
        return nullptr;
      }
    }
    Room norms, samples, moved;
    if (!norms.take(args[1], "norms", sizeof(double), n) ||
        !moved.take(args[3], "moved", sizeof(double), n))
      return nullptr;
    Py_buffer probe;
    if (PyObject_GetBuffer(args[2], &probe, PyBUF_CONTIG) < 0) return nullptr;
    const std::size_t length = static_cast<std::size_t>(probe.len);
    PyBuffer_Release(&probe);
    const std::size_t width = n == 0 ? 0 : length / sizeof(double) / n;
    if ((n != 0 && width == 0) || !samples.take(args[2], "samples", sizeof(double), n * width)) {
      if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "samples: [len(xs), width] needed");
      return nullptr;
    }
    without_gil(step.bytes, [&] {
      mlsd::live_norms(step.arrays.data(), n, norms.as<double>());
      mlsd::live_moves(step.arrays.data(), n, width, known != 0, samples.as<double>(),
                       moved.as<double>());
    });
    Py_RETURN_NONE;
  } catch (const std::bad_alloc &) {
    return PyErr_NoMemory();
  } catch (py::error_already_set &error) {
    error.restore();
    return nullptr;
  }
}

PyMethodDef calls[] = {
    {"live_norms", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(live_norms)),
     METH_FASTCALL,
     "live_norms($module, xs, attribute, norms, there, /)\n--\n\n"
     "Write the norm of each array, or of that attribute of each; return the norm of all."},
    {"live_moves", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(live_moves)),
     METH_FASTCALL,
     "live_moves($module, xs, norms, samples, moved, known, /)\n--\n\n"
     "Write the norm of each array and how far its sample moved, and keep the sample."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

void register_live(py::module_ &m) {
  if (PyModule_AddFunctions(m.ptr(), calls) < 0) throw py::error_already_set();
}
