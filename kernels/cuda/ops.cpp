// SPDX-License-Identifier: Apache-2.0
// ops.cpp: the implementations for cards of every op that has one, best first.
#include "calibrate_sm80.h"
#include "kernels_quantize.h"
#include "linear_sm80.h"
#include "linear_sm90.h"
#include "pack_sm80.h"
#include "table.h"

namespace pennyweight::cuda {
namespace {

// The ops that work row by row share their predicate.
template <class Op>
const char* rows_why_not(const Op& op, const Card& card) {
  DType kept = op.x_dtype;
  if constexpr (requires { op.smooth; })
    if (op.smooth) kept = DType::f32;  // quotients do not fit into 16 bits
  return sm80::why_not_rows(op.m, op.k, kept, card);
}

#define PW_ROWS(Op, name)                                                              \
  const CudaImplementation name[] = {                                                  \
      {"sm80", erased_why_not<Op, rows_why_not<Op>>, erased<Op, sm80::name>, nullptr}, \
  }

PW_ROWS(QuantizePerTokenInt8, quantize_per_token_int8);
PW_ROWS(QuantizePerTokenFp8, quantize_per_token_fp8);
PW_ROWS(RmsNorm, rms_norm);
PW_ROWS(RmsNormQuantizeInt8, rms_norm_quantize_int8);
PW_ROWS(RmsNormQuantizeFp8, rms_norm_quantize_fp8);
PW_ROWS(SiluMulQuantizeInt8, silu_mul_quantize_int8);
PW_ROWS(SiluMulQuantizeFp8, silu_mul_quantize_fp8);
PW_ROWS(SiluMul, silu_mul);

const CudaImplementation gemm_w8a8_int8[] = {
    {"sm90", erased_why_not<GemmW8A8Int8, why_not_gemm_w8a8_int8_sm90>, erased<GemmW8A8Int8, gemm_w8a8_int8_sm90>,
     nullptr, 90},
    {"sm80", erased_why_not<GemmW8A8Int8, why_not_gemm_w8a8_int8_sm80>, erased<GemmW8A8Int8, gemm_w8a8_int8_sm80>,
     erased_bytes<GemmW8A8Int8, workspace_gemm_w8a8_int8_sm80>},
};

// sm89 multiplies E4M3 codes by mma.sync, natively on sm_89 and sm_120. On sm_90, where that instruction runs at the
// rate of 16 bits, what is made for sm_90 comes before it, and sm89 remains for shapes and builds without that.
const CudaImplementation gemm_w8a8_fp8[] = {
    {"sm90", erased_why_not<GemmW8A8Fp8, why_not_gemm_w8a8_fp8_sm90>, erased<GemmW8A8Fp8, gemm_w8a8_fp8_sm90>, nullptr,
     90},
    {"sm89", erased_why_not<GemmW8A8Fp8, why_not_gemm_w8a8_fp8_sm89>, erased<GemmW8A8Fp8, gemm_w8a8_fp8_sm89>,
     erased_bytes<GemmW8A8Fp8, workspace_gemm_w8a8_fp8_sm89>},
    {"sm80", erased_why_not<GemmW8A8Fp8, why_not_gemm_w8a8_fp8_sm80>, erased<GemmW8A8Fp8, gemm_w8a8_fp8_sm80>,
     erased_bytes<GemmW8A8Fp8, workspace_gemm_w8a8_fp8_sm80>},
};

const CudaImplementation linear_w8a8_int8[] = {
    {"sm90", erased_why_not<LinearW8A8Int8, why_not_linear_w8a8_int8_sm90>,
     erased<LinearW8A8Int8, linear_w8a8_int8_sm90>, erased_bytes<LinearW8A8Int8, workspace_linear_w8a8_int8_sm90>, 90},
    {"sm80", erased_why_not<LinearW8A8Int8, why_not_linear_w8a8_int8_sm80>,
     erased<LinearW8A8Int8, linear_w8a8_int8_sm80>, erased_bytes<LinearW8A8Int8, workspace_linear_w8a8_int8_sm80>},
};

// sm80_w8a16 leaves x as it is and decodes the weight to x's type; sm80 quantizes x, and decodes both to f16.
const CudaImplementation linear_w8a8_fp8[] = {
    {"sm90", erased_why_not<LinearW8A8Fp8, why_not_linear_w8a8_fp8_sm90>, erased<LinearW8A8Fp8, linear_w8a8_fp8_sm90>,
     erased_bytes<LinearW8A8Fp8, workspace_linear_w8a8_fp8_sm90>, 90},
    {"sm89", erased_why_not<LinearW8A8Fp8, why_not_linear_w8a8_fp8_sm89>, erased<LinearW8A8Fp8, linear_w8a8_fp8_sm89>,
     erased_bytes<LinearW8A8Fp8, workspace_linear_w8a8_fp8_sm89>},
    {"sm80_w8a16", erased_why_not<LinearW8A8Fp8, why_not_linear_w8a8_fp8_sm80_w8a16>,
     erased<LinearW8A8Fp8, linear_w8a8_fp8_sm80_w8a16>,
     erased_bytes<LinearW8A8Fp8, workspace_linear_w8a8_fp8_sm80_w8a16>},
    {"sm80", erased_why_not<LinearW8A8Fp8, why_not_linear_w8a8_fp8_sm80>, erased<LinearW8A8Fp8, linear_w8a8_fp8_sm80>,
     erased_bytes<LinearW8A8Fp8, workspace_linear_w8a8_fp8_sm80>},
};

const CudaImplementation linear_w4a16[] = {
    {.name = "sm80_decoded",
     .why_not = erased_why_not<LinearW4A16, why_not_linear_w4a16_decoded>,
     .run = erased<LinearW4A16, linear_w4a16_decoded>,
     .workspace_bytes = erased_bytes<LinearW4A16, workspace_linear_w4a16_decoded>,
     .by_shape = true},
    {"sm80", erased_why_not<LinearW4A16, why_not_linear_w4a16_sm80>, erased<LinearW4A16, linear_w4a16_sm80>,
     erased_bytes<LinearW4A16, workspace_linear_w4a16_sm80>},
};

template <class Op>
const char* code_rows_why_not(const Op& op, const Card& card) {
  return why_not_code_rows(op.weight, card);
}
template <class Op>
const char* int4_why_not(const Op& op, const Card& card) {
  bool zero_points;
  if constexpr (requires { op.zeros; })
    zero_points = op.zeros != nullptr;
  else
    zero_points = op.zero_points != 0;
  return why_not_int4_panel(op.weight, {op.n, op.k, op.group_size, op.scale_dtype, zero_points}, card);
}
template <class Op>
const char* only_sm80(const Op&, const Card& card) {
  return needs_sm80(card);
}

const CudaImplementation pack_int8[] = {
    {"sm80", erased_why_not<PackInt8, code_rows_why_not>, erased<PackInt8, pack_int8_sm80>, nullptr},
};
const CudaImplementation unpack_int8[] = {
    {"sm80", erased_why_not<UnpackInt8, code_rows_why_not>, erased<UnpackInt8, unpack_int8_sm80>, nullptr},
};
const CudaImplementation dequantize_int8[] = {
    {"sm80", erased_why_not<DequantizeInt8, code_rows_why_not>, erased<DequantizeInt8, dequantize_int8_sm80>, nullptr},
};
const CudaImplementation pack_fp8[] = {
    {"sm80", erased_why_not<PackFp8, code_rows_why_not>, erased<PackFp8, pack_fp8_sm80>, nullptr},
};
const CudaImplementation unpack_fp8[] = {
    {"sm80", erased_why_not<UnpackFp8, code_rows_why_not>, erased<UnpackFp8, unpack_fp8_sm80>, nullptr},
};
const CudaImplementation dequantize_fp8[] = {
    {"sm80", erased_why_not<DequantizeFp8, code_rows_why_not>, erased<DequantizeFp8, dequantize_fp8_sm80>, nullptr},
};
const CudaImplementation pack_int4[] = {
    {"sm80", erased_why_not<PackInt4, int4_why_not>, erased<PackInt4, pack_int4_sm80>, nullptr},
};
const CudaImplementation unpack_int4[] = {
    {"sm80", erased_why_not<UnpackInt4, int4_why_not>, erased<UnpackInt4, unpack_int4_sm80>, nullptr},
};
const CudaImplementation dequantize_int4[] = {
    {"sm80", erased_why_not<DequantizeInt4, int4_why_not>, erased<DequantizeInt4, dequantize_int4_sm80>, nullptr},
};
const CudaImplementation pack_nibbles[] = {
    {"sm80", erased_why_not<PackNibbles, only_sm80>, erased<PackNibbles, pack_nibbles_sm80>, nullptr},
};
const CudaImplementation unpack_nibbles[] = {
    {"sm80", erased_why_not<UnpackNibbles, only_sm80>, erased<UnpackNibbles, unpack_nibbles_sm80>, nullptr},
};

const CudaImplementation hessian_accumulate[] = {
    {"sm80", erased_why_not<HessianAccumulate, why_not_hessian_accumulate_sm80>,
     erased<HessianAccumulate, hessian_accumulate_sm80>,
     erased_bytes<HessianAccumulate, workspace_hessian_accumulate_sm80>},
};

const CudaImplementation gptq_columns[] = {
    {"sm80", erased_why_not<GptqColumns, why_not_gptq_columns_sm80>, erased<GptqColumns, gptq_columns_sm80>, nullptr},
};

const CudaImplementation weight_scales[] = {
    {"sm80", erased_why_not<WeightScales, why_not_weight_scales_sm80>, erased<WeightScales, weight_scales_sm80>,
     erased_bytes<WeightScales, workspace_weight_scales_sm80>},
};
const CudaImplementation quantize_weight[] = {
    {"sm80", erased_why_not<QuantizeWeight, why_not_quantize_weight_sm80>, erased<QuantizeWeight, quantize_weight_sm80>,
     nullptr},
};

template <class Op>
const char* columns_why_not(const Op& op, const Card& card) {
  return why_not_columns_sm80(op.k, card);
}

const CudaImplementation column_range[] = {
    {"sm80", erased_why_not<ColumnRange, columns_why_not>, erased<ColumnRange, column_range_sm80>,
     erased_bytes<ColumnRange, workspace_column_range_sm80>},
};
const CudaImplementation column_abs_max[] = {
    {"sm80", erased_why_not<ColumnAbsMax, columns_why_not>, erased<ColumnAbsMax, column_abs_max_sm80>,
     erased_bytes<ColumnAbsMax, workspace_column_abs_max_sm80>},
};
const CudaImplementation smooth_scales[] = {
    {"sm80", erased_why_not<SmoothScales, columns_why_not>, erased<SmoothScales, smooth_scales_sm80>, nullptr},
};

// An op, and its list above, which has its name.
#define PW_OP(name) {OpId::name, #name, name, sizeof name / sizeof name[0]}

const CudaOp table[] = {
    PW_OP(quantize_per_token_int8),
    PW_OP(quantize_per_token_fp8),
    PW_OP(rms_norm),
    PW_OP(rms_norm_quantize_int8),
    PW_OP(rms_norm_quantize_fp8),
    PW_OP(silu_mul_quantize_int8),
    PW_OP(silu_mul_quantize_fp8),
    PW_OP(silu_mul),
    PW_OP(gemm_w8a8_int8),
    PW_OP(gemm_w8a8_fp8),
    PW_OP(linear_w8a8_int8),
    PW_OP(linear_w8a8_fp8),
    PW_OP(linear_w4a16),
    PW_OP(pack_int8),
    PW_OP(unpack_int8),
    PW_OP(dequantize_int8),
    PW_OP(pack_fp8),
    PW_OP(unpack_fp8),
    PW_OP(dequantize_fp8),
    PW_OP(pack_int4),
    PW_OP(unpack_int4),
    PW_OP(dequantize_int4),
    PW_OP(pack_nibbles),
    PW_OP(unpack_nibbles),
    PW_OP(hessian_accumulate),
    PW_OP(gptq_columns),
    PW_OP(weight_scales),
    PW_OP(quantize_weight),
    PW_OP(column_range),
    PW_OP(column_abs_max),
    PW_OP(smooth_scales),
};

}  // namespace

const CudaOp* find_op(OpId id) {
  for (const CudaOp& op : table)
    if (op.id == id) return &op;
  return nullptr;
}

}  // namespace pennyweight::cuda
