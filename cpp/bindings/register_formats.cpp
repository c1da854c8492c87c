#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "bindings/module.hpp"
#include "formats/delimited.hpp"
#include "formats/event_file.hpp"
#include "formats/wandb_file.hpp"

namespace py = pybind11;

namespace {

// Hands a vector's memory to NumPy: no copy.
template <typename T>
py::array_t<T> to_array(std::vector<T>&& values) {
  auto held = std::make_unique<std::vector<T>>(std::move(values));
  T* data = held->data();
  const auto size = static_cast<py::ssize_t>(held->size());
  py::capsule owner(held.release(), [](void* p) { delete static_cast<std::vector<T>*>(p); });
  return py::array_t<T>({size}, {static_cast<py::ssize_t>(sizeof(T))}, data, owner);
}

py::object parse_delimited(const py::bytes& block, const std::string& delimiter,
                           std::size_t columns) {
  if (delimiter.size() != 1 || delimiter[0] == '\n' || delimiter[0] == '\r') {
    throw py::value_error("delimiter is one character, no line end");
  }
  char* text = nullptr;
  py::ssize_t size = 0;
  if (PyBytes_AsStringAndSize(block.ptr(), &text, &size) != 0) throw py::error_already_set();
  if (columns == 0 || columns > (std::size_t{1} << 24)) {
    throw py::value_error("columns lies between 1 and 16777216, got " + std::to_string(columns));
  }
  mlsd::DelimitedBlock found;
  bool regular;
  {
    py::gil_scoped_release release;
    regular =
        mlsd::parse_delimited(text, static_cast<std::size_t>(size), delimiter[0], columns, &found);
  }
  if (!regular) return py::none();
  py::list out;
  for (auto& column : found.columns) {
    py::object rows = py::none();
    if (!column.dense) rows = to_array(std::move(column.rows));
    out.append(py::make_tuple(to_array(std::move(column.values)), rows));
  }
  py::list odd;
  for (const auto& cell : found.odd) {
    odd.append(
        py::make_tuple(cell.row, cell.column, py::bytes(text + cell.start, cell.end - cell.start)));
  }
  return py::make_tuple(found.rows, out, odd);
}

// Event file bytes in, in pieces of any size; incomplete records wait for their rest.
class Events {
 public:
  void feed(const py::bytes& piece) {
    char* text = nullptr;
    py::ssize_t size = 0;
    if (PyBytes_AsStringAndSize(piece.ptr(), &text, &size) != 0) throw py::error_already_set();
    py::gil_scoped_release release;
    const auto* data = reinterpret_cast<const std::uint8_t*>(text);
    if (waiting_.empty()) {
      const std::size_t used = reader_.feed(data, static_cast<std::size_t>(size));
      if (!reader_.stopped) waiting_.assign(data + used, data + size);
      return;
    }
    waiting_.insert(waiting_.end(), data, data + size);
    if (reader_.wanted > waiting_.size()) return;  // still not all of it there
    const std::size_t used = reader_.feed(waiting_.data(), waiting_.size());
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(used));
    if (reader_.stopped) waiting_.clear();
  }

  // What was found since the last call; a record that is incomplete waits on.
  py::dict take() {
    py::list tags;
    for (auto& tag : reader_.tags) {
      tags.append(py::make_tuple(py::bytes(tag.name), to_array(std::move(tag.records)),
                                 to_array(std::move(tag.steps)), to_array(std::move(tag.times)),
                                 to_array(std::move(tag.values))));
    }
    static const char* const kKinds[] = {"none", "length_checksum", "data_checksum", "message"};
    py::list faults;
    for (const auto& fault : reader_.faults) {
      faults.append(py::make_tuple(kKinds[static_cast<int>(fault.kind)], fault.offset));
    }
    py::dict out;
    out["tags"] = tags;
    out["faults"] = faults;
    out["records"] = reader_.records;
    out["skipped"] = reader_.skipped;
    out["offset"] = reader_.offset;
    out["waiting"] = waiting_.size();
    reader_.forget();
    return out;
  }

  py::dict finish() {
    py::dict out = take();
    reader_ = mlsd::EventReader();
    waiting_.clear();
    return out;
  }

 private:
  mlsd::EventReader reader_;
  std::vector<std::uint8_t> waiting_;
};

// The bytes of an offline W&B file in, in pieces of any size.
class Wandb {
 public:
  void feed(const py::bytes& piece) {
    char* text = nullptr;
    py::ssize_t size = 0;
    if (PyBytes_AsStringAndSize(piece.ptr(), &text, &size) != 0) throw py::error_already_set();
    py::gil_scoped_release release;
    reader_.feed(reinterpret_cast<const std::uint8_t*>(text), static_cast<std::size_t>(size));
  }

  py::dict take() {
    py::list columns;
    for (auto& column : reader_.columns) {
      columns.append(py::make_tuple(py::bytes(column.name), to_array(std::move(column.rows)),
                                    to_array(std::move(column.values))));
    }
    py::list config;
    for (const auto& item : reader_.config) {
      config.append(py::make_tuple(py::bytes(item.first), py::bytes(item.second)));
    }
    py::list faults;
    for (const auto offset : reader_.faults) faults.append(offset);
    py::dict out;
    out["columns"] = columns;
    out["steps"] = to_array(std::move(reader_.steps));
    out["times"] = to_array(std::move(reader_.times));
    out["config"] = config;
    out["faults"] = faults;
    out["skipped"] = reader_.skipped;
    out["waiting"] = reader_.waiting();
    out["offset"] = reader_.offset;
    reader_.forget();
    return out;
  }

  py::dict finish() {
    py::dict out = take();
    reader_ = mlsd::WandbReader();
    return out;
  }

 private:
  mlsd::WandbReader reader_;
};

}  // namespace

void register_formats(py::module_& m) {
  m.def("parse_delimited", &parse_delimited, py::arg("block"), py::arg("delimiter"),
        py::arg("columns"),
        "Parse whole lines of numbers; None where a line does not have that many cells.\n\n"
        "Returns (rows, [(values float64, rows int64 or None)], [(row, column, cell)]).");
  m.def(
      "crc32c",
      [](const py::bytes& data) {
        char* text = nullptr;
        py::ssize_t size = 0;
        if (PyBytes_AsStringAndSize(data.ptr(), &text, &size) != 0) throw py::error_already_set();
        return mlsd::crc32c(reinterpret_cast<const std::uint8_t*>(text),
                            static_cast<std::size_t>(size));
      },
      py::arg("data"), "Return the CRC-32C (Castagnoli) of some bytes.");
  py::class_<Wandb>(m, "WandbFileReader", py::metaclass(reinterpret_cast<PyObject*>(&PyType_Type)),
                    "Reads an offline W&B run file, piece by piece.")
      .def(py::init<>())
      .def("feed", &Wandb::feed, py::arg("piece"), "Take the next bytes of the file.")
      .def("finish", &Wandb::finish,
           "Return what was found: columns (name, rows, values), steps and times of the rows, "
           "config (key, JSON), faults (offsets), skipped, waiting, offset; and begin anew.")
      .def("take", &Wandb::take, "As `finish`, but the file goes on: only what is new since.");
  py::class_<Events>(m, "EventFileReader", py::metaclass(reinterpret_cast<PyObject*>(&PyType_Type)),
                     "Reads a TensorBoard event file, piece by piece.")
      .def(py::init<>())
      .def("feed", &Events::feed, py::arg("piece"), "Take the next bytes of the file.")
      .def("finish", &Events::finish,
           "Return what was found: tags (name, records, steps, times, values), faults (kind, "
           "offset), records, skipped, offset, waiting; and begin anew.")
      .def("take", &Events::take, "As `finish`, but the file goes on: only what is new since.");
}
