// SPDX-License-Identifier: Apache-2.0
// schema.cpp: every torch operator of pennyweight on one page, through LibTorch's stable ABI.
//
// FP8 codes travel as uint8. M tokens, N outputs, K inputs; x is (..., K), float32, float16 or bfloat16. Packed weights
// are flat uint8 tensors in a layout of formats.h. group_size -1: one scale per channel. Functional unless marked (a!).
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(pennyweight, m) {
  // activations -> codes (..., K) and scale (..., 1), alone and fused with what produces them
  m.def("quantize_per_token_int8(Tensor x, Tensor? smooth=None) -> (Tensor codes, Tensor scale)");
  m.def("quantize_per_token_fp8(Tensor x, Tensor? smooth=None) -> (Tensor codes, Tensor scale)");
  m.def("rms_norm(Tensor x, Tensor weight, float eps, Tensor? residual=None) -> (Tensor normed, Tensor hidden)");
  m.def(
      "rms_norm_quantize_int8(Tensor x, Tensor weight, float eps, Tensor? residual=None)"
      " -> (Tensor codes, Tensor scale, Tensor hidden)");
  m.def(
      "rms_norm_quantize_fp8(Tensor x, Tensor weight, float eps, Tensor? residual=None)"
      " -> (Tensor codes, Tensor scale, Tensor hidden)");
  m.def("silu_mul_quantize_int8(Tensor gate_up) -> (Tensor codes, Tensor scale)");
  m.def("silu_mul_quantize_fp8(Tensor gate_up) -> (Tensor codes, Tensor scale)");
  m.def("silu_mul(Tensor gate_up) -> Tensor");

  // what stands between the linear layers when a token is decoded
  m.def("rotary(Tensor x, Tensor cos, Tensor sin) -> Tensor");
  m.def("attention_decode(Tensor q, Tensor keys, Tensor values, float scale, Tensor? mask=None) -> Tensor");

  // a decoder block while a token is decoded, before and after its cache; a layer is its scheme, its packed weight, the
  // scales of INT8 or FP8, the dtype of INT4's, [n, group_size, zero_points] and its bias
  m.def(
      "decode_front(Tensor x, Tensor norm_weight, float eps, str scheme, Tensor weight, Tensor? col_scale,"
      " str scale_dtype, int[] form, Tensor? bias, Tensor cos, Tensor sin, int heads, int kv_heads, int values_begin)"
      " -> (Tensor q, Tensor keys, Tensor values)");
  m.def(
      "decode_back(Tensor q, Tensor keys, Tensor values, float scale, Tensor? mask, Tensor residual,"
      " str o_scheme, Tensor o_weight, Tensor? o_col_scale, str o_scale_dtype, int[] o_form, Tensor? o_bias,"
      " Tensor norm_weight, float eps,"
      " str up_scheme, Tensor up_weight, Tensor? up_col_scale, str up_scale_dtype, int[] up_form, Tensor? up_bias,"
      " int intermediate, str down_scheme, Tensor down_weight, Tensor? down_col_scale, str down_scale_dtype,"
      " int[] down_form, Tensor? down_bias) -> (Tensor hidden, Tensor y)");

  // linear layers -> (..., N)
  m.def(
      "gemm_w8a8_int8(Tensor codes, Tensor? row_scale, Tensor weight, Tensor? col_scale, int n, Tensor? bias,"
      " ScalarType out_dtype) -> Tensor");
  m.def(
      "gemm_w8a8_fp8(Tensor codes, Tensor row_scale, Tensor weight, Tensor col_scale, int n, Tensor? bias,"
      " ScalarType out_dtype, bool fast_accum=True) -> Tensor");
  m.def(
      "linear_w8a8_int8(Tensor x, Tensor weight, Tensor col_scale, Tensor? bias=None, Tensor? smooth=None) -> Tensor");
  m.def(
      "linear_w8a8_fp8(Tensor x, Tensor weight, Tensor col_scale, Tensor? bias=None, Tensor? smooth=None,"
      " bool fast_accum=True) -> Tensor");
  m.def(
      "linear_w4a16(Tensor x, Tensor weight, int n, int group_size, str scale_dtype, bool zero_points,"
      " Tensor? bias=None) -> Tensor");
  m.def(
      "linear_w4a8_int8(Tensor x, Tensor weight, int n, int group_size, str scale_dtype, bool zero_points,"
      " Tensor? bias=None, Tensor? smooth=None) -> Tensor");
  m.def("linear_bf16(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor");

  // between the checkpoint's layout, the kernels' layout and floats
  m.def("pack_int8(Tensor codes) -> Tensor");
  m.def("unpack_int8(Tensor weight, int n, int k) -> Tensor");
  m.def("dequantize_int8(Tensor weight, Tensor scale, int n, int k) -> Tensor");
  m.def("pack_fp8(Tensor codes) -> Tensor");
  m.def("unpack_fp8(Tensor weight, int n, int k) -> Tensor");
  m.def("dequantize_fp8(Tensor weight, Tensor scale, int n, int k) -> Tensor");
  m.def("pack_int4(Tensor codes, Tensor scale, Tensor? zeros, str scale_dtype) -> Tensor");
  m.def(
      "unpack_int4(Tensor weight, int n, int k, int group_size, str scale_dtype, bool zero_points)"
      " -> (Tensor codes, Tensor scale, Tensor zeros)");
  m.def("dequantize_int4(Tensor weight, int n, int k, int group_size, str scale_dtype, bool zero_points) -> Tensor");
  m.def("pack_nibbles(Tensor codes) -> Tensor");
  m.def("unpack_nibbles(Tensor words, int columns) -> Tensor");

  // how weights are found
  m.def("hessian_accumulate(Tensor(a!) h, Tensor x) -> ()");
  m.def(
      "gptq_quantize(Tensor weight, Tensor hessian, Tensor scale, int bits, int group_size, float damping,"
      " bool act_order) -> (Tensor codes, Tensor stats)");
  m.def(
      "gptq_columns(Tensor factor, Tensor sums, Tensor scale, Tensor group, Tensor(a!) residual, Tensor(b!) codes,"
      " Tensor(c!) loss, int first, int bits) -> ()");
  m.def(
      "weight_scales(Tensor weight, str scheme, int group_size, str observer, int grid=100, float maxshrink=0.2,"
      " float norm=2.4, int patience=5) -> Tensor");
  m.def("quantize_weight(Tensor weight, Tensor scale, int group_size, str scheme) -> Tensor");
  m.def("column_range(Tensor x, Tensor(a!) low, Tensor(b!) high) -> ()");
  m.def("column_abs_max(Tensor weight) -> Tensor");
  m.def("smooth_scales(Tensor low, Tensor high, Tensor weight_abs_max, float strength) -> Tensor");
}
