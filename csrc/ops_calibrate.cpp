// SPDX-License-Identifier: Apache-2.0
// ops_calibrate.cpp: Hessians, GPTQ, scales and SmoothQuant as torch operators, on the CPU and on cards.
#include <tuple>

#include "checks.h"
#include "pennyweight/calibrate.h"
#include "place.h"

namespace pennyweight::torch_ops {
namespace {

constexpr auto kChar = ScalarType::Char, kFloat = ScalarType::Float;
constexpr int64_t kDampingRetries = 5;  // tenfold each: from 0.01 to 1000 times the mean of the diagonal

void hessian_accumulate(Tensor h, const Tensor& x) {
  const char* name = "hessian_accumulate";
  const Place place(h);
  const Rows rows = float_rows({name, "x"}, x);
  HessianAccumulate op{};
  op.h = static_cast<float*>(in_place({name, "h"}, h, {rows.columns, rows.columns}));
  op.x = rows.data;
  op.t = rows.rows;
  op.k = rows.columns;
  op.x_stride = rows.stride;
  op.x_dtype = rows.dtype;
  if (op.t > 0) run_on_torch(op);
}

std::tuple<Tensor, Tensor> gptq_quantize(const Tensor& weight, const Tensor& hessian, const Tensor& scale, int64_t bits,
                                         int64_t group_size, double damping, bool act_order) {
  const char* name = "gptq_quantize";
  const Dense w = float_matrix({name, "weight"}, weight);
  const int64_t n = weight.size(0), k = weight.size(1);
  check_bits(name, bits);
  check_damping(name, damping);
  GptqQuantize op{};
  op.group_size = group_of(name, group_size, k, true);
  const Dense h = sized({name, "hessian"}, hessian, kFloat, k, k);
  const Dense scales = sized({name, "scale"}, scale, kFloat, n, k / op.group_size);
  Tensor codes = make(weight, {n, k}, kChar), stats = make(weight, {5}, ScalarType::Double);
  op.weight = w.data;
  op.h = h.as<float>();
  op.scale = scales.as<float>();
  op.codes = data<int8_t>(codes);
  op.stats = data<double>(stats);
  op.n = n;
  op.k = k;
  op.bits = bits;
  op.damping = damping;
  op.act_order = act_order;
  op.retries = kDampingRetries;
  op.w_dtype = dtype_of({name, "weight"}, weight);
  run_on_torch(op);
  return {codes, stats};
}

// Layers side by side, (layers, n, k), of which 128 columns are decided.
void gptq_columns(const Tensor& factor, const Tensor& sums, const Tensor& scale, const Tensor& group, Tensor residual,
                  Tensor codes, Tensor loss, int64_t first, int64_t bits) {
  const char* name = "gptq_columns";
  const Place place(factor);
  check_bits(name, bits);
  check_layers({name, "residual"}, residual);
  check_layers({name, "scale"}, scale);
  GptqColumns op{};
  op.layers = residual.size(0);
  op.n = residual.size(1);
  op.k = residual.size(2);
  op.groups = scale.size(2);
  op.first = first;
  op.bits = bits;
  check_within(name, "first", first, op.k);
  const std::vector<int64_t> whole{op.layers, op.n, op.k};
  op.residual = static_cast<float*>(in_place({name, "residual"}, residual, whole));
  op.codes = static_cast<int8_t*>(in_place({name, "codes"}, codes, whole, kChar));
  op.loss = static_cast<float*>(in_place({name, "loss"}, loss, {op.layers, op.n}));
  const Dense r = shaped({name, "factor"}, factor, kFloat, {op.layers, op.k, op.k});
  const Dense before = shaped({name, "sums"}, sums, kFloat, whole);
  const Dense scales = shaped({name, "scale"}, scale, kFloat, {op.layers, op.n, op.groups});
  const Dense of_column = shaped({name, "group"}, group, ScalarType::Int, {op.layers, op.k});
  op.factor = r.as<float>();
  op.sums = before.as<float>();
  op.scale = scales.as<float>();
  op.group = of_column.as<int32_t>();
  run_on_torch(op);
}

Tensor weight_scales(const Tensor& weight, const std::string& scheme, int64_t group_size, const std::string& observer,
                     int64_t grid, double maxshrink, double norm, int64_t patience) {
  const char* name = "weight_scales";
  const Place place(weight);
  const Dense w = float_matrix({name, "weight"}, weight);
  WeightScales op{};
  op.format = format_of(name, scheme);
  op.mse = is_mse(name, observer);
  check_search(name, grid, maxshrink, norm, patience);
  op.n = weight.size(0);
  op.k = weight.size(1);
  op.group_size = group_of(name, group_size, op.k, true);
  op.grid = grid;
  op.patience = patience;
  op.maxshrink = maxshrink;
  op.norm = norm;
  op.w_dtype = dtype_of({name, "weight"}, weight);
  Tensor scale = make(weight, {op.n, op.k / op.group_size}, kFloat);
  op.weight = w.data;
  op.scale = data<float>(scale);
  run_on_torch(op);
  return scale;
}

Tensor quantize_weight(const Tensor& weight, const Tensor& scale, int64_t group_size, const std::string& scheme) {
  const char* name = "quantize_weight";
  const Place place(weight);
  const Dense w = float_matrix({name, "weight"}, weight);
  QuantizeWeight op{};
  op.format = format_of(name, scheme);
  op.n = weight.size(0);
  op.k = weight.size(1);
  op.group_size = group_of(name, group_size, op.k, true);
  const Dense scales = sized({name, "scale"}, scale, kFloat, op.n, op.k / op.group_size);
  Tensor codes = make(weight, {op.n, op.k}, op.format == 0 ? ScalarType::Byte : kChar);
  op.weight = w.data;
  op.scale = scales.as<float>();
  op.codes = data(codes);
  op.w_dtype = dtype_of({name, "weight"}, weight);
  run_on_torch(op);
  return codes;
}

void column_range(const Tensor& x, Tensor low, Tensor high) {
  const char* name = "column_range";
  const Place place(x);
  const Rows rows = float_rows({name, "x"}, x);
  ColumnRange op{};
  op.x = rows.data;
  op.low = static_cast<float*>(in_place({name, "low"}, low, {rows.columns}));
  op.high = static_cast<float*>(in_place({name, "high"}, high, {rows.columns}));
  op.t = rows.rows;
  op.k = rows.columns;
  op.x_stride = rows.stride;
  op.x_dtype = rows.dtype;
  if (op.t > 0) run_on_torch(op);
}

Tensor column_abs_max(const Tensor& weight) {
  const Name name{"column_abs_max", "weight"};
  const Place place(weight);
  const Dense w = float_matrix(name, weight);
  ColumnAbsMax op{};
  op.n = weight.size(0);
  op.k = weight.size(1);
  op.w_dtype = dtype_of(name, weight);
  Tensor out = make(weight, {op.k}, kFloat);
  op.weight = w.data;
  op.out = data<float>(out);
  run_on_torch(op);
  return out;
}

Tensor smooth_scales(const Tensor& low, const Tensor& high, const Tensor& weight_abs_max, double strength) {
  const char* name = "smooth_scales";
  const Place place(low);
  const int64_t k = low.numel();
  const Dense l = vector({name, "low"}, low, kFloat, k), h = vector({name, "high"}, high, kFloat, k);
  const Dense w = vector({name, "weight_abs_max"}, weight_abs_max, kFloat, k);
  check_positive(name, "K, the number of elements of low,", k);
  check_strength(name, strength);
  Tensor scale = make(low, {k}, kFloat);
  SmoothScales op{};
  op.low = l.as<float>();
  op.high = h.as<float>();
  op.weight_abs_max = w.as<float>();
  op.scale = data<float>(scale);
  op.k = k;
  op.strength = strength;
  run_on_torch(op);
  return scale;
}

// What runs on CPUs and on cards alike.
template <class Library>
void implement(Library& m) {
  m.impl("hessian_accumulate", TORCH_BOX(&hessian_accumulate));
  m.impl("gptq_columns", TORCH_BOX(&gptq_columns));
  m.impl("weight_scales", TORCH_BOX(&weight_scales));
  m.impl("quantize_weight", TORCH_BOX(&quantize_weight));
  m.impl("column_range", TORCH_BOX(&column_range));
  m.impl("column_abs_max", TORCH_BOX(&column_abs_max));
  m.impl("smooth_scales", TORCH_BOX(&smooth_scales));
}

}  // namespace
}  // namespace pennyweight::torch_ops

STABLE_TORCH_LIBRARY_IMPL(pennyweight, CPU, m) {
  using namespace pennyweight::torch_ops;
  implement(m);
  m.impl("gptq_quantize", TORCH_BOX(&gptq_quantize));
}

// (gptq_quantize on a card is python/pennyweight/ops/gptq_on_card.py, on top of gptq_columns and torch's factorization)
STABLE_TORCH_LIBRARY_IMPL(pennyweight, CUDA, m) { pennyweight::torch_ops::implement(m); }
