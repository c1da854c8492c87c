#include "bindings/array_input.hpp"

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#include <numpy/arrayobject.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <mutex>

namespace py = pybind11;

namespace mlsd_bindings {
namespace {

using mlsd::Dtype;
using mlsd::item_size;

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

// ---- DLPack's exchange by C function: the part of its stable layout that is used here ---------

struct DlTensor {
  void *data;
  std::int32_t device_type, device_id, ndim;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  const std::int64_t *shape, *strides;
  std::uint64_t byte_offset;
};
struct DlExchange {
  std::uint32_t major, minor;
  const void *previous, *allocate, *from_object, *to_object;
  int (*view_of)(void *object, DlTensor *out);  // may be null
};
constexpr std::int32_t kDlCpu = 1;

bool from_dl_type(const DlTensor &t, Dtype *out) noexcept {
  struct Known {
    std::uint8_t code, bits;
    Dtype dtype;
  };
  static const Known known[] = {
      {2, 32, Dtype::f32},     {4, 16, Dtype::bf16},        {2, 16, Dtype::f16},
      {2, 64, Dtype::f64},     {0, 64, Dtype::i64},         {0, 32, Dtype::i32},
      {0, 16, Dtype::i16},     {0, 8, Dtype::i8},           {1, 8, Dtype::u8},
      {1, 16, Dtype::u16},     {1, 32, Dtype::u32},         {1, 64, Dtype::u64},
      {6, 8, Dtype::u8},       {10, 8, Dtype::f8_e4m3fn},   {11, 8, Dtype::f8_e4m3fnuz},
      {12, 8, Dtype::f8_e5m2}, {13, 8, Dtype::f8_e5m2fnuz}, {14, 8, Dtype::f8_e8m0},
  };
  if (t.lanes != 1) return false;
  for (const Known &k : known)
    if (k.code == t.code && k.bits == t.bits) {
      *out = k.dtype;
      return true;
    }
  return false;
}

// Number of elements where they lie densely in C order.
bool dense_size(const DlTensor &t, std::size_t *out) noexcept {
  std::int64_t n = 1;
  bool dense = true;
  for (std::int32_t i = t.ndim; i-- > 0;) {
    dense = dense && (t.strides == nullptr || t.shape[i] == 1 || t.strides[i] == n);
    n *= t.shape[i];
  }
  *out = static_cast<std::size_t>(n);
  return dense || n == 0;
}

// Few keys and the dtype of each, added one by one and never taken away. Read by any number of
// threads: there may be no GIL. A key is written last, so whoever sees it sees its dtype.
template <typename Key, std::size_t Room>
class Dtypes {
 public:
  explicit constexpr Dtypes(Key none) : none_(none) {
    for (auto &one : known_) one.key.store(none, std::memory_order_relaxed);
  }
  bool find(Key key, Dtype *out) const noexcept {
    for (const auto &one : known_) {
      const Key held = one.key.load(std::memory_order_acquire);
      if (held == key) {
        *out = one.dtype;
        return true;
      }
      if (held == none_) return false;
    }
    return false;
  }
  // Returns whether it is kept: there is room, and nobody else was faster.
  bool add(Key key, Dtype dtype) noexcept {
    const std::lock_guard<std::mutex> guard(adding_);
    for (auto &one : known_) {
      const Key held = one.key.load(std::memory_order_relaxed);
      if (held == key) return false;
      if (held != none_) continue;
      one.dtype = dtype;
      one.key.store(key, std::memory_order_release);
      return true;
    }
    return false;
  }

 private:
  struct Known {
    std::atomic<Key> key{};
    Dtype dtype = Dtype::f32;
  };
  Key none_;
  Known known_[Room];
  std::mutex adding_;
};

// What is looked up again and again, looked up once.
struct Names {
  PyObject *data_ptr, *numel, *is_contiguous, *dtype, *device, *type, *module, *is_neg, *exchange;
  std::atomic<const DlExchange *> torch{nullptr};  // where this version of torch offers it
  std::atomic<PyObject *> convert{nullptr};        // kernels._arrays.convert
  std::atomic<PyTypeObject *> tensor{nullptr};     // torch.Tensor, once one was seen
  std::atomic<PyTypeObject *> parameter{nullptr};  // torch.nn.Parameter
};
Names cached;
Dtypes<PyObject *, 32> torch_types(nullptr);
Dtypes<int, 16> user_types(-1);

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

// Types that other packages taught NumPy, as bfloat16: by their name, which is kept.
bool from_user_type(PyArray_Descr *descr, Dtype *out) noexcept {
  if (user_types.find(descr->type_num, out)) return true;
  const char *name = descr->typeobj->tp_name, *dot = std::strrchr(name, '.');
  if (!dtype_by_name(dot == nullptr ? name : dot + 1, out)) return false;
  user_types.add(descr->type_num, *out);
  return true;
}

// PyArray_SIZE, without a call.
std::size_t size_of(PyArrayObject *array) noexcept {
  npy_intp n = 1;
  for (int i = 0; i < PyArray_NDIM(array); ++i) n *= PyArray_DIM(array, i);
  return static_cast<std::size_t>(n);
}

// A plain, dense, native NumPy array; anything else is for the slow way.
bool read_numpy(PyObject *object, Input *out) noexcept {
  PyArrayObject *array = reinterpret_cast<PyArrayObject *>(object);
  if (!PyArray_CHKFLAGS(array, NPY_ARRAY_C_CONTIGUOUS)) return false;
  PyArray_Descr *descr = PyArray_DESCR(array);
  if (!PyArray_ISNBO(descr->byteorder)) return false;
  if (!from_type_number(descr->type_num, static_cast<std::size_t>(PyArray_ITEMSIZE(array)),
                        &out->array.dtype) &&
      (!PyTypeNum_ISUSERDEF(descr->type_num) || !from_user_type(descr, &out->array.dtype)))
    return false;
  out->array.data = PyArray_DATA(array);
  out->array.n = size_of(array);
  return true;
}

bool torch_dtype(PyObject *type, Dtype *out) noexcept {
  if (torch_types.find(type, out)) return true;
  // str(torch.float32) is "torch.float32".
  PyObject *text = PyObject_Str(type);
  const char *name = text == nullptr ? nullptr : PyUnicode_AsUTF8(text);
  const bool found =
      name != nullptr && std::strncmp(name, "torch.", 6) == 0 && dtype_by_name(name + 6, out);
  Py_XDECREF(text);
  PyErr_Clear();
  // Kept for good where it is: dtypes are few and live as long as torch.
  if (found && torch_types.add(type, *out)) Py_INCREF(type);
  return found;
}

bool is_torch(PyTypeObject *type) noexcept {
  if (type == cached.tensor.load(std::memory_order_acquire) ||
      type == cached.parameter.load(std::memory_order_acquire))
    return true;
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
  if (!torch) return false;
  PyObject *exchange = PyObject_GetAttr(reinterpret_cast<PyObject *>(type), cached.exchange);
  if (exchange != nullptr) {
    const auto *found =
        static_cast<const DlExchange *>(PyCapsule_GetPointer(exchange, "dlpack_exchange_api"));
    if (found != nullptr && found->major == 1 && found->view_of != nullptr)
      cached.torch.store(found, std::memory_order_release);
    Py_DECREF(exchange);
  }
  PyErr_Clear();
  // Last: whoever finds the type does not look for the exchange any more.
  auto &place = std::strcmp(type->tp_name, "Tensor") == 0 ? cached.tensor : cached.parameter;
  place.store(type, std::memory_order_release);
  return true;
}

bool call_size(PyObject *object, PyObject *method, std::size_t *out) noexcept {
  PyObject *result = PyObject_CallMethodNoArgs(object, method);
  if (result == nullptr) return false;
  *out = PyLong_AsSize_t(result);
  Py_DECREF(result);
  return PyErr_Occurred() == nullptr;
}

// Where torch offers its tensors as a struct: a few tens of nanoseconds. A tensor of one element
// may be dense and yet stand for its own negative (the imaginary part of a conjugate).
bool read_exchanged(const DlExchange &torch, PyObject *object, Input *out) noexcept {
  DlTensor t;
  if (torch.view_of(object, &t) != 0) {
    PyErr_Clear();
    return false;
  }
  if (t.device_type != kDlCpu || !from_dl_type(t, &out->array.dtype) ||
      !dense_size(t, &out->array.n) || (t.data == nullptr && out->array.n != 0))
    return false;
  if (out->array.n == 1) {
    PyObject *negated = PyObject_CallMethodNoArgs(object, cached.is_neg);
    const bool plain = negated == Py_False;
    Py_XDECREF(negated);
    PyErr_Clear();
    if (!plain) return false;
  }
  out->array.data = static_cast<const char *>(t.data) + t.byte_offset;
  return true;
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
  PyObject *convert = cached.convert.load(std::memory_order_acquire);
  if (convert == nullptr) {
    PyObject *module = PyImport_ImportModule("ml_systems_debugger.kernels._arrays");
    if (module == nullptr) return false;
    convert = PyObject_GetAttrString(module, "convert");
    Py_DECREF(module);
    if (convert == nullptr) return false;
    PyObject *nobody = nullptr;
    if (!cached.convert.compare_exchange_strong(nobody, convert)) {
      Py_DECREF(convert);  // another thread was faster: the same function
      convert = nobody;
    }
  }
  PyObject *pair =
      PyObject_CallFunctionObjArgs(convert, object, dtype == nullptr ? Py_None : dtype, nullptr);
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
  cached.is_neg = PyUnicode_InternFromString("is_neg");
  cached.exchange = PyUnicode_InternFromString("__dlpack_c_exchange_api__");
  cached.module = PyUnicode_InternFromString("__module__");
  return PyErr_Occurred() == nullptr;
}

std::size_t read_plain(PyObject *const *objects, std::size_t count, mlsd::ArrayRef *out,
                       std::size_t *bytes) noexcept {
  // Arrays of one list mostly share one description.
  PyArray_Descr *known = nullptr;
  Dtype dtype = Dtype::f32;
  std::size_t item = 0, sum = 0, i = 0;
  for (; i < count; ++i) {
    if (!PyArray_CheckExact(objects[i])) break;
    PyArrayObject *array = reinterpret_cast<PyArrayObject *>(objects[i]);
    if (!PyArray_CHKFLAGS(array, NPY_ARRAY_C_CONTIGUOUS)) break;
    PyArray_Descr *descr = PyArray_DESCR(array);
    if (descr != known) {
      if (!PyArray_ISNBO(descr->byteorder) ||
          !from_type_number(descr->type_num, static_cast<std::size_t>(PyArray_ITEMSIZE(array)),
                            &dtype))
        break;
      known = descr;
      item = item_size(dtype);
    }
    out[i].data = PyArray_DATA(array);
    out[i].n = size_of(array);
    out[i].dtype = dtype;
    sum += out[i].n * item;
  }
  *bytes += sum;
  return i;
}

bool read_input(PyObject *object, PyObject *dtype, Input *out) noexcept {
  if (dtype != nullptr && dtype != Py_None) {
    // Raw bytes in a plain array of the right width, as bfloat16 in uint16.
    Dtype named;
    const char *name = PyUnicode_Check(dtype) ? PyUnicode_AsUTF8(dtype) : nullptr;
    if (name == nullptr) PyErr_Clear();
    if (name != nullptr && PyArray_CheckExact(object) && dtype_by_name(name, &named) &&
        read_numpy(object, out) &&
        (out->array.dtype == Dtype::u8 || out->array.dtype == Dtype::u16) &&
        item_size(named) == item_size(out->array.dtype)) {
      out->array.dtype = named;
      return true;
    }
  } else {
    if (PyArray_CheckExact(object)) {
      if (read_numpy(object, out)) return true;
    } else if (is_torch(Py_TYPE(object))) {
      const DlExchange *torch = cached.torch.load(std::memory_order_acquire);
      if (torch != nullptr ? read_exchanged(*torch, object, out) : read_torch(object, out))
        return true;
    }
  }
  return read_converted(object, dtype, out);
}

}  // namespace mlsd_bindings
