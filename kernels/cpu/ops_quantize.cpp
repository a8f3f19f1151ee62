// SPDX-License-Identifier: Apache-2.0
// ops_quantize.cpp: the quantization ops, their arguments and implementations, best first.
#include "pennyweight/quantize.h"
#include "kernels_int8.h"
#include "reference/reference.h"
#include "table.h"

namespace pennyweight::cpu {
namespace {

// The INT8 and the FP8 op of a kind share their arguments.
const Field quantize_fields[] = {
    PW_FIELD(QuantizePerToken, x, input),          PW_FIELD(QuantizePerToken, smooth, input),
    PW_FIELD(QuantizePerToken, codes, output),     PW_FIELD(QuantizePerToken, scale, output),
    PW_FIELD(QuantizePerToken, m, integer),        PW_FIELD(QuantizePerToken, k, integer),
    PW_FIELD(QuantizePerToken, x_stride, integer), PW_FIELD(QuantizePerToken, x_dtype, dtype)};
const Field norm_fields[] = {PW_FIELD(RmsNorm, x, input),
                             PW_FIELD(RmsNorm, residual, input),
                             PW_FIELD(RmsNorm, weight, input),
                             PW_FIELD(RmsNorm, normed, output),
                             PW_FIELD(RmsNorm, hidden, output),
                             PW_FIELD(RmsNorm, m, integer),
                             PW_FIELD(RmsNorm, k, integer),
                             PW_FIELD(RmsNorm, x_stride, integer),
                             PW_FIELD(RmsNorm, residual_stride, integer),
                             PW_FIELD(RmsNorm, eps, real),
                             PW_FIELD(RmsNorm, x_dtype, dtype)};
const Field rms_fields[] = {
    PW_FIELD(RmsNormQuantize, x, input),          PW_FIELD(RmsNormQuantize, residual, input),
    PW_FIELD(RmsNormQuantize, weight, input),     PW_FIELD(RmsNormQuantize, codes, output),
    PW_FIELD(RmsNormQuantize, scale, output),     PW_FIELD(RmsNormQuantize, hidden, output),
    PW_FIELD(RmsNormQuantize, m, integer),        PW_FIELD(RmsNormQuantize, k, integer),
    PW_FIELD(RmsNormQuantize, x_stride, integer), PW_FIELD(RmsNormQuantize, residual_stride, integer),
    PW_FIELD(RmsNormQuantize, eps, real),         PW_FIELD(RmsNormQuantize, x_dtype, dtype)};
const Field silu_fields[] = {PW_FIELD(SiluMulQuantize, gate_up, input), PW_FIELD(SiluMulQuantize, codes, output),
                             PW_FIELD(SiluMulQuantize, scale, output),  PW_FIELD(SiluMulQuantize, m, integer),
                             PW_FIELD(SiluMulQuantize, k, integer),     PW_FIELD(SiluMulQuantize, x_stride, integer),
                             PW_FIELD(SiluMulQuantize, x_dtype, dtype)};

const Field silu_mul_fields[] = {PW_FIELD(SiluMul, gate_up, input),    PW_FIELD(SiluMul, y, output),
                                 PW_FIELD(SiluMul, m, integer),        PW_FIELD(SiluMul, k, integer),
                                 PW_FIELD(SiluMul, x_stride, integer), PW_FIELD(SiluMul, x_dtype, dtype)};

#define PW_QUANTIZE_IMPLEMENTATIONS(Op, name)                                                                         \
  {                                                                                                                   \
    {"avx512bf16", needs_avx512bf16, erased<Op, avx512bf16::name>},                                                   \
        {"avx512vnni", needs_avx512vnni, erased<Op, avx512vnni::name>}, {"avx2", needs_avx2, erased<Op, avx2::name>}, \
    {                                                                                                                 \
      "reference", always, erased<Op, reference::name>                                                                \
    }                                                                                                                 \
  }

const Implementation quantize_int8[] = PW_QUANTIZE_IMPLEMENTATIONS(QuantizePerTokenInt8, quantize_per_token_int8);
const Implementation quantize_fp8[] = PW_QUANTIZE_IMPLEMENTATIONS(QuantizePerTokenFp8, quantize_per_token_fp8);
const Implementation norm[] = PW_QUANTIZE_IMPLEMENTATIONS(RmsNorm, rms_norm);
const Implementation rms_int8[] = PW_QUANTIZE_IMPLEMENTATIONS(RmsNormQuantizeInt8, rms_norm_quantize_int8);
const Implementation rms_fp8[] = PW_QUANTIZE_IMPLEMENTATIONS(RmsNormQuantizeFp8, rms_norm_quantize_fp8);
const Implementation silu_int8[] = PW_QUANTIZE_IMPLEMENTATIONS(SiluMulQuantizeInt8, silu_mul_quantize_int8);
const Implementation silu_fp8[] = PW_QUANTIZE_IMPLEMENTATIONS(SiluMulQuantizeFp8, silu_mul_quantize_fp8);
const Implementation silu[] = PW_QUANTIZE_IMPLEMENTATIONS(SiluMul, silu_mul);

const OpInfo table[] = {
    make_info<QuantizePerTokenInt8>("quantize_per_token_int8", quantize_fields, quantize_int8),
    make_info<QuantizePerTokenFp8>("quantize_per_token_fp8", quantize_fields, quantize_fp8),
    make_info<RmsNorm>("rms_norm", norm_fields, norm),
    make_info<RmsNormQuantizeInt8>("rms_norm_quantize_int8", rms_fields, rms_int8),
    make_info<RmsNormQuantizeFp8>("rms_norm_quantize_fp8", rms_fields, rms_fp8),
    make_info<SiluMulQuantizeInt8>("silu_mul_quantize_int8", silu_fields, silu_int8),
    make_info<SiluMulQuantizeFp8>("silu_mul_quantize_fp8", silu_fields, silu_fp8),
    make_info<SiluMul>("silu_mul", silu_mul_fields, silu),
};

}  // namespace

const OpInfo* quantize_info(OpId id) { return find(table, id); }

}  // namespace pennyweight::cpu
