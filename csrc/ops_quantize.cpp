// SPDX-License-Identifier: Apache-2.0
// ops_quantize.cpp: per-token quantization as torch operators, on the CPU and on cards.
#include <tuple>

#include "checks.h"
#include "pennyweight/quantize.h"
#include "place.h"

namespace pennyweight::torch_ops {
namespace {

constexpr auto kFloat = ScalarType::Float;

template <class Op>
std::tuple<Tensor, Tensor> quantize_per_token(const char* name, ScalarType codes_dtype, const Tensor& x,
                                              const MaybeTensor& smooth) {
  const Place place(x);
  const Rows rows = float_rows({name, "x"}, x);
  const Dense divisor = vector({name, "smooth"}, smooth, kFloat, rows.columns);
  Tensor codes = make(x, rows.shape(rows.columns), codes_dtype), scale = make(x, rows.shape(1), kFloat);
  Op op{};
  op.x = rows.data;
  op.smooth = divisor.as<float>();
  op.codes = data(codes);
  op.scale = data<float>(scale);
  op.m = rows.rows;
  op.k = rows.columns;
  op.x_stride = rows.stride;
  op.x_dtype = rows.dtype;
  if (op.m > 0) run_on_torch(op);
  return {codes, scale};
}

// RMSNorm alone and before a quantization: what both read, and the sum with the residual. The tensors that `op` points
// into are held here.
template <class Op>
struct Norm {
  Place place;
  Rows rows;
  Dense gain;
  std::optional<Rows> added;
  Tensor hidden;
  Op op{};

  Norm(const char* name, const Tensor& x, const Tensor& weight, double eps, const MaybeTensor& residual)
      : place(x),
        rows(float_rows({name, "x"}, x)),
        gain(vector({name, "weight"}, weight, scalar_type_of(rows.dtype), rows.columns)),
        hidden(make(x, residual ? rows.shape(rows.columns) : std::vector<int64_t>{0}, scalar_type_of(rows.dtype))) {
    if (residual) {
      added = same_rows({name, "residual"}, *residual, rows);
      op.residual = added->data;
      op.residual_stride = added->stride;
      op.hidden = data(hidden);
    }
    op.x = rows.data;
    op.weight = gain.data;
    op.m = rows.rows;
    op.k = rows.columns;
    op.x_stride = rows.stride;
    op.eps = eps;
    op.x_dtype = rows.dtype;
  }
};

std::tuple<Tensor, Tensor> rms_norm(const Tensor& x, const Tensor& weight, double eps, const MaybeTensor& residual) {
  Norm<RmsNorm> norm("rms_norm", x, weight, eps, residual);
  Tensor normed = make(x, norm.rows.shape(norm.rows.columns), scalar_type_of(norm.rows.dtype));
  norm.op.normed = data(normed);
  if (norm.op.m > 0) run_on_torch(norm.op);
  return {normed, norm.hidden};
}

template <class Op>
std::tuple<Tensor, Tensor, Tensor> rms_norm_quantize(const char* name, ScalarType codes_dtype, const Tensor& x,
                                                     const Tensor& weight, double eps, const MaybeTensor& residual) {
  Norm<Op> norm(name, x, weight, eps, residual);
  Tensor codes = make(x, norm.rows.shape(norm.rows.columns), codes_dtype);
  Tensor scale = make(x, norm.rows.shape(1), kFloat);
  norm.op.codes = data(codes);
  norm.op.scale = data<float>(scale);
  if (norm.op.m > 0) run_on_torch(norm.op);
  return {codes, scale, norm.hidden};
}

// SiLU alone and before a quantization: what both read.
template <class Op>
struct Silu {
  Place place;
  Rows rows;
  Op op{};

  Silu(const char* name, const Tensor& gate_up) : place(gate_up), rows(float_rows({name, "gate_up"}, gate_up)) {
    op.gate_up = rows.data;
    op.m = rows.rows;
    op.k = half_of({name, "gate_up"}, rows);
    op.x_stride = rows.stride;
    op.x_dtype = rows.dtype;
  }
};

Tensor silu_mul(const Tensor& gate_up) {
  Silu<SiluMul> silu("silu_mul", gate_up);
  Tensor y = make(gate_up, silu.rows.shape(silu.op.k), scalar_type_of(silu.rows.dtype));
  silu.op.y = data(y);
  if (silu.op.m > 0) run_on_torch(silu.op);
  return y;
}

template <class Op>
std::tuple<Tensor, Tensor> silu_mul_quantize(const char* name, ScalarType codes_dtype, const Tensor& gate_up) {
  Silu<Op> silu(name, gate_up);
  Tensor codes = make(gate_up, silu.rows.shape(silu.op.k), codes_dtype);
  Tensor scale = make(gate_up, silu.rows.shape(1), kFloat);
  silu.op.codes = data(codes);
  silu.op.scale = data<float>(scale);
  if (silu.op.m > 0) run_on_torch(silu.op);
  return {codes, scale};
}

auto quantize_per_token_int8(const Tensor& x, const MaybeTensor& smooth) {
  return quantize_per_token<QuantizePerTokenInt8>("quantize_per_token_int8", ScalarType::Char, x, smooth);
}
auto quantize_per_token_fp8(const Tensor& x, const MaybeTensor& smooth) {
  return quantize_per_token<QuantizePerTokenFp8>("quantize_per_token_fp8", ScalarType::Byte, x, smooth);
}
auto rms_norm_quantize_int8(const Tensor& x, const Tensor& weight, double eps, const MaybeTensor& residual) {
  return rms_norm_quantize<RmsNormQuantizeInt8>("rms_norm_quantize_int8", ScalarType::Char, x, weight, eps, residual);
}
auto rms_norm_quantize_fp8(const Tensor& x, const Tensor& weight, double eps, const MaybeTensor& residual) {
  return rms_norm_quantize<RmsNormQuantizeFp8>("rms_norm_quantize_fp8", ScalarType::Byte, x, weight, eps, residual);
}
auto silu_mul_quantize_int8(const Tensor& gate_up) {
  return silu_mul_quantize<SiluMulQuantizeInt8>("silu_mul_quantize_int8", ScalarType::Char, gate_up);
}
auto silu_mul_quantize_fp8(const Tensor& gate_up) {
  return silu_mul_quantize<SiluMulQuantizeFp8>("silu_mul_quantize_fp8", ScalarType::Byte, gate_up);
}

// What runs on CPUs and on cards alike.
template <class Library>
void implement(Library& m) {
  m.impl("quantize_per_token_int8", TORCH_BOX(&quantize_per_token_int8));
  m.impl("quantize_per_token_fp8", TORCH_BOX(&quantize_per_token_fp8));
  m.impl("rms_norm", TORCH_BOX(&rms_norm));
  m.impl("rms_norm_quantize_int8", TORCH_BOX(&rms_norm_quantize_int8));
  m.impl("rms_norm_quantize_fp8", TORCH_BOX(&rms_norm_quantize_fp8));
  m.impl("silu_mul_quantize_int8", TORCH_BOX(&silu_mul_quantize_int8));
  m.impl("silu_mul_quantize_fp8", TORCH_BOX(&silu_mul_quantize_fp8));
  m.impl("silu_mul", TORCH_BOX(&silu_mul));
}

}  // namespace
}  // namespace pennyweight::torch_ops

STABLE_TORCH_LIBRARY_IMPL(pennyweight, CPU, m) { pennyweight::torch_ops::implement(m); }

STABLE_TORCH_LIBRARY_IMPL(pennyweight, CUDA, m) { pennyweight::torch_ops::implement(m); }
