// SPDX-License-Identifier: Apache-2.0
// ops_calibrate.cpp: calibration, its arguments and implementations, best first.
#include "gptq.h"
#include "hessian.h"
#include "pennyweight/calibrate.h"
#include "reference/reference.h"
#include "table.h"
#include "weight_scales.h"

namespace pennyweight::cpu {
namespace {
const Field hessian_accumulate_fields[] = {
    PW_FIELD(HessianAccumulate, x, input),          PW_FIELD(HessianAccumulate, h, output),
    PW_FIELD(HessianAccumulate, t, integer),        PW_FIELD(HessianAccumulate, k, integer),
    PW_FIELD(HessianAccumulate, x_stride, integer), PW_FIELD(HessianAccumulate, x_dtype, dtype)};
const Implementation hessian_accumulate[] = {
    {"avx512bf16", needs_avx512bf16, erased<HessianAccumulate, hessian_accumulate_avx512bf16>},
    {"avx512vnni", needs_avx512vnni, erased<HessianAccumulate, hessian_accumulate_avx512vnni>},
    {"avx2", needs_avx2, erased<HessianAccumulate, hessian_accumulate_avx2>},
    {"reference", always, erased<HessianAccumulate, reference::hessian_accumulate>}};
const Field gptq_quantize_fields[] = {
    PW_FIELD(GptqQuantize, weight, input),      PW_FIELD(GptqQuantize, h, input),
    PW_FIELD(GptqQuantize, scale, input),       PW_FIELD(GptqQuantize, codes, output),
    PW_FIELD(GptqQuantize, stats, output),      PW_FIELD(GptqQuantize, n, integer),
    PW_FIELD(GptqQuantize, k, integer),         PW_FIELD(GptqQuantize, group_size, integer),
    PW_FIELD(GptqQuantize, bits, integer),      PW_FIELD(GptqQuantize, damping, real),
    PW_FIELD(GptqQuantize, act_order, integer), PW_FIELD(GptqQuantize, retries, integer),
    PW_FIELD(GptqQuantize, w_dtype, dtype)};
const Implementation gptq_quantize[] = {
    {"avx512vnni", needs_avx512vnni, erased<GptqQuantize, gptq_quantize_avx512vnni>},
    {"avx2", needs_avx2, erased<GptqQuantize, gptq_quantize_avx2>},
    {"reference", always, erased<GptqQuantize, reference::gptq_quantize>}};
const Field gptq_columns_fields[] = {PW_FIELD(GptqColumns, factor, input),    PW_FIELD(GptqColumns, sums, input),
                                     PW_FIELD(GptqColumns, scale, input),     PW_FIELD(GptqColumns, group, input),
                                     PW_FIELD(GptqColumns, residual, output), PW_FIELD(GptqColumns, codes, output),
                                     PW_FIELD(GptqColumns, loss, output),     PW_FIELD(GptqColumns, layers, integer),
                                     PW_FIELD(GptqColumns, n, integer),       PW_FIELD(GptqColumns, k, integer),
                                     PW_FIELD(GptqColumns, groups, integer),  PW_FIELD(GptqColumns, first, integer),
                                     PW_FIELD(GptqColumns, bits, integer)};
// A step of the solve on a card; CPUs have their own whole.
const Implementation gptq_columns[] = {{"reference", always, erased<GptqColumns, reference::gptq_columns>}};
const Field weight_scales_fields[] = {
    PW_FIELD(WeightScales, weight, input),       PW_FIELD(WeightScales, scale, output),
    PW_FIELD(WeightScales, n, integer),          PW_FIELD(WeightScales, k, integer),
    PW_FIELD(WeightScales, group_size, integer), PW_FIELD(WeightScales, format, integer),
    PW_FIELD(WeightScales, mse, integer),        PW_FIELD(WeightScales, grid, integer),
    PW_FIELD(WeightScales, patience, integer),   PW_FIELD(WeightScales, maxshrink, real),
    PW_FIELD(WeightScales, norm, real),          PW_FIELD(WeightScales, w_dtype, dtype)};
const Implementation weight_scales[] = {
    {"avx512vnni", needs_avx512vnni, erased<WeightScales, weight_scales_avx512vnni>},
    {"avx2", needs_avx2, erased<WeightScales, weight_scales_avx2>},
    {"reference", always, erased<WeightScales, reference::weight_scales>}};
const Field quantize_weight_fields[] = {
    PW_FIELD(QuantizeWeight, weight, input),   PW_FIELD(QuantizeWeight, scale, input),
    PW_FIELD(QuantizeWeight, codes, output),   PW_FIELD(QuantizeWeight, n, integer),
    PW_FIELD(QuantizeWeight, k, integer),      PW_FIELD(QuantizeWeight, group_size, integer),
    PW_FIELD(QuantizeWeight, format, integer), PW_FIELD(QuantizeWeight, w_dtype, dtype)};
const Implementation quantize_weight[] = {{"avx2", needs_avx2, erased<QuantizeWeight, quantize_weight_avx2>},
                                          {"reference", always, erased<QuantizeWeight, reference::quantize_weight>}};
const Field column_range_fields[] = {PW_FIELD(ColumnRange, x, input),      PW_FIELD(ColumnRange, low, output),
                                     PW_FIELD(ColumnRange, high, output),  PW_FIELD(ColumnRange, t, integer),
                                     PW_FIELD(ColumnRange, k, integer),    PW_FIELD(ColumnRange, x_stride, integer),
                                     PW_FIELD(ColumnRange, x_dtype, dtype)};
const Implementation column_range[] = {{"avx2", needs_avx2, erased<ColumnRange, column_range_avx2>},
                                       {"reference", always, erased<ColumnRange, reference::column_range>}};
const Field column_abs_max_fields[] = {PW_FIELD(ColumnAbsMax, weight, input), PW_FIELD(ColumnAbsMax, out, output),
                                       PW_FIELD(ColumnAbsMax, n, integer), PW_FIELD(ColumnAbsMax, k, integer),
                                       PW_FIELD(ColumnAbsMax, w_dtype, dtype)};
const Implementation column_abs_max[] = {{"avx2", needs_avx2, erased<ColumnAbsMax, column_abs_max_avx2>},
                                         {"reference", always, erased<ColumnAbsMax, reference::column_abs_max>}};
const Field smooth_scales_fields[] = {PW_FIELD(SmoothScales, low, input),
                                      PW_FIELD(SmoothScales, high, input),
                                      PW_FIELD(SmoothScales, weight_abs_max, input),
                                      PW_FIELD(SmoothScales, scale, output),
                                      PW_FIELD(SmoothScales, k, integer),
                                      PW_FIELD(SmoothScales, strength, real)};
const Implementation smooth_scales[] = {{"reference", always, erased<SmoothScales, reference::smooth_scales>}};

const OpInfo table[] = {
    make_info<HessianAccumulate>("hessian_accumulate", hessian_accumulate_fields, hessian_accumulate),
    make_info<GptqQuantize>("gptq_quantize", gptq_quantize_fields, gptq_quantize),
    make_info<GptqColumns>("gptq_columns", gptq_columns_fields, gptq_columns),
    make_info<WeightScales>("weight_scales", weight_scales_fields, weight_scales),
    make_info<QuantizeWeight>("quantize_weight", quantize_weight_fields, quantize_weight),
    make_info<ColumnRange>("column_range", column_range_fields, column_range),
    make_info<ColumnAbsMax>("column_abs_max", column_abs_max_fields, column_abs_max),
    make_info<SmoothScales>("smooth_scales", smooth_scales_fields, smooth_scales),
};

}  // namespace

const OpInfo* calibrate_info(OpId id) { return find(table, id); }

}  // namespace pennyweight::cpu
