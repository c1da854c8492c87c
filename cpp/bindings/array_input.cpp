#include "bindings/array_input.hpp"

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#include <numpy/arrayobject.h>

#include <cstring>

namespace py = pybind11;

namespace mlsd_bindings {
namespace {

using mlsd::Dtype;

struct Named {
  const char *name;
  Dtype dtype;
};
const Named names[] = {
    {"float64", Dtype::f64},
    {"float32", Dtype::f32},
    {"float16", Dtype::f16},
    {"bfloat16", Dtype::bf16},
    {"float8_e4m3fn", Dtype::f8_e4m3fn},
    {"float8_e5m2", Dtype::f8_e5m2},
    {"float8_e4m3fnuz", Dtype::f8_e4m3fnuz},
    {"float8_e5m2fnuz", Dtype::f8_e5m2fnuz},
    {"float8_e8m0fnu", Dtype::f8_e8m0},
    {"float8_e8m0", Dtype::f8_e8m0},
    {"int8", Dtype::i8},
    {"int16", Dtype::i16},
    {"int32", Dtype::i32},
    {"int64", Dtype::i64},
    {"uint8", Dtype::u8},
    {"uint16", Dtype::u16},
    {"uint32", Dtype::u32},
    {"uint64", Dtype::u64},
    {"bool", Dtype::u8},
};

// What is looked up again and again, looked up once.
struct Names {
  PyObject *data_ptr, *numel, *is_contiguous, *dtype, *device, *type, *module, *requires_grad,
      *is_sparse, *layout;
  PyObject *convert = nullptr;        // kernels._arrays.convert
  PyTypeObject *tensor = nullptr;     // torch.Tensor, once one was seen
  PyTypeObject *parameter = nullptr;  // torch.nn.Parameter
  struct {
    PyObject *object = nullptr;
    Dtype dtype = Dtype::f32;
  } torch_types[32];
};
Names cached;

bool from_type_number(int number, std::size_t size, Dtype *out) noexcept {
  switch (number) {
    case NPY_FLOAT:
      *out = Dtype::f32;
      return true;
    case NPY_DOUBLE:
      *out = Dtype::f64;
      return true;
    case NPY_HALF:
      *out = Dtype::f16;
      return true;
    case NPY_BOOL:
    case NPY_UBYTE:
      *out = Dtype::u8;
      return true;
    case NPY_BYTE:
      *out = Dtype::i8;
      return true;
    case NPY_SHORT:
      *out = Dtype::i16;
      return true;
    case NPY_USHORT:
      *out = Dtype::u16;
      return true;
    case NPY_INT:
    case NPY_LONG:
    case NPY_LONGLONG:
      *out = size == 8 ? Dtype::i64 : Dtype::i32;
      return true;
    case NPY_UINT:
    case NPY_ULONG:
    case NPY_ULONGLONG:
      *out = size == 8 ? Dtype::u64 : Dtype::u32;
      return true;
    default:
      return false;
  }
}

// A plain, dense, native NumPy array; anything else is for the slow way.
bool read_numpy(PyObject *object, Input *out) noexcept {
  PyArrayObject *array = reinterpret_cast<PyArrayObject *>(object);
  if (!PyArray_CHKFLAGS(array, NPY_ARRAY_C_CONTIGUOUS)) return false;
  PyArray_Descr *descr = PyArray_DESCR(array);
  if (!PyArray_ISNBO(descr->byteorder)) return false;
  if (!from_type_number(descr->type_num, static_cast<std::size_t>(PyArray_ITEMSIZE(array)),
                        &out->array.dtype))
    return false;
  out->array.data = PyArray_DATA(array);
  out->array.n = static_cast<std::size_t>(PyArray_SIZE(array));
  return true;
}

bool torch_dtype(PyObject *type, Dtype *out) noexcept {
  for (auto &known : cached.torch_types) {
    if (known.object == type) {
      *out = known.dtype;
      return true;
    }
    if (known.object != nullptr) continue;
    // str(torch.float32) is "torch.float32".
    PyObject *text = PyObject_Str(type);
    if (text == nullptr) break;
    const char *name = PyUnicode_AsUTF8(text);
    const bool found =
        name != nullptr && std::strncmp(name, "torch.", 6) == 0 && dtype_by_name(name + 6, out);
    Py_DECREF(text);
    if (found) {
      Py_INCREF(type);  // kept for good: dtypes are few and live as long as torch
      known.object = type;
      known.dtype = *out;
    }
    PyErr_Clear();
    return found;
  }
  PyErr_Clear();
  return false;
}

bool is_torch(PyTypeObject *type) noexcept {
  if (type == cached.tensor || type == cached.parameter) return true;
  if (std::strcmp(type->tp_name, "Tensor") != 0 && std::strcmp(type->tp_name, "Parameter") != 0)
    return false;
  PyObject *module = PyObject_GetAttr(reinterpret_cast<PyObject *>(type), cached.module);
  if (module == nullptr) {
    PyErr_Clear();
    return false;
  }
  const char *text = PyUnicode_AsUTF8(module);
  const bool torch = text != nullptr && std::strncmp(text, "torch", 5) == 0;
  Py_DECREF(module);
  PyErr_Clear();
  if (torch) (std::strcmp(type->tp_name, "Tensor") == 0 ? cached.tensor : cached.parameter) = type;
  return torch;
}

bool call_size(PyObject *object, PyObject *method, std::size_t *out) noexcept {
  PyObject *result = PyObject_CallMethodNoArgs(object, method);
  if (result == nullptr) return false;
  *out = PyLong_AsSize_t(result);
  Py_DECREF(result);
  return PyErr_Occurred() == nullptr;
}

// A dense CPU tensor; where anything about it is special, the slow way decides.
bool read_torch(PyObject *object, Input *out) noexcept {
  PyObject *dense = PyObject_CallMethodNoArgs(object, cached.is_contiguous);
  const bool contiguous = dense == Py_True;
  Py_XDECREF(dense);
  PyObject *type = contiguous ? PyObject_GetAttr(object, cached.dtype) : nullptr;
  PyObject *device = type != nullptr ? PyObject_GetAttr(object, cached.device) : nullptr;
  PyObject *kind = device != nullptr ? PyObject_GetAttr(device, cached.type) : nullptr;
  bool good = kind != nullptr && PyUnicode_CompareWithASCIIString(kind, "cpu") == 0 &&
              torch_dtype(type, &out->array.dtype);
  Py_XDECREF(kind);
  Py_XDECREF(device);
  Py_XDECREF(type);
  std::size_t address = 0;
  good = good && call_size(object, cached.numel, &out->array.n) &&
         call_size(object, cached.data_ptr, &address);
  if (!good) PyErr_Clear();
  out->array.data = reinterpret_cast<const void *>(address);
  return good;
}

// kernels._arrays.convert(object, dtype) -> (a dense uint8 array, dtype name)
bool read_converted(PyObject *object, PyObject *dtype, Input *out) noexcept {
  if (cached.convert == nullptr) {
    PyObject *module = PyImport_ImportModule("ml_systems_debugger.kernels._arrays");
    if (module == nullptr) return false;
    cached.convert = PyObject_GetAttrString(module, "convert");
    Py_DECREF(module);
    if (cached.convert == nullptr) return false;
  }
  PyObject *pair = PyObject_CallFunctionObjArgs(cached.convert, object,
                                                dtype == nullptr ? Py_None : dtype, nullptr);
  if (pair == nullptr) return false;
  out->owner = py::reinterpret_steal<py::object>(pair);
  PyObject *bytes = PyTuple_GetItem(pair, 0), *name = PyTuple_GetItem(pair, 1);
  const char *text = name == nullptr ? nullptr : PyUnicode_AsUTF8(name);
  if (bytes == nullptr || text == nullptr) return false;
  if (!PyArray_Check(bytes) || !dtype_by_name(text, &out->array.dtype)) {
    PyErr_Format(PyExc_TypeError, "dtype: %s is not supported", text);
    return false;
  }
  PyArrayObject *array = reinterpret_cast<PyArrayObject *>(bytes);
  out->array.data = PyArray_DATA(array);
  out->array.n = static_cast<std::size_t>(PyArray_NBYTES(array)) / item_size(out->array.dtype);
  return true;
}

}  // namespace

bool dtype_by_name(const char *name, Dtype *out) noexcept {
  for (const Named &known : names)
    if (std::strcmp(known.name, name) == 0) {
      *out = known.dtype;
      return true;
    }
  return false;
}

bool init_arrays() {
  if (_import_array() < 0) return false;
  cached.data_ptr = PyUnicode_InternFromString("data_ptr");
  cached.numel = PyUnicode_InternFromString("numel");
  cached.is_contiguous = PyUnicode_InternFromString("is_contiguous");
  cached.dtype = PyUnicode_InternFromString("dtype");
  cached.device = PyUnicode_InternFromString("device");
  cached.type = PyUnicode_InternFromString("type");
  cached.module = PyUnicode_InternFromString("__module__");
  return PyErr_Occurred() == nullptr;
}

bool read_input(PyObject *object, PyObject *dtype, Input *out) noexcept {
  if (dtype == nullptr || dtype == Py_None) {
    if (PyArray_CheckExact(object)) {
      if (read_numpy(object, out)) return true;
    } else if (is_torch(Py_TYPE(object))) {
      if (read_torch(object, out)) return true;
    }
  }
  return read_converted(object, dtype, out);
}

}  // namespace mlsd_bindings
