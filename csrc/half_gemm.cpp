// SPDX-License-Identifier: Apache-2.0
// half_gemm.cpp: torch's 16-bit GEMM on a card, for kernels that leave the products to it.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>

#include <array>

#include "checks.h"
#include "pennyweight/cuda.h"
#include "place.h"

namespace pennyweight::torch_ops {
namespace {

using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;

Tensor tensor_at(const void* data, Sizes sizes, Sizes strides, DType dtype) {
  const auto device = Place::current()->first().device();
  // (the one with a deleter: the other reports no errors)
  return torch::stable::from_blob(const_cast<void*>(data), sizes, strides, device, scalar_type_of(dtype), [](void*) {});
}
Tensor matrix_at(const void* data, int64_t rows, int64_t columns, int64_t stride, DType dtype) {
  const int64_t sizes[] = {rows, columns}, strides[] = {stride, 1};
  return tensor_at(data, {sizes, 2}, {strides, 2}, dtype);
}
Tensor vector_at(const void* data, int64_t length, DType dtype) {
  const int64_t one = 1;
  return tensor_at(data, {&length, 1}, {&one, 1}, dtype);
}

// In torch's current stream, which is the call's.
int by_torch(const HalfOperands& o, const CudaCall&) {
  using torch::stable::detail::from;
  const Tensor x = matrix_at(o.x, o.m, o.k, o.x_stride, o.dtype), w = matrix_at(o.w, o.n, o.k, o.k, o.dtype);
  const Tensor y = matrix_at(o.y, o.m, o.n, o.y_stride, o.dtype);
  MaybeTensor bias;
  if (o.bias) bias = vector_at(o.bias, o.n, o.dtype);
  std::array<StableIValue, 4> stack{from(x), from(w), from(bias), from(y)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::linear", "out", stack.data(), TORCH_ABI_VERSION));
  torch::stable::detail::to<Tensor>(stack[0]);  // y again
  return 0;
}

[[maybe_unused]] const bool given = (set_half_gemm(by_torch), true);

}  // namespace
}  // namespace pennyweight::torch_ops
