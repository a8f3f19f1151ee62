// SPDX-License-Identifier: Apache-2.0
// ops_linear.cpp: the linear layers and their GEMMs as torch operators, on the CPU; W8A8 and W4A16 on cards too.
#include "checks.h"
#include "pennyweight/linear.h"
#include "place.h"

namespace pennyweight::torch_ops {
namespace {

constexpr auto kFloat = ScalarType::Float;

// What the two GEMMs share. The bare int32 accumulators (INT8 only) take neither scales nor bias.
template <class Op>
Tensor gemm_w8a8(const char* name, ScalarType codes_dtype, const Tensor& codes, const MaybeTensor& row_scale,
                 const Tensor& weight, const MaybeTensor& col_scale, int64_t n, const MaybeTensor& bias,
                 DType out_dtype, bool fast_accum) {
  const Place place(codes);
  check_positive(name, "n", n);
  const Rows rows = code_rows({name, "codes"}, codes, codes_dtype);
  const Dense by_code = packed({name, "weight"}, weight, code_bytes(n, rows.columns), n, rows.columns);
  const Dense by_row = vector({name, "row_scale"}, row_scale, kFloat, rows.rows);
  const Dense by_column = vector({name, "col_scale"}, col_scale, kFloat, n);
  const Dense added = vector({name, "bias"}, bias, scalar_type_of(out_dtype), n);
  Tensor y = make(codes, rows.shape(n), scalar_type_of(out_dtype));
  Op op{};
  op.codes = rows.data;
  op.row_scale = by_row.as<float>();
  op.weight = by_code.data;
  op.col_scale = by_column.as<float>();
  op.bias = added.data;
  op.y = data(y);
  op.m = rows.rows;
  op.n = op.y_stride = n;
  op.k = rows.columns;
  op.codes_stride = rows.stride;
  op.y_dtype = out_dtype;
  op.fast_accum = fast_accum;
  if (op.m > 0) run_on_torch(op);
  return y;
}

template <class Op>
Tensor linear_w8a8(const char* name, const Tensor& x, const Tensor& weight, const Tensor& col_scale,
                   const MaybeTensor& bias, const MaybeTensor& smooth, bool fast_accum) {
  const Place place(x);
  const Rows rows = float_rows({name, "x"}, x);
  const int64_t n = col_scale.numel();
  const Dense by_column = vector({name, "col_scale"}, col_scale, kFloat, n);
  check_positive(name, "N, the number of elements of col_scale,", n);
  const Dense by_code = packed({name, "weight"}, weight, code_bytes(n, rows.columns), n, rows.columns);
  const Dense added = vector({name, "bias"}, bias, scalar_type_of(rows.dtype), n);
  const Dense divisor = vector({name, "smooth"}, smooth, kFloat, rows.columns);
  Tensor y = make(x, rows.shape(n), scalar_type_of(rows.dtype));
  Op op{};
  op.x = rows.data;
  op.smooth = divisor.as<float>();
  op.weight = by_code.data;
  op.col_scale = by_column.as<float>();
  op.bias = added.data;
  op.y = data(y);
  op.m = rows.rows;
  op.n = op.y_stride = n;
  op.k = rows.columns;
  op.x_stride = rows.stride;
  op.x_dtype = rows.dtype;
  op.fast_accum = fast_accum;
  if (op.m > 0) run_on_torch(op);
  return y;
}

// Fills what the two 4-bit layers share, runs, returns y.
template <class Op>
Tensor linear_w4(const char* name, Op& op, const Rows& rows, const Tensor& weight, int64_t n, int64_t group_size,
                 const std::string& scale_dtype, bool zero_points, const MaybeTensor& bias) {
  const Int4Panel panel = int4_panel(name, n, rows.columns, group_size, scale_dtype, zero_points);
  const Dense blocks = packed({name, "weight"}, weight, panel.bytes(), n, rows.columns);
  const Dense added = vector({name, "bias"}, bias, scalar_type_of(rows.dtype), n);
  Tensor y = make(rows.tensor, rows.shape(n), scalar_type_of(rows.dtype));
  op.x = rows.data;
  op.weight = blocks.data;
  op.bias = added.data;
  op.y = data(y);
  op.m = rows.rows;
  op.n = op.y_stride = n;
  op.k = rows.columns;
  op.x_stride = rows.stride;
  op.group_size = panel.group_size;
  op.zero_points = zero_points;
  op.x_dtype = rows.dtype;
  op.scale_dtype = panel.scale_dtype;
  if (op.m > 0) run_on_torch(op);
  return y;
}

Tensor gemm_w8a8_int8(const Tensor& codes, const MaybeTensor& row_scale, const Tensor& weight,
                      const MaybeTensor& col_scale, int64_t n, const MaybeTensor& bias, ScalarType out_dtype) {
  const char* name = "gemm_w8a8_int8";
  const DType y_dtype = out_dtype_of(name, out_dtype, true);
  check_epilogue(name, y_dtype, row_scale.has_value(), col_scale.has_value(), bias.has_value());
  return gemm_w8a8<GemmW8A8Int8>(name, ScalarType::Char, codes, row_scale, weight, col_scale, n, bias, y_dtype, false);
}

Tensor gemm_w8a8_fp8(const Tensor& codes, const Tensor& row_scale, const Tensor& weight, const Tensor& col_scale,
                     int64_t n, const MaybeTensor& bias, ScalarType out_dtype, bool fast_accum) {
  const char* name = "gemm_w8a8_fp8";
  return gemm_w8a8<GemmW8A8Fp8>(name, ScalarType::Byte, codes, row_scale, weight, col_scale, n, bias,
                                out_dtype_of(name, out_dtype, false), fast_accum);
}

Tensor linear_w8a8_int8(const Tensor& x, const Tensor& weight, const Tensor& col_scale, const MaybeTensor& bias,
                        const MaybeTensor& smooth) {
  return linear_w8a8<LinearW8A8Int8>("linear_w8a8_int8", x, weight, col_scale, bias, smooth, false);
}

Tensor linear_w8a8_fp8(const Tensor& x, const Tensor& weight, const Tensor& col_scale, const MaybeTensor& bias,
                       const MaybeTensor& smooth, bool fast_accum) {
  return linear_w8a8<LinearW8A8Fp8>("linear_w8a8_fp8", x, weight, col_scale, bias, smooth, fast_accum);
}

Tensor linear_w4a16(const Tensor& x, const Tensor& weight, int64_t n, int64_t group_size,
                    const std::string& scale_dtype, bool zero_points, const MaybeTensor& bias) {
  const char* name = "linear_w4a16";
  const Place place(x);
  LinearW4A16 op{};
  return linear_w4(name, op, float_rows({name, "x"}, x), weight, n, group_size, scale_dtype, zero_points, bias);
}

Tensor linear_w4a8_int8(const Tensor& x, const Tensor& weight, int64_t n, int64_t group_size,
                        const std::string& scale_dtype, bool zero_points, const MaybeTensor& bias,
                        const MaybeTensor& smooth) {
  const char* name = "linear_w4a8_int8";
  const Rows rows = float_rows({name, "x"}, x);
  const Dense divisor = vector({name, "smooth"}, smooth, kFloat, rows.columns);
  LinearW4A8Int8 op{};
  op.smooth = divisor.as<float>();
  return linear_w4(name, op, rows, weight, n, group_size, scale_dtype, zero_points, bias);
}

Tensor linear_bf16(const Tensor& x, const Tensor& weight, const MaybeTensor& bias) {
  const char* name = "linear_bf16";
  const Rows rows = bf16_rows({name, "x"}, x), by_output = bf16_rows({name, "weight"}, weight);
  check_weight(name, x, weight);
  const int64_t n = by_output.rows;
  const Dense added = vector({name, "bias"}, bias, ScalarType::BFloat16, n);
  Tensor y = make(x, rows.shape(n), ScalarType::BFloat16);
  LinearBf16 op{};
  op.x = rows.data;
  op.weight = by_output.data;
  op.bias = added.data;
  op.y = data(y);
  op.m = rows.rows;
  op.n = op.y_stride = n;
  op.k = rows.columns;
  op.x_stride = rows.stride;
  op.w_stride = by_output.stride;
  if (op.m > 0) run_on_torch(op);
  return y;
}

// What runs on CPUs and on cards alike.
template <class Library>
void implement(Library& m) {
  m.impl("gemm_w8a8_int8", TORCH_BOX(&gemm_w8a8_int8));
  m.impl("gemm_w8a8_fp8", TORCH_BOX(&gemm_w8a8_fp8));
  m.impl("linear_w8a8_int8", TORCH_BOX(&linear_w8a8_int8));
  m.impl("linear_w8a8_fp8", TORCH_BOX(&linear_w8a8_fp8));
  m.impl("linear_w4a16", TORCH_BOX(&linear_w4a16));
}

}  // namespace
}  // namespace pennyweight::torch_ops

STABLE_TORCH_LIBRARY_IMPL(pennyweight, CPU, m) {
  using namespace pennyweight::torch_ops;
  implement(m);
  m.impl("linear_w4a8_int8", TORCH_BOX(&linear_w4a8_int8));
  m.impl("linear_bf16", TORCH_BOX(&linear_bf16));
}

STABLE_TORCH_LIBRARY_IMPL(pennyweight, CUDA, m) { pennyweight::torch_ops::implement(m); }
