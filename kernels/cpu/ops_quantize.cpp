// SPDX-License-Identifier: Apache-2.0
// ops_quantize.cpp: the quantization ops, their arguments and implementations, best first.
#include "pennyweight/quantize.h"
#include "kernels_int8.h"
#include "reference/reference.h"
#include "table.h"

namespace pennyweight::cpu {
namespace {

#define PW_QUANTIZE_FIELDS(Op)                                                                   \
  {                                                                                              \
      PW_FIELD(Op, x, input),          PW_FIELD(Op, smooth, input), PW_FIELD(Op, codes, output), \
      PW_FIELD(Op, scale, output),     PW_FIELD(Op, m, integer),    PW_FIELD(Op, k, integer),    \
      PW_FIELD(Op, x_stride, integer), PW_FIELD(Op, x_dtype, dtype)}
#define PW_RMS_FIELDS(Op)                                                   \
  {PW_FIELD(Op, x, input),          PW_FIELD(Op, residual, input),          \
   PW_FIELD(Op, weight, input),     PW_FIELD(Op, codes, output),            \
   PW_FIELD(Op, scale, output),     PW_FIELD(Op, hidden, output),           \
   PW_FIELD(Op, m, integer),        PW_FIELD(Op, k, integer),               \
   PW_FIELD(Op, x_stride, integer), PW_FIELD(Op, residual_stride, integer), \
   PW_FIELD(Op, eps, real),         PW_FIELD(Op, x_dtype, dtype)}
#define PW_SILU_FIELDS(Op)                                                                        \
  {                                                                                               \
      PW_FIELD(Op, gate_up, input), PW_FIELD(Op, codes, output), PW_FIELD(Op, scale, output),     \
      PW_FIELD(Op, m, integer),     PW_FIELD(Op, k, integer),    PW_FIELD(Op, x_stride, integer), \
      PW_FIELD(Op, x_dtype, dtype)}

const Field quantize_int8_fields[] = PW_QUANTIZE_FIELDS(QuantizePerTokenInt8);
const Field quantize_fp8_fields[] = PW_QUANTIZE_FIELDS(QuantizePerTokenFp8);
const Field rms_int8_fields[] = PW_RMS_FIELDS(RmsNormQuantizeInt8);
const Field rms_fp8_fields[] = PW_RMS_FIELDS(RmsNormQuantizeFp8);
const Field silu_int8_fields[] = PW_SILU_FIELDS(SiluMulQuantizeInt8);
const Field silu_fp8_fields[] = PW_SILU_FIELDS(SiluMulQuantizeFp8);

#define PW_QUANTIZE_IMPLEMENTATIONS(Op, name)                                                                       \
  {                                                                                                                 \
    {"avx512vnni", needs_avx512vnni, erased<Op, avx512vnni::name>}, {"avx2", needs_avx2, erased<Op, avx2::name>}, { \
      "reference", always, erased<Op, reference::name>                                                              \
    }                                                                                                               \
  }

const Implementation quantize_int8[] = PW_QUANTIZE_IMPLEMENTATIONS(QuantizePerTokenInt8, quantize_per_token_int8);
const Implementation quantize_fp8[] = PW_QUANTIZE_IMPLEMENTATIONS(QuantizePerTokenFp8, quantize_per_token_fp8);
const Implementation rms_int8[] = PW_QUANTIZE_IMPLEMENTATIONS(RmsNormQuantizeInt8, rms_norm_quantize_int8);
const Implementation rms_fp8[] = PW_QUANTIZE_IMPLEMENTATIONS(RmsNormQuantizeFp8, rms_norm_quantize_fp8);
const Implementation silu_int8[] = PW_QUANTIZE_IMPLEMENTATIONS(SiluMulQuantizeInt8, silu_mul_quantize_int8);
const Implementation silu_fp8[] = PW_QUANTIZE_IMPLEMENTATIONS(SiluMulQuantizeFp8, silu_mul_quantize_fp8);

const OpInfo table[] = {
    make_info<QuantizePerTokenInt8>("quantize_per_token_int8", quantize_int8_fields, quantize_int8),
    make_info<QuantizePerTokenFp8>("quantize_per_token_fp8", quantize_fp8_fields, quantize_fp8),
    make_info<RmsNormQuantizeInt8>("rms_norm_quantize_int8", rms_int8_fields, rms_int8),
    make_info<RmsNormQuantizeFp8>("rms_norm_quantize_fp8", rms_fp8_fields, rms_fp8),
    make_info<SiluMulQuantizeInt8>("silu_mul_quantize_int8", silu_int8_fields, silu_int8),
    make_info<SiluMulQuantizeFp8>("silu_mul_quantize_fp8", silu_fp8_fields, silu_fp8),
};

}  // namespace

const OpInfo* quantize_info(OpId id) {
  for (const OpInfo& info : table)
    if (info.id == id) return &info;
  return nullptr;
}

}  // namespace pennyweight::cpu
