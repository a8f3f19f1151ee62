// SPDX-License-Identifier: Apache-2.0
// fake_card.cpp: a card for a torch without CUDA, so that operators on "cuda" tensors, and whole models, can be run
// where there is none. Its memory is the host's; two devices, each with a current stream that the test sets. Built
// twice from this file: as libtorch_cuda.so (-DPW_FAKE_TORCH_CUDA), which answers what csrc/place.cpp asks of torch's
// CUDA half, and as the registration of guard, allocator and torch's own operators, which the CPU's kernels compute in
// place.
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
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>
#include <ATen/core/stack.h>

#include <cstdlib>
#include <cstring>

extern "C" PwFakeState pw_fake_state;

namespace at {
// Torch asks these whether there is an accelerator, and finds them by this name.
struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  c10::Device getDeviceFromPtr(void*) const override {
    return c10::Device(c10::DeviceType::CUDA, static_cast<int8_t>(pw_fake_state.device));
  }
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 2; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at

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
  void* getStreamNativeHandle(const c10::Stream s) const override { return pw_fake_state.streams[s.device_index()]; }
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

c10::Device card(int64_t index) { return c10::Device(c10::DeviceType::CUDA, static_cast<int8_t>(index)); }

at::Tensor empty(c10::IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
                 std::optional<c10::Device> device, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  const int32_t before = pw_fake_state.device;
  if (device && device->has_index()) pw_fake_state.device = device->index();
  auto out = at::detail::empty_generic(size, &memory, c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                       dtype.value_or(c10::ScalarType::Float), format);
  pw_fake_state.device = before;
  return out;
}

// A tensor on the memory of `t`, on the other side; `keep` is held as long as it lives.
at::Tensor on(c10::Device device, const at::Tensor& t, const at::Tensor& keep) {
  const bool host = device.is_cpu();
  const c10::Storage& source = t.storage();
  auto* held = new at::Tensor(keep);
  c10::DataPtr data(source.mutable_data(), held, [](void* p) { delete static_cast<at::Tensor*>(p); }, device);
  c10::Allocator* allocator = host ? c10::GetAllocator(c10::DeviceType::CPU) : &memory;
  c10::Storage storage(c10::Storage::use_byte_size_t(), source.nbytes(), std::move(data), allocator, true);
  auto out = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(host ? c10::DispatchKey::CPU : c10::DispatchKey::CUDA), t.dtype());
  out.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
  return out;
}

// One of torch's own operators, by the CPU's kernel on the same memory.
class OnHost {
 public:
  void run(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
    const size_t count = op.schema().arguments().size();
    for (size_t i = stack->size() - count; i < stack->size(); ++i) look_for_device((*stack)[i]);
    for (size_t i = stack->size() - count; i < stack->size(); ++i) (*stack)[i] = to_host((*stack)[i]);
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
    for (const auto& [given, host] : pairs_) resized(given, host);
    for (size_t i = stack->size() - op.schema().returns().size(); i < stack->size(); ++i)
      (*stack)[i] = to_card((*stack)[i]);
  }

 private:
  std::vector<std::pair<at::Tensor, at::Tensor> > pairs_;  // what was given, and the same for the CPU's kernel
  c10::Device device_ = card(pw_fake_state.device);

  void look_for_device(const c10::IValue& value) {
    if (value.isTensor() && value.toTensor().defined() && value.toTensor().is_cuda())
      device_ = value.toTensor().device();
    if (value.isDevice() && value.toDevice().is_cuda() && value.toDevice().has_index()) device_ = value.toDevice();
  }
  at::Tensor to_host(const at::Tensor& t) {
    if (!t.defined() || !t.is_cuda()) return t;
    pairs_.emplace_back(t, on(c10::Device(c10::DeviceType::CPU), t, t));
    return pairs_.back().second;
  }
  c10::IValue to_host(const c10::IValue& value) {
    if (value.isTensor()) return to_host(value.toTensor());
    if (value.isDevice()) return c10::Device(c10::DeviceType::CPU);
    if (value.isTensorList()) {
      c10::List<at::Tensor> out;
      for (const at::Tensor& t : value.toTensorVector()) out.push_back(to_host(t));
      return out;
    }
    if (value.isList() && value.toListRef().size() &&
        value.toList().elementType()->kind() == c10::TypeKind::OptionalType) {
      c10::List<std::optional<at::Tensor> > out;
      for (const c10::IValue& v : value.toListRef())
        out.push_back(v.isNone() ? std::nullopt : std::optional<at::Tensor>(to_host(v.toTensor())));
      return out;
    }
    return value;
  }
  at::Tensor to_card(const at::Tensor& t) {
    if (!t.defined()) return t;
    for (const auto& [given, host] : pairs_)
      if (host.is_same(t)) return given;
    return on(device_, t, t);  // a view's memory is kept through its base's
  }
  c10::IValue to_card(const c10::IValue& value) {
    if (value.isTensor()) return to_card(value.toTensor());
    if (!value.isTensorList()) return value;
    c10::List<at::Tensor> out;
    for (const at::Tensor& t : value.toTensorVector()) out.push_back(to_card(t));
    return out;
  }
  // An `out` that the kernel gave another size.
  void resized(const at::Tensor& given, const at::Tensor& host) {
    if (given.sizes() == host.sizes() && given.strides() == host.strides()) return;
    const at::Tensor fresh = on(given.device(), host, host);
    given.unsafeGetTensorImpl()->set_storage_keep_dtype(fresh.storage());
    given.unsafeGetTensorImpl()->set_sizes_and_strides(fresh.sizes(), fresh.strides(), fresh.storage_offset());
  }
};
void on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  TORCH_CHECK_NOT_IMPLEMENTED(op.schema().getNamespace() == "aten", "nothing is registered for ", op.schema().name());
  OnHost().run(op, stack);
}

// The bytes of `t` on the other side.
at::Tensor to_card(const at::Tensor& t, int64_t device) {
  auto out = empty(t.sizes(), t.scalar_type(), {}, card(device), {}, {});
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

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("copy_", torch::CppFunction::makeFromBoxedFunction<&on_host>());  // its default asks for a kernel for CUDA
}
TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_host>()); }
TORCH_LIBRARY(pw_fake, m) {
  m.def("to_card(Tensor t, int device) -> Tensor");
  m.def("to_host(Tensor t) -> Tensor");
}
TORCH_LIBRARY_IMPL(pw_fake, CPU, m) { m.impl("to_card", &to_card); }
TORCH_LIBRARY_IMPL(pw_fake, CUDA, m) { m.impl("to_host", &to_host); }
#endif
