// SPDX-License-Identifier: Apache-2.0
// module.cpp: the kernel library for Python without torch: run any op and implementation on NumPy buffers, list and
// force implementations, tell what ran. No arithmetic.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "pennyweight/cuda.h"
#include "pennyweight/formats.h"
#include "pennyweight/registry.h"

namespace py = pybind11;
namespace pw = pennyweight;

namespace {

constexpr const char* kDTypes[] = {"f32", "f16", "bf16", "i8", "u8", "i32"};

const pw::OpInfo& find(const std::string& name) {
  for (int i = 0; i < static_cast<int>(pw::OpId::count); ++i) {
    const pw::OpInfo& info = pw::op_info(static_cast<pw::OpId>(i));
    if (name == info.name) return info;
  }
  throw py::value_error("no op is called '" + name + "'; see ops()");
}

int32_t dtype_code(const std::string& name) {
  for (int i = 0; i < 6; ++i)
    if (name == kDTypes[i]) return i;
  throw py::value_error("no dtype is called '" + name + "'; use f32, f16, bf16, i8, u8 or i32");
}

// What a signal handler raised while an op ran (Ctrl-C: KeyboardInterrupt), until someone raises it.
PyObject* pending = nullptr;

// Lets Python's signal handlers run; true when one of them raised. On any thread but the main one they never run.
bool handler_raised() {
  if (!Py_IsInitialized()) return false;
  const py::gil_scoped_acquire acquire;
  if (PyErr_CheckSignals() == 0) return false;
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  Py_XDECREF(pending);
  pending = value;
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return true;
}

[[noreturn]] void raise_pending() {
  if (!pending) throw py::value_error("nothing was interrupted");
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(pending)), pending);
  Py_CLEAR(pending);
  throw py::error_already_set();
}

[[noreturn]] void raise(const pw::Status& status) {
  if (status.code == pw::Code::memory) throw std::bad_alloc();
  if (status.code == pw::Code::interrupted) raise_pending();
  throw py::value_error(status.message);
}

// An op's struct filled from keyword arguments, and the buffers it points into.
struct Call {
  std::vector<char> bytes;
  std::vector<py::buffer_info> buffers;
};

void set_pointer(Call& call, const pw::Field& field, const py::object& value) {
  const bool writable = field.kind == pw::FieldKind::output;
  call.buffers.push_back(py::reinterpret_borrow<py::buffer>(value).request(writable));
  void* pointer = call.buffers.back().ptr;
  std::memcpy(call.bytes.data() + field.offset, &pointer, sizeof pointer);
}

template <class T>
void set_value(Call& call, const pw::Field& field, T value) {
  std::memcpy(call.bytes.data() + field.offset, &value, sizeof value);
}

Call make_call(const pw::OpInfo& info, const py::dict& args) {
  Call call{std::vector<char>(info.bytes), {}};
  size_t used = 0;
  for (int i = 0; i < info.field_count; ++i) {
    const pw::Field& field = info.fields[i];
    if (!args.contains(field.name)) continue;
    ++used;
    const py::object value = args[field.name];
    if (value.is_none()) continue;
    switch (field.kind) {
      case pw::FieldKind::input:
      case pw::FieldKind::output:
        if (!PyObject_CheckBuffer(value.ptr()))
          throw py::type_error(std::string(info.name) + ": " + field.name + " must be a buffer or None");
        set_pointer(call, field, value);
        break;
      case pw::FieldKind::integer:
        set_value(call, field, value.cast<int64_t>());
        break;
      case pw::FieldKind::real:
        set_value(call, field, value.cast<double>());
        break;
      case pw::FieldKind::dtype:
        set_value(call, field, dtype_code(value.cast<std::string>()));
        break;
    }
  }
  if (used != args.size()) {
    std::string names;
    for (int i = 0; i < info.field_count; ++i) names += std::string(i ? ", " : "") + info.fields[i].name;
    throw py::type_error(std::string(info.name) + " takes " + names);
  }
  return call;
}

void run(const std::string& op, const py::dict& args, const py::object& implementation) {
  const pw::OpInfo& info = find(op);
  const Call call = make_call(info, args);
  const std::string name = implementation.is_none() ? "" : implementation.cast<std::string>();
  pw::Status status;
  {
    const py::gil_scoped_release release;
    status = pw::run(info.id, call.bytes.data(), pw::Executor{}, name.empty() ? nullptr : name.c_str());
  }
  if (status.code != pw::Code::ok) raise(status);
}

// [(implementation, reason why it does not take these arguments, or None)], best first.
py::list why_not(const std::string& op, const py::dict& args) {
  const pw::OpInfo& info = find(op);
  const Call call = make_call(info, args);
  py::list out;
  for (int i = 0; i < info.implementation_count; ++i) {
    const char* why = info.implementations[i].why_not(call.bytes.data(), pw::device());
    out.append(py::make_tuple(info.implementations[i].name, why ? py::object(py::str(why)) : py::none()));
  }
  return out;
}

std::string choose(const std::string& op, const py::dict& args) {
  const pw::OpInfo& info = find(op);
  const Call call = make_call(info, args);
  pw::Status status;
  const int i = pw::choose(info.id, call.bytes.data(), nullptr, &status);
  if (i < 0) raise(status);
  return info.implementations[i].name;
}

py::dict ops() {
  py::dict out;
  for (int i = 0; i < static_cast<int>(pw::OpId::count); ++i) {
    const pw::OpInfo& info = pw::op_info(static_cast<pw::OpId>(i));
    py::list fields, implementations;
    for (int f = 0; f < info.field_count; ++f) fields.append(info.fields[f].name);
    for (int j = 0; j < info.implementation_count; ++j) implementations.append(info.implementations[j].name);
    py::list cuda;
    const pw::CudaOp* on_cards = pw::cuda_op(info.id);
    for (int j = 0; on_cards && j < on_cards->implementation_count; ++j) cuda.append(on_cards->implementations[j].name);
    py::dict entry;
    entry["fields"] = fields;
    entry["implementations"] = implementations;
    entry["cuda"] = cuda;
    out[info.name] = entry;
  }
  return out;
}

// As why_not, of the implementations for cards, on a card of this compute capability (80, 86, 89, 90).
py::list cuda_why_not(const std::string& op, const py::dict& args, int compute, int multiprocessors,
                      int64_t shared_bytes) {
  const pw::OpInfo& info = find(op);
  const Call call = make_call(info, args);
  const pw::Card card{compute, multiprocessors, shared_bytes};
  py::list out;
  const pw::CudaOp* on_cards = pw::cuda_op(info.id);
  for (int i = 0; on_cards && i < on_cards->implementation_count; ++i) {
    const char* why = on_cards->implementations[i].why_not(call.bytes.data(), card);
    out.append(py::make_tuple(on_cards->implementations[i].name, why ? py::object(py::str(why)) : py::none()));
  }
  return out;
}

// {compute, multiprocessors, shared_bytes} of a card of this machine.
py::dict card(int index) {
  pw::Card found;
  const pw::Status status = pw::find_card(index, &found);
  if (status.code != pw::Code::ok) raise(status);
  py::dict out;
  out["compute"] = found.compute;
  out["multiprocessors"] = found.multiprocessors;
  out["shared_bytes"] = found.shared_bytes;
  return out;
}

py::object last_cuda_run(const std::string& op) {
  const char* name = pw::last_cuda_run(find(op).id);
  return name ? py::object(py::str(name)) : py::none();
}

py::object last_run(const std::string& op) {
  const char* name = pw::last_run(find(op).id);
  return name ? py::object(py::str(name)) : py::none();
}

py::dict run_counts(const std::string& op) {
  const pw::OpInfo& info = find(op);
  py::dict out;
  for (int i = 0; i < info.implementation_count; ++i) out[info.implementations[i].name] = pw::run_count(info.id, i);
  return out;
}

void force(const py::object& implementation) {
  const std::string name = implementation.is_none() ? "" : implementation.cast<std::string>();
  const pw::Status status = pw::force(implementation.is_none() ? nullptr : name.c_str());
  if (status.code != pw::Code::ok) raise(status);
}

py::object forced() {
  const char* name = pw::forced();
  return name ? py::object(py::str(name)) : py::none();
}

py::dict features() {
  const pw::Device& d = pw::device();
  py::dict out;
  out["avx2"] = d.avx2;
  out["avx512"] = d.avx512;
  out["avx512vnni"] = d.avx512vnni;
  out["avx512vbmi"] = d.avx512vbmi;
  out["avx512bf16"] = d.avx512bf16;
  out["l1_bytes"] = d.l1_bytes;
  out["l2_bytes"] = d.l2_bytes;
  out["l3_bytes"] = d.l3_bytes;
  return out;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string driver_text(const pw::CudaState& state) {
  if (state.driver_version == 0) return std::string("none: ") + state.reason;
  const std::string version = version_text(state.driver_version);
  if (*state.reason) return version + ", no device: " + state.reason;
  return version + ", " + std::to_string(state.device_count) + (state.device_count == 1 ? " device" : " devices");
}

// "80-real,89" -> ["80-real", "89"]
py::list split(const std::string& text) {
  py::list parts;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    parts.append(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

py::dict cuda() {
  const pw::CudaState state = pw::cuda_state();
  py::dict out;
  out["built"] = state.built;
  out["runtime"] = state.built ? py::object(py::str(version_text(state.runtime_version))) : py::none();
  out["architectures"] = split(state.architectures);
  out["driver"] = driver_text(state);
  return out;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "pennyweight's kernel library on plain buffers.";
  m.attr("version") = PW_VERSION;
  pw::set_interrupt_check(&handler_raised);
  m.def("run", &run, py::arg("op"), py::arg("args"), py::arg("implementation") = py::none(),
        "Run an op on buffers (one thread).");
  m.def("why_not", &why_not, py::arg("op"), py::arg("args"),
        "Each implementation, best first, with the reason why it does not take these arguments, or None.");
  m.def("choose", &choose, py::arg("op"), py::arg("args"), "The implementation that run() would take.");
  m.def("ops", &ops, "Every op: its arguments, its implementations and those for cards, best first.");
  m.def("cuda_why_not", &cuda_why_not, py::arg("op"), py::arg("args"), py::arg("compute"), py::arg("multiprocessors"),
        py::arg("shared_bytes"), "Like why_not, of the implementations for cards, on such a card.");
  m.def("card", &card, py::arg("index"), "Compute capability, multiprocessors and shared memory of a card.");
  m.def("last_cuda_run", &last_cuda_run, py::arg("op"), "The implementation for cards that was begun last, or None.");
  m.def("last_run", &last_run, py::arg("op"), "The implementation that ran last, or None.");
  m.def("run_counts", &run_counts, py::arg("op"), "How often each implementation has run.");
  m.def("force", &force, py::arg("implementation"), "Force an implementation by name for every op; None: the best.");
  m.def("forced", &forced, "The forced implementation's name, or None.");
  m.def("raise_interrupt", &raise_pending, "Raise what a signal handler raised while an op ran.");
  m.def("strict", [] { return pw::strict(); }, "Whether PENNYWEIGHT_STRICT is on.");
  m.def("cuda", &cuda,
        "CUDA: whether it was built in, runtime, architectures (CMake's words), and the driver or why there is none.");
  m.def("features", &features, "What the processor can do, and its cache sizes in bytes.");
}
