// Norms, non-finite scans and digests. The entries are plain C calls rather than pybind11's: an
// array of 64 floats is looked at in less time than pybind11 takes to convert its arguments.
#include <memory>
#include <string>
#include <vector>

#include "bindings/array_input.hpp"
#include "bindings/module.hpp"
#include "bindings/stats.hpp"
#include "bindings/without_gil.hpp"

namespace py = pybind11;
using mlsd_bindings::Input;
using mlsd_bindings::Stats;
using mlsd_bindings::Told;
using mlsd_bindings::without_gil;

namespace {

std::size_t bytes_of(const mlsd::ArrayRef &array) { return array.n * mlsd::item_size(array.dtype); }

// f(x, *, dtype=None)
bool parse(const char *function, PyObject *const *args, Py_ssize_t count, PyObject *keywords,
           Input *out) noexcept {
  PyObject *dtype = nullptr;
  const Py_ssize_t named = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
  if (count != 1 || named > 1) {
    PyErr_Format(PyExc_TypeError, "%s() takes one array and dtype=, got %zd positional arguments",
                 function, count);
    return false;
  }
  if (named == 1) {
    PyObject *name = PyTuple_GET_ITEM(keywords, 0);
    if (PyUnicode_CompareWithASCIIString(name, "dtype") != 0) {
      PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", function, name);
      return false;
    }
    dtype = args[1];
  }
  return mlsd_bindings::read_input(args[0], dtype, out);
}

template <typename F>
PyObject *run(const char *function, PyObject *const *args, Py_ssize_t count, PyObject *keywords,
              F work) noexcept {
  try {
    Input input;
    if (!parse(function, args, count, keywords, &input)) return nullptr;
    return work(input);
  } catch (const std::bad_alloc &) {
    return PyErr_NoMemory();
  }
}

PyObject *has_nonfinite(PyObject *, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
  return run("has_nonfinite", args, count, keywords, [](const Input &in) {
    const bool found =
        without_gil(bytes_of(in.array), [&] { return mlsd::has_nonfinite(in.array); });
    return PyBool_FromLong(found);
  });
}

PyObject *count_nonfinite(PyObject *, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
  return run("count_nonfinite", args, count, keywords, [](const Input &in) {
    const mlsd::NonfiniteCounts found =
        without_gil(bytes_of(in.array), [&] { return mlsd::count_nonfinite(in.array); });
    return Py_BuildValue("(KKK)", static_cast<unsigned long long>(found.nan),
                         static_cast<unsigned long long>(found.posinf),
                         static_cast<unsigned long long>(found.neginf));
  });
}

PyObject *first_nonfinite(PyObject *, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
  return run("first_nonfinite", args, count, keywords, [](const Input &in) -> PyObject * {
    const std::size_t found =
        without_gil(bytes_of(in.array), [&] { return mlsd::first_nonfinite(in.array); });
    if (found == in.array.n) Py_RETURN_NONE;
    return PyLong_FromSize_t(found);
  });
}

PyObject *l2_norm(PyObject *, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
  return run("l2_norm", args, count, keywords, [](const Input &in) {
    return PyFloat_FromDouble(
        without_gil(bytes_of(in.array), [&] { return mlsd::global_norm(&in.array, 1); }));
  });
}

PyObject *l1_norm(PyObject *, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
  return run("l1_norm", args, count, keywords, [](const Input &in) {
    return PyFloat_FromDouble(
        without_gil(bytes_of(in.array), [&] { return mlsd::l1_norm(in.array); }));
  });
}

PyObject *max_norm(PyObject *, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
  return run("max_norm", args, count, keywords, [](const Input &in) {
    return PyFloat_FromDouble(
        without_gil(bytes_of(in.array), [&] { return mlsd::max_norm(in.array); }));
  });
}

PyObject *digest(PyObject *, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
  return run("digest", args, count, keywords, [](const Input &in) {
    const std::size_t bytes = bytes_of(in.array);
    return PyLong_FromUnsignedLongLong(
        without_gil(bytes, [&] { return mlsd::digest(in.array.data, bytes, 0); }));
  });
}

PyObject *read_all(PyObject *, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
  return run("read_all", args, count, keywords, [](const Input &in) {
    const std::size_t bytes = bytes_of(in.array);
    return PyLong_FromUnsignedLongLong(
        without_gil(bytes, [&] { return mlsd::read_all(in.array.data, bytes); }));
  });
}

// Arrays of a list, small lists without touching the heap.
class Inputs {
 public:
  bool read(PyObject *xs) {
    // A list could change under the work, which runs without the GIL: a tuple holds the arrays.
    sequence_ = py::reinterpret_steal<py::object>(
        PyList_Check(xs) ? PyList_AsTuple(xs)
                         : PySequence_Fast(xs, "xs: a sequence of arrays is expected"));
    if (!sequence_) return false;
    count_ = static_cast<std::size_t>(PySequence_Fast_GET_SIZE(sequence_.ptr()));
    PyObject **items = PySequence_Fast_ITEMS(sequence_.ptr());
    arrays_ = count_ <= kInline ? inline_ : (more_.resize(count_), more_.data());
    std::size_t i = mlsd_bindings::read_plain(items, count_, arrays_, &bytes_);
    for (; i < count_; ++i) {
      Input input;
      if (!mlsd_bindings::read_input(items[i], nullptr, &input)) return false;
      arrays_[i] = input.array;
      bytes_ += bytes_of(input.array);
      if (input.owner) owners_.push_back(std::move(input.owner));
    }
    return true;
  }
  const mlsd::ArrayRef *arrays() const { return arrays_; }
  std::size_t count() const { return count_; }
  std::size_t bytes() const { return bytes_; }

 private:
  py::object sequence_;
  static constexpr std::size_t kInline = 256;
  mlsd::ArrayRef inline_[kInline];
  std::vector<mlsd::ArrayRef> more_;
  mlsd::ArrayRef *arrays_ = inline_;
  std::vector<py::object> owners_;
  std::size_t count_ = 0, bytes_ = 0;
};

PyObject *global_norm(PyObject *, PyObject *xs) {
  try {
    Inputs inputs;
    if (!inputs.read(xs)) return nullptr;
    return PyFloat_FromDouble(without_gil(
        inputs.bytes(), [&] { return mlsd::global_norm(inputs.arrays(), inputs.count()); }));
  } catch (const std::bad_alloc &) {
    return PyErr_NoMemory();
  }
}

PyObject *digest_many(PyObject *, PyObject *xs) {
  try {
    Inputs inputs;
    if (!inputs.read(xs)) return nullptr;
    std::vector<std::uint64_t> found(inputs.count());
    without_gil(inputs.bytes(), [&] {
      for (std::size_t i = 0; i < inputs.count(); ++i)
        found[i] = mlsd::digest(inputs.arrays()[i].data, bytes_of(inputs.arrays()[i]), 0);
      return 0;
    });
    PyObject *list = PyList_New(static_cast<Py_ssize_t>(found.size()));
    for (std::size_t i = 0; list != nullptr && i < found.size(); ++i) {
      PyObject *one = PyLong_FromUnsignedLongLong(found[i]);
      if (one == nullptr)
        Py_CLEAR(list);
      else
        PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i), one);
    }
    return list;
  } catch (const std::bad_alloc &) {
    return PyErr_NoMemory();
  }
}

// ---- TensorStats ------------------------------------------------------------------------------

Stats make_stats(const Input &in, std::uint64_t start, bool with_digest) {
  Stats stats;
  stats.digested = with_digest;
  without_gil(bytes_of(in.array), [&] {
    mlsd::stats_of(in.array, start, with_digest, &stats.range);
    return 0;
  });
  stats.finish();
  return stats;
}

// tensor_stats(x, *, dtype=None, start=0, digest=False)
PyObject *tensor_stats(PyObject *, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
  const Py_ssize_t named = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
  if (count != 1) {
    PyErr_Format(PyExc_TypeError, "tensor_stats() takes one array, got %zd positional arguments",
                 count);
    return nullptr;
  }
  PyObject *dtype = nullptr;
  std::uint64_t start = 0;
  int with_digest = 0;
  for (Py_ssize_t i = 0; i < named; ++i) {
    PyObject *name = PyTuple_GET_ITEM(keywords, i), *value = args[1 + i];
    if (PyUnicode_CompareWithASCIIString(name, "dtype") == 0) {
      dtype = value;
    } else if (PyUnicode_CompareWithASCIIString(name, "start") == 0) {
      start = PyLong_AsUnsignedLongLong(value);
      if (PyErr_Occurred()) return nullptr;
    } else if (PyUnicode_CompareWithASCIIString(name, "digest") == 0) {
      with_digest = PyObject_IsTrue(value);
      if (with_digest < 0) return nullptr;
    } else {
      PyErr_Format(PyExc_TypeError, "tensor_stats() got an unexpected keyword argument %R", name);
      return nullptr;
    }
  }
  if (start % mlsd::kBlock != 0) {
    PyErr_Format(PyExc_ValueError, "start: a multiple of %zu, got %llu", mlsd::kBlock,
                 static_cast<unsigned long long>(start));
    return nullptr;
  }
  try {
    Input input;
    if (!mlsd_bindings::read_input(args[0], dtype, &input)) return nullptr;
    return py::cast(make_stats(input, start, with_digest != 0)).release().ptr();
  } catch (const std::bad_alloc &) {
    return PyErr_NoMemory();
  }
}

Stats merged(const Stats &left, const Stats &right) {
  Stats out = left;
  if (!mlsd::append(&out.range, right.range))
    throw py::value_error("other: begins at element " + std::to_string(right.range.start) +
                          ", but this one covers " + std::to_string(left.range.start) + " to " +
                          std::to_string(left.range.start + left.range.elements) +
                          "; parts are merged in order and split at multiples of " +
                          std::to_string(mlsd::kBlock));
  out.digested = left.digested && right.digested;
  out.finish();
  return out;
}

// One row of the structured array of tensor_stats_many; the dtype in kernels/tensor_stats.py.
struct Row {
  std::uint64_t size, nan, posinf, neginf, zero, subnormal;
  double min, max, absmax, mean, std, l1, l2;
  std::uint64_t digest;
};

void fill_row(const mlsd::StatsRange &range, const mlsd::BlockStats &all, Row *row) {
  const Told told(all, range.elements);
  *row = {range.elements,
          all.nan,
          all.posinf,
          all.neginf,
          all.zero,
          all.subnormal,
          told.min(),
          told.max(),
          told.absmax(),
          told.mean(),
          told.std(),
          all.abs_sum,
          mlsd::root(all.squares),
          range.digest};
}

void tensor_stats_many(const py::object &xs, const py::buffer &out, bool with_digest) {
  Inputs inputs;
  if (!inputs.read(xs.ptr())) throw py::error_already_set();
  const py::buffer_info info = out.request(true);
  const std::size_t room =
      static_cast<std::size_t>(info.size) * static_cast<std::size_t>(info.itemsize);
  if (room != inputs.count() * sizeof(Row))
    throw py::value_error("out: " + std::to_string(inputs.count()) + " rows of " +
                          std::to_string(sizeof(Row)) + " bytes are needed, got " +
                          std::to_string(room) + " bytes");
  Row *rows = static_cast<Row *>(info.ptr);
  without_gil(inputs.bytes(), [&] {
    mlsd::each_stats(
        inputs.arrays(), inputs.count(), 0, with_digest,
        [](void *to, std::size_t i, const mlsd::StatsRange &range) {
          fill_row(range, mlsd::total(range), static_cast<Row *>(to) + i);
        },
        rows);
    return 0;
  });
}

PyMethodDef fast_calls[] = {
#define MLSD_FAST(name, doc)                                                 \
  {#name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(name)), \
   METH_FASTCALL | METH_KEYWORDS, #name "($module, x, /, *, dtype=None)\n--\n\n" doc}
    MLSD_FAST(has_nonfinite, "Return whether any element is NaN or infinite."),
    MLSD_FAST(count_nonfinite, "Return how many elements are NaN, +inf and -inf."),
    MLSD_FAST(first_nonfinite, "Return the flat index of the first NaN or infinity, or None."),
    MLSD_FAST(l2_norm, "Return the square root of the sum of squares."),
    MLSD_FAST(l1_norm, "Return the sum of magnitudes."),
    MLSD_FAST(max_norm, "Return the largest magnitude."),
    MLSD_FAST(read_all, "Load every byte and return their bitwise or: the limit for any kernel."),
    MLSD_FAST(digest, "Return the 64-bit digest of the elements' bytes."),
#undef MLSD_FAST
    {"tensor_stats", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(tensor_stats)),
     METH_FASTCALL | METH_KEYWORDS,
     "tensor_stats($module, x, /, *, dtype=None, start=0, digest=False)\n--\n\n"
     "Return every statistic of an array in one pass."},
    {"global_norm", global_norm, METH_O,
     "global_norm($module, xs, /)\n--\n\nReturn the L2 norm over many arrays."},
    {"digest_many", digest_many, METH_O,
     "digest_many($module, xs, /)\n--\n\nReturn the digest of each of many arrays."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

void register_arrays(py::module_ &m) {
  if (!mlsd_bindings::init_arrays()) throw py::error_already_set();
  if (PyModule_AddFunctions(m.ptr(), fast_calls) < 0) throw py::error_already_set();
  m.attr("BLOCK") = static_cast<std::size_t>(mlsd::kBlock);

  py::class_<Stats>(m, "TensorStats", py::metaclass(reinterpret_cast<PyObject *>(&PyType_Type)),
                    "Statistics of a tensor, over its finite values; mergeable by blocks.")
      .def_property_readonly("start", [](const Stats &s) { return s.range.start; })
      .def_property_readonly("size", [](const Stats &s) { return s.range.elements; })
      .def_property_readonly("nan", [](const Stats &s) { return s.all.nan; })
      .def_property_readonly("posinf", [](const Stats &s) { return s.all.posinf; })
      .def_property_readonly("neginf", [](const Stats &s) { return s.all.neginf; })
      .def_property_readonly("zero", [](const Stats &s) { return s.all.zero; })
      .def_property_readonly("subnormal", [](const Stats &s) { return s.all.subnormal; })
      .def_property_readonly("min", [](const Stats &s) { return s.told().min(); })
      .def_property_readonly("max", [](const Stats &s) { return s.told().max(); })
      .def_property_readonly("absmax", [](const Stats &s) { return s.told().absmax(); })
      .def_property_readonly("mean", [](const Stats &s) { return s.told().mean(); })
      .def_property_readonly("std", [](const Stats &s) { return s.told().std(); })
      .def_property_readonly("l1", [](const Stats &s) { return s.all.abs_sum; })
      .def_property_readonly("l2", [](const Stats &s) { return mlsd::root(s.all.squares); })
      .def_property_readonly("digest",
                             [](const Stats &s) -> py::object {
                               if (!s.digested) return py::none();
                               return py::int_(s.range.digest);
                             })
      .def("merge", &merged, py::arg("other"),
           "Return the statistics of this part and the next one; the same bits as in one pass.");

  m.def("tensor_stats_many", &tensor_stats_many, py::arg("xs"), py::arg("out"), py::kw_only(),
        py::arg("digest") = false, "Write one row per array into `out`.");
}
