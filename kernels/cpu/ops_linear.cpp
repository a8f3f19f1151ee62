// SPDX-License-Identifier: Apache-2.0
// ops_linear.cpp: the linear layers and their GEMMs, their arguments and implementations, best first.
#include "pennyweight/linear.h"
#include "kernels_int8.h"
#include "linear_float.h"
#include "reference/reference.h"
#include "table.h"

namespace pennyweight::cpu {
namespace {

// The INT8 and the FP8 op of a kind share their arguments.
const Field gemm_w8a8_fields[] = {PW_FIELD(GemmW8A8, codes, input),       PW_FIELD(GemmW8A8, row_scale, input),
                                  PW_FIELD(GemmW8A8, weight, input),      PW_FIELD(GemmW8A8, col_scale, input),
                                  PW_FIELD(GemmW8A8, bias, input),        PW_FIELD(GemmW8A8, y, output),
                                  PW_FIELD(GemmW8A8, m, integer),         PW_FIELD(GemmW8A8, n, integer),
                                  PW_FIELD(GemmW8A8, k, integer),         PW_FIELD(GemmW8A8, codes_stride, integer),
                                  PW_FIELD(GemmW8A8, y_stride, integer),  PW_FIELD(GemmW8A8, y_dtype, dtype),
                                  PW_FIELD(GemmW8A8, fast_accum, integer)};
const Implementation gemm_w8a8_int8[] = {
    {"avx512vnni", needs_avx512vnni, erased<GemmW8A8Int8, avx512vnni::gemm_w8a8_int8>},
    {"avx2", needs_avx2, erased<GemmW8A8Int8, avx2::gemm_w8a8_int8>},
    {"reference", always, erased<GemmW8A8Int8, reference::gemm_w8a8_int8>}};
const Implementation gemm_w8a8_fp8[] = {{"avx512bf16", needs_avx512bf16, erased<GemmW8A8Fp8, gemm_w8a8_fp8_avx512bf16>},
                                        {"avx512vnni", needs_avx512vnni, erased<GemmW8A8Fp8, gemm_w8a8_fp8_avx512vnni>},
                                        {"avx2", needs_avx2, erased<GemmW8A8Fp8, gemm_w8a8_fp8_avx2>},
                                        {"reference", always, erased<GemmW8A8Fp8, reference::gemm_w8a8_fp8>}};
const Field linear_w8a8_fields[] = {PW_FIELD(LinearW8A8, x, input),           PW_FIELD(LinearW8A8, smooth, input),
                                    PW_FIELD(LinearW8A8, weight, input),      PW_FIELD(LinearW8A8, col_scale, input),
                                    PW_FIELD(LinearW8A8, bias, input),        PW_FIELD(LinearW8A8, y, output),
                                    PW_FIELD(LinearW8A8, m, integer),         PW_FIELD(LinearW8A8, n, integer),
                                    PW_FIELD(LinearW8A8, k, integer),         PW_FIELD(LinearW8A8, x_stride, integer),
                                    PW_FIELD(LinearW8A8, y_stride, integer),  PW_FIELD(LinearW8A8, x_dtype, dtype),
                                    PW_FIELD(LinearW8A8, fast_accum, integer)};
const Implementation linear_w8a8_int8[] = {
    {"avx512vnni", needs_avx512vnni, erased<LinearW8A8Int8, avx512vnni::linear_w8a8_int8>},
    {"avx2", needs_avx2, erased<LinearW8A8Int8, avx2::linear_w8a8_int8>},
    {"reference", always, erased<LinearW8A8Int8, reference::linear_w8a8_int8>}};
const Implementation linear_w8a8_fp8[] = {
    {"avx512bf16", needs_avx512bf16, erased<LinearW8A8Fp8, linear_w8a8_fp8_avx512bf16>},
    {"avx512vnni", needs_avx512vnni, erased<LinearW8A8Fp8, linear_w8a8_fp8_avx512vnni>},
    {"avx2", needs_avx2, erased<LinearW8A8Fp8, linear_w8a8_fp8_avx2>},
    {"reference", always, erased<LinearW8A8Fp8, reference::linear_w8a8_fp8>}};
const Field linear_w4a16_fields[] = {PW_FIELD(LinearW4A16, x, input),
                                     PW_FIELD(LinearW4A16, weight, input),
                                     PW_FIELD(LinearW4A16, bias, input),
                                     PW_FIELD(LinearW4A16, y, output),
                                     PW_FIELD(LinearW4A16, m, integer),
                                     PW_FIELD(LinearW4A16, n, integer),
                                     PW_FIELD(LinearW4A16, k, integer),
                                     PW_FIELD(LinearW4A16, x_stride, integer),
                                     PW_FIELD(LinearW4A16, y_stride, integer),
                                     PW_FIELD(LinearW4A16, group_size, integer),
                                     PW_FIELD(LinearW4A16, zero_points, integer),
                                     PW_FIELD(LinearW4A16, x_dtype, dtype),
                                     PW_FIELD(LinearW4A16, scale_dtype, dtype)};
const Implementation linear_w4a16[] = {{"avx512bf16", needs_avx512bf16, erased<LinearW4A16, linear_w4a16_avx512bf16>},
                                       {"avx512vnni", needs_avx512vnni, erased<LinearW4A16, linear_w4a16_avx512vnni>},
                                       {"avx2", needs_avx2, erased<LinearW4A16, linear_w4a16_avx2>},
                                       {"reference", always, erased<LinearW4A16, reference::linear_w4a16>}};
const Field linear_w4a8_int8_fields[] = {PW_FIELD(LinearW4A8Int8, x, input),
                                         PW_FIELD(LinearW4A8Int8, smooth, input),
                                         PW_FIELD(LinearW4A8Int8, weight, input),
                                         PW_FIELD(LinearW4A8Int8, bias, input),
                                         PW_FIELD(LinearW4A8Int8, y, output),
                                         PW_FIELD(LinearW4A8Int8, m, integer),
                                         PW_FIELD(LinearW4A8Int8, n, integer),
                                         PW_FIELD(LinearW4A8Int8, k, integer),
                                         PW_FIELD(LinearW4A8Int8, x_stride, integer),
                                         PW_FIELD(LinearW4A8Int8, y_stride, integer),
                                         PW_FIELD(LinearW4A8Int8, group_size, integer),
                                         PW_FIELD(LinearW4A8Int8, zero_points, integer),
                                         PW_FIELD(LinearW4A8Int8, x_dtype, dtype),
                                         PW_FIELD(LinearW4A8Int8, scale_dtype, dtype)};
const Implementation linear_w4a8_int8[] = {
    {"avx512vnni", needs_avx512vnni, erased<LinearW4A8Int8, avx512vnni::linear_w4a8_int8>},
    {"avx2", needs_avx2, erased<LinearW4A8Int8, avx2::linear_w4a8_int8>},
    {"reference", always, erased<LinearW4A8Int8, reference::linear_w4a8_int8>}};
const Field linear_bf16_fields[] = {PW_FIELD(LinearBf16, x, input),          PW_FIELD(LinearBf16, weight, input),
                                    PW_FIELD(LinearBf16, bias, input),       PW_FIELD(LinearBf16, y, output),
                                    PW_FIELD(LinearBf16, m, integer),        PW_FIELD(LinearBf16, n, integer),
                                    PW_FIELD(LinearBf16, k, integer),        PW_FIELD(LinearBf16, x_stride, integer),
                                    PW_FIELD(LinearBf16, w_stride, integer), PW_FIELD(LinearBf16, y_stride, integer)};
const Implementation linear_bf16[] = {{"avx512vnni", needs_avx512vnni, erased<LinearBf16, linear_bf16_avx512vnni>},
                                      {"avx2", needs_avx2, erased<LinearBf16, linear_bf16_avx2>},
                                      {"reference", always, erased<LinearBf16, reference::linear_bf16>}};

const OpInfo table[] = {
    make_info<GemmW8A8Int8>("gemm_w8a8_int8", gemm_w8a8_fields, gemm_w8a8_int8),
    make_info<GemmW8A8Fp8>("gemm_w8a8_fp8", gemm_w8a8_fields, gemm_w8a8_fp8),
    make_info<LinearW8A8Int8>("linear_w8a8_int8", linear_w8a8_fields, linear_w8a8_int8),
    make_info<LinearW8A8Fp8>("linear_w8a8_fp8", linear_w8a8_fields, linear_w8a8_fp8),
    make_info<LinearW4A16>("linear_w4a16", linear_w4a16_fields, linear_w4a16),
    make_info<LinearW4A8Int8>("linear_w4a8_int8", linear_w4a8_int8_fields, linear_w4a8_int8),
    make_info<LinearBf16>("linear_bf16", linear_bf16_fields, linear_bf16),
};

}  // namespace

const OpInfo* linear_info(OpId id) { return find(table, id); }

}  // namespace pennyweight::cpu
