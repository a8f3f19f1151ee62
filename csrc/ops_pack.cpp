// SPDX-License-Identifier: Apache-2.0
// ops_pack.cpp: between the checkpoint's layout, the kernels' layout and floats, as torch operators, on the CPU and on
// cards.
#include <tuple>

#include "checks.h"
#include "pennyweight/memory.h"
#include "pennyweight/pack.h"
#include "place.h"

namespace pennyweight::torch_ops {
namespace {

constexpr auto kByte = ScalarType::Byte, kChar = ScalarType::Char, kFloat = ScalarType::Float;

// Where a weight is packed to: streamed once per token, so on the CPU in large pages where there are some.
Tensor make_packed(const Tensor& like, int64_t bytes) {
  Tensor weight = make(like, {bytes}, kByte);
  if (weight.is_cpu()) prefer_huge_pages(data(weight), bytes);
  return weight;
}

template <class Op>
Tensor pack_panel(const char* name, ScalarType dtype, const Tensor& codes) {
  const Place place(codes);
  const Dense source = matrix({name, "codes"}, codes, dtype);
  Op op{};
  op.n = codes.size(0);
  op.k = codes.size(1);
  Tensor weight = make_packed(codes, code_bytes(op.n, op.k));
  op.codes = source.data;
  op.weight = data(weight);
  run_on_torch(op);
  return weight;
}

// The part of unpacking and dequantizing that is the same: sizes, the panel, an output (n, k).
template <class Op>
Tensor open_panel(const char* name, Op& op, Dense& panel, const Tensor& weight, int64_t n, int64_t k,
                  ScalarType out_dtype) {
  check_positive(name, "n", n);
  check_positive(name, "k", k);
  panel = packed({name, "weight"}, weight, code_bytes(n, k), n, k);
  op.weight = panel.data;
  op.n = n;
  op.k = k;
  return make(weight, {n, k}, out_dtype);
}

template <class Op>
Tensor unpack_panel(const char* name, ScalarType dtype, const Tensor& weight, int64_t n, int64_t k) {
  const Place place(weight);
  Op op{};
  Dense panel;
  Tensor codes = open_panel(name, op, panel, weight, n, k, dtype);
  op.codes = data(codes);
  run_on_torch(op);
  return codes;
}

template <class Op>
Tensor dequantize_panel(const char* name, const Tensor& weight, const Tensor& scale, int64_t n, int64_t k) {
  const Place place(weight);
  Op op{};
  Dense panel;
  Tensor out = open_panel(name, op, panel, weight, n, k, kFloat);
  const Dense by_row = vector({name, "scale"}, scale, kFloat, n);
  op.scale = by_row.as<float>();
  op.out = data<float>(out);
  run_on_torch(op);
  return out;
}

Tensor pack_int8(const Tensor& codes) { return pack_panel<PackInt8>("pack_int8", kChar, codes); }
Tensor pack_fp8(const Tensor& codes) { return pack_panel<PackFp8>("pack_fp8", kByte, codes); }
Tensor unpack_int8(const Tensor& weight, int64_t n, int64_t k) {
  return unpack_panel<UnpackInt8>("unpack_int8", kChar, weight, n, k);
}
Tensor unpack_fp8(const Tensor& weight, int64_t n, int64_t k) {
  return unpack_panel<UnpackFp8>("unpack_fp8", kByte, weight, n, k);
}
Tensor dequantize_int8(const Tensor& weight, const Tensor& scale, int64_t n, int64_t k) {
  return dequantize_panel<DequantizeInt8>("dequantize_int8", weight, scale, n, k);
}
Tensor dequantize_fp8(const Tensor& weight, const Tensor& scale, int64_t n, int64_t k) {
  return dequantize_panel<DequantizeFp8>("dequantize_fp8", weight, scale, n, k);
}

Tensor pack_int4(const Tensor& codes, const Tensor& scale, const MaybeTensor& zeros, const std::string& scale_dtype) {
  const char* name = "pack_int4";
  const Place place(codes);
  const Dense source = matrix({name, "codes"}, codes, kChar);
  const Dense scales = matrix({name, "scale"}, scale, kFloat);
  const int64_t n = codes.size(0), k = codes.size(1), groups = scale.size(1);
  const int64_t group_size = group_of_scales(name, k, groups);
  const Int4Panel panel = int4_panel(name, n, k, group_size, scale_dtype, zeros.has_value());
  sized({name, "scale"}, scale, kFloat, n, groups);
  const Dense offsets = zeros ? sized({name, "zeros"}, *zeros, kChar, n, groups) : Dense{};
  Tensor weight = make_packed(codes, panel.bytes());
  PackInt4 op{};
  op.codes = source.as<int8_t>();
  op.scale = scales.as<float>();
  op.zeros = offsets.as<int8_t>();
  op.weight = data(weight);
  op.n = n;
  op.k = k;
  op.group_size = panel.group_size;
  op.scale_dtype = panel.scale_dtype;
  run_on_torch(op);
  return weight;
}

std::tuple<Tensor, Tensor, Tensor> unpack_int4(const Tensor& weight, int64_t n, int64_t k, int64_t group_size,
                                               const std::string& scale_dtype, bool zero_points) {
  const char* name = "unpack_int4";
  const Place place(weight);
  const Int4Panel panel = int4_panel(name, n, k, group_size, scale_dtype, zero_points);
  const Dense blocks = packed({name, "weight"}, weight, panel.bytes(), n, k);
  Tensor codes = make(weight, {n, k}, kChar), scale = make(weight, {n, panel.groups()}, kFloat);
  Tensor zeros = make(weight, zero_points ? std::vector<int64_t>{n, panel.groups()} : std::vector<int64_t>{0}, kChar);
  UnpackInt4 op{};
  op.weight = blocks.data;
  op.codes = data<int8_t>(codes);
  op.scale = data<float>(scale);
  op.zeros = zero_points ? data<int8_t>(zeros) : nullptr;
  op.n = n;
  op.k = k;
  op.group_size = panel.group_size;
  op.scale_dtype = panel.scale_dtype;
  run_on_torch(op);
  return {codes, scale, zeros};
}

Tensor dequantize_int4(const Tensor& weight, int64_t n, int64_t k, int64_t group_size, const std::string& scale_dtype,
                       bool zero_points) {
  const char* name = "dequantize_int4";
  const Place place(weight);
  const Int4Panel panel = int4_panel(name, n, k, group_size, scale_dtype, zero_points);
  const Dense blocks = packed({name, "weight"}, weight, panel.bytes(), n, k);
  Tensor out = make(weight, {n, k}, kFloat);
  DequantizeInt4 op{};
  op.weight = blocks.data;
  op.out = data<float>(out);
  op.n = n;
  op.k = k;
  op.group_size = panel.group_size;
  op.zero_points = zero_points;
  op.scale_dtype = panel.scale_dtype;
  run_on_torch(op);
  return out;
}

Tensor pack_nibbles(const Tensor& codes) {
  const Place place(codes);
  const Dense source = matrix({"pack_nibbles", "codes"}, codes, kChar);
  PackNibbles op{};
  op.codes = source.as<int8_t>();
  op.rows = codes.size(0);
  op.columns = codes.size(1);
  Tensor words = make(codes, {op.rows, (op.columns + 7) / 8}, ScalarType::Int);
  op.words = data<int32_t>(words);
  run_on_torch(op);
  return words;
}

Tensor unpack_nibbles(const Tensor& words, int64_t columns) {
  const Name name{"unpack_nibbles", "words"};
  const Place place(words);
  check_positive(name.op, "columns", columns);
  const Dense source = matrix(name, words, ScalarType::Int);
  sized(name, words, ScalarType::Int, words.size(0), (columns + 7) / 8);
  UnpackNibbles op{};
  op.words = source.as<int32_t>();
  op.rows = words.size(0);
  op.columns = columns;
  Tensor codes = make(words, {op.rows, columns}, kChar);
  op.codes = data<int8_t>(codes);
  run_on_torch(op);
  return codes;
}

// What runs on CPUs and on cards alike.
template <class Library>
void implement(Library& m) {
  m.impl("pack_int8", TORCH_BOX(&pack_int8));
  m.impl("unpack_int8", TORCH_BOX(&unpack_int8));
  m.impl("dequantize_int8", TORCH_BOX(&dequantize_int8));
  m.impl("pack_fp8", TORCH_BOX(&pack_fp8));
  m.impl("unpack_fp8", TORCH_BOX(&unpack_fp8));
  m.impl("dequantize_fp8", TORCH_BOX(&dequantize_fp8));
  m.impl("pack_int4", TORCH_BOX(&pack_int4));
  m.impl("unpack_int4", TORCH_BOX(&unpack_int4));
  m.impl("dequantize_int4", TORCH_BOX(&dequantize_int4));
  m.impl("pack_nibbles", TORCH_BOX(&pack_nibbles));
  m.impl("unpack_nibbles", TORCH_BOX(&unpack_nibbles));
}

}  // namespace
}  // namespace pennyweight::torch_ops

STABLE_TORCH_LIBRARY_IMPL(pennyweight, CPU, m) { pennyweight::torch_ops::implement(m); }

STABLE_TORCH_LIBRARY_IMPL(pennyweight, CUDA, m) { pennyweight::torch_ops::implement(m); }
