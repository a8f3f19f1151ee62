// SPDX-License-Identifier: Apache-2.0
// fake_card.cpp: a card for a torch without CUDA, so that operators on "cuda" tensors can be called where there is
// none. Its memory is the host's; two devices, each with a current stream that the test sets. Built twice from this
// file: as libtorch_cuda.so (-DPW_FAKE_TORCH_CUDA), which answers what csrc/place.cpp asks of torch's CUDA half, and as
// the registration of guard and allocator with torch.
#include <cstdint>

extern "C" {
struct PwFakeState {
  int32_t device;
  int32_t guards;    // that are open
  void* streams[2];  // of each device
};
}

#if defined(PW_FAKE_TORCH_CUDA)

extern "C" {
PwFakeState pw_fake_state = {0, 0, {nullptr, nullptr}};

int32_t aoti_torch_get_current_cuda_stream(int32_t device, void** stream) {
  if (device < 0 || device > 1) return 1;
  *stream = pw_fake_state.streams[device];
  return 0;
}
// The guard is the device to go back to, plus one.
int32_t aoti_torch_create_cuda_guard(int32_t device, void** guard) {
  *guard = reinterpret_cast<void*>(static_cast<intptr_t>(pw_fake_state.device) + 1);
  pw_fake_state.device = device;
  ++pw_fake_state.guards;
  return 0;
}
int32_t aoti_torch_delete_cuda_guard(void* guard) {
  pw_fake_state.device = static_cast<int32_t>(reinterpret_cast<intptr_t>(guard)) - 1;
  --pw_fake_state.guards;
  return 0;
}
}

#else
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdlib>
#include <cstring>

extern "C" PwFakeState pw_fake_state;

namespace {

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::DeviceType::CUDA; }
  c10::Device exchangeDevice(c10::Device d) const override {
    const c10::Device old = getDevice();
    pw_fake_state.device = d.index();
    return old;
  }
  c10::Device getDevice() const override { return c10::Device(type(), static_cast<int8_t>(pw_fake_state.device)); }
  void setDevice(c10::Device d) const override { pw_fake_state.device = d.index(); }
  void uncheckedSetDevice(c10::Device d) const noexcept override { pw_fake_state.device = d.index(); }
  c10::Stream getStream(c10::Device d) const override { return c10::Stream(c10::Stream::DEFAULT, d); }
  c10::Stream exchangeStream(c10::Stream s) const override { return s; }
  c10::DeviceIndex deviceCount() const noexcept override { return 2; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* p = std::malloc(bytes ? bytes : 1);
    return {p, p, &std::free, c10::Device(c10::DeviceType::CUDA, static_cast<int8_t>(pw_fake_state.device))};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};
Memory memory;

at::Tensor empty(c10::IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
                 std::optional<c10::Device> device, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  const int32_t before = pw_fake_state.device;
  if (device && device->has_index()) pw_fake_state.device = device->index();
  auto out = at::detail::empty_generic(size, &memory, c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                       dtype.value_or(c10::ScalarType::Float), format);
  pw_fake_state.device = before;
  return out;
}

// The bytes of `t` on the other side.
at::Tensor to_card(const at::Tensor& t, int64_t device) {
  auto out =
      empty(t.sizes(), t.scalar_type(), {}, c10::Device(c10::DeviceType::CUDA, static_cast<int8_t>(device)), {}, {});
  std::memcpy(out.mutable_data_ptr(), t.const_data_ptr(), t.nbytes());
  return out;
}
at::Tensor to_host(const at::Tensor& t) {
  auto out = at::detail::empty_generic(t.sizes(), c10::GetAllocator(c10::DeviceType::CPU),
                                       c10::DispatchKeySet(c10::DispatchKey::CPU), t.scalar_type(), {});
  std::memcpy(out.mutable_data_ptr(), t.const_data_ptr(), t.nbytes());
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, CUDA, m) { m.impl("empty.memory_format", &empty); }
TORCH_LIBRARY(pw_fake, m) {
  m.def("to_card(Tensor t, int device) -> Tensor");
  m.def("to_host(Tensor t) -> Tensor");
}
TORCH_LIBRARY_IMPL(pw_fake, CPU, m) { m.impl("to_card", &to_card); }
TORCH_LIBRARY_IMPL(pw_fake, CUDA, m) { m.impl("to_host", &to_host); }
#endif
