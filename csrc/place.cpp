// SPDX-License-Identifier: Apache-2.0
// place.cpp: see place.h. Torch's CUDA half is asked through its C interface in the library that torch has loaded: this
// library links against none of it, and works with a torch that has none. A torch whose CUDA half is another library is
// asked through the device-neutral interface, which gives a stream's handle from 2.13 on.
#include "place.h"

#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <stdexcept>

namespace pennyweight::torch_ops {
namespace {

thread_local const Place* here = nullptr;

// Each returns 0 when it worked.
struct Torch {
  int32_t (*current_stream)(int32_t device, void** stream) = nullptr;
  int32_t (*create_guard)(int32_t device, void** guard) = nullptr;
  int32_t (*delete_guard)(void* guard) = nullptr;

  bool complete() const { return current_stream && create_guard && delete_guard; }
};

// aoti_torch_*cuda* of torch/csrc/inductor/aoti_torch/c/shim.h, in torch since 2.2
Torch of_cuda() {
  Torch out;
  void* library = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
  if (!library) return out;
  out.current_stream =
      reinterpret_cast<decltype(out.current_stream)>(dlsym(library, "aoti_torch_get_current_cuda_stream"));
  out.create_guard = reinterpret_cast<decltype(out.create_guard)>(dlsym(library, "aoti_torch_create_cuda_guard"));
  out.delete_guard = reinterpret_cast<decltype(out.delete_guard)>(dlsym(library, "aoti_torch_delete_cuda_guard"));
  return out;
}

using NativeHandle = int32_t (*)(StreamHandle stream, void** handle);
NativeHandle native_handle() {
  static const auto found = reinterpret_cast<NativeHandle>(dlsym(RTLD_DEFAULT, "torch_stream_native_handle"));
  return found;
}

Torch of_any_device() {
  Torch out;
  if (!native_handle()) return out;
  out.current_stream = [](int32_t device, void** stream) -> int32_t {
    StreamHandle current = nullptr;
    if (const int32_t error = aoti_torch_get_current_stream(device, &current)) return error;
    const int32_t error = native_handle()(current, stream);
    aoti_torch_delete_stream(current);
    return error;
  };
  out.create_guard = [](int32_t device, void** guard) -> int32_t {
    return aoti_torch_create_device_guard(device, reinterpret_cast<DeviceGuardHandle*>(guard));
  };
  out.delete_guard = [](void* guard) -> int32_t {
    return aoti_torch_delete_device_guard(static_cast<DeviceGuardHandle>(guard));
  };
  return out;
}

const Torch& torch_half() {
  static const Torch found = [] {
    const Torch cuda = of_cuda();
    return cuda.complete() ? cuda : of_any_device();
  }();
  if (!found.complete())
    throw std::runtime_error(
        "[pw:device] torch has no CUDA here: libtorch_cuda.so is not loaded, or lacks what it has had since 2.2, and "
        "this torch has no torch_stream_native_handle (2.13); install a CUDA build of torch 2.11 or later");
  return found;
}

void check(int32_t error, const Place& place, const char* what) {
  if (error) throw std::runtime_error("[pw:device] " + place.name() + ": torch could not " + what);
}

}  // namespace

Place::Place(const torch::stable::Tensor& first) : first_(first), outer_(here), card_(first.is_cuda()) {
  if (card_) {
    index_ = first.get_device_index();
    check(torch_half().create_guard(index_, &guard_), *this, "make it the current device");
  }
  here = this;
}

Place::~Place() {
  here = outer_;
  if (guard_) torch_half().delete_guard(guard_);
}

const Place* Place::current() { return here; }

bool Place::has(const torch::stable::Tensor& t) const {
  return card_ ? t.is_cuda() && t.get_device_index() == index_ : t.is_cpu();
}

std::string Place::name() const { return card_ ? "cuda:" + std::to_string(index_) : "the CPU"; }

void* Place::stream() const {
  void* stream = nullptr;
  check(torch_half().current_stream(index_, &stream), *this, "name its current stream");
  return stream;
}

}  // namespace pennyweight::torch_ops
