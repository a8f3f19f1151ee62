// SPDX-License-Identifier: Apache-2.0
// checks.h: what comes between a tensor and an op's struct: shape and dtype checks, pointers, outputs, the executor.
//
// Every error is worded in checks.cpp and nowhere else. Its text begins with a tag, [pw:shape], [pw:unsupported],
// [pw:memory] or [pw:device], by which ops.py raises the right class; then: op: rule; got numbers; what to do.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <string>
#include <vector>

#include "pennyweight/formats.h"
#include "pennyweight/registry.h"

namespace pennyweight::torch_ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

// Which op speaks and which of its tensors is meant, for error texts.
struct Name {
  const char* op;
  const char* tensor;
};

[[noreturn]] void fail_shape(const char* op, const std::string& text);
[[noreturn]] void fail_unsupported(const char* op, const std::string& text);
std::string describe(const Tensor& t);  // "[3, 4100] bfloat16 cpu"

// A tensor (..., columns) read as `rows` rows, `stride` elements apart, each contiguous. The tensor is kept alive here:
// it is the caller's where its leading dimensions are evenly spaced, else a contiguous copy.
struct Rows {
  Tensor tensor;
  const void* data;
  int64_t rows, columns, stride;
  DType dtype;

  std::vector<int64_t> shape(int64_t last) const;  // the leading dimensions, then `last`
};
Rows float_rows(Name name, const Tensor& t);                   // float32, float16 or bfloat16
Rows code_rows(Name name, const Tensor& t, ScalarType dtype);  // codes of exactly this dtype
Rows bf16_rows(Name name, const Tensor& t);
Rows same_rows(Name name, const Tensor& t, const Rows& like);  // shape and dtype of `like`
int64_t half_of(Name name, const Rows& rows);                  // columns / 2, which must be whole

// Rotary embedding: `like` has heads of as many columns as cos and sin, which have a row for each of its rows or one.
Rows rows_for_each(Name name, const Tensor& t, const Rows& like);
void check_rotary(const char* op, const Rows& x, const Rows& cos, const Rows& sin);
// Cached keys or values: (batch, heads, tokens, columns), none empty, any strides but the last, dtype of `like`.
struct Cached {
  Tensor tensor;
  const void* data;
  int64_t batch, heads, tokens, columns, batch_stride, head_stride, token_stride;
};
Cached cached(Name name, const Tensor& t, const Rows& like);
void check_attention(const char* op, const Rows& q, const Cached& keys, const Cached& values);
Rows mask_rows(Name name, const Tensor& t, const Cached& keys);  // bool (batch, tokens)
// A decoder block's layers (ops_decode.cpp): N of one as it is given; q|k|v, of N outputs; those after the attention.
int64_t outputs_of(Name weight, const std::string& scheme, bool col_scale, const std::vector<int64_t>& form);
void check_joint(const char* op, const Rows& cos, const Rows& sin, int64_t n, int64_t heads, int64_t kv_heads,
                 int64_t values_begin);
void check_block(const char* op, const Rows& q, const Rows& residual, int64_t o, int64_t gate_up, int64_t intermediate,
                 int64_t down);

// A weight that is not packed must be (N, K), K as x has it.
void check_weight(const char* op, const Tensor& x, const Tensor& weight);

// A contiguous tensor, copied only where the caller's is not.
struct Dense {
  Tensor tensor;
  const void* data = nullptr;
  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};
Dense matrix(Name name, const Tensor& t, ScalarType dtype);                  // (n, k), both at least 1
Dense float_matrix(Name name, const Tensor& t);                              // the same, any of the three float dtypes
Dense vector(Name name, const Tensor& t, ScalarType dtype, int64_t length);  // `length` elements: (n,), (n, 1), ...
Dense vector(Name name, const MaybeTensor& t, ScalarType dtype, int64_t length);
Dense sized(Name name, const Tensor& t, ScalarType dtype, int64_t rows, int64_t columns);  // (rows, columns)
Dense shaped(Name name, const Tensor& t, ScalarType dtype, const std::vector<int64_t>& shape);
Dense packed(Name name, const Tensor& t, int64_t bytes, int64_t n, int64_t k);  // uint8, flat, of exactly this size
int64_t code_bytes(int64_t n, int64_t k);  // of a packed weight of 8 bits where the op runs: panels, on a card rows
// Written to, hence contiguous as it is.
void* in_place(Name name, const Tensor& t, const std::vector<int64_t>& shape, ScalarType dtype = ScalarType::Float);

DType dtype_of(Name name, const Tensor& t);  // of a float tensor
ScalarType scalar_type_of(DType t);
DType out_dtype_of(const char* op, ScalarType t, bool int32_too);
// INT8's bare accumulators (int32) take no scales and no bias; every other output needs both scales.
void check_epilogue(const char* op, DType out, bool row_scale, bool col_scale, bool bias);
void check_positive(const char* op, const char* argument, int64_t value);
void check_within(const char* op, const char* argument, int64_t value, int64_t end);  // 0 .. end - 1
void check_layers(Name name, const Tensor& t);                                        // (layers, n, k), none empty
// The group size that an op's struct wants: K for -1. `any`: whatever divides K, else only 32, 64, 128 and K.
int64_t group_of(const char* op, int64_t group_size, int64_t k, bool any);
Int4Panel int4_panel(const char* op, int64_t n, int64_t k, int64_t group_size, const std::string& scale_dtype,
                     bool zero_points);
int64_t group_of_scales(const char* op, int64_t k, int64_t groups);  // the group size of (N, groups) scales
DType scale_dtype_of(const char* op, const std::string& name);
int64_t format_of(const char* op, const std::string& scheme);  // 8, 4 or 0, as calibrate.h counts them
bool is_mse(const char* op, const std::string& observer);
void check_bits(const char* op, int64_t bits);
void check_damping(const char* op, double damping);
void check_search(const char* op, int64_t grid, double maxshrink, double norm, int64_t patience);
void check_strength(const char* op, double strength);

// A new contiguous tensor on the device of `like`.
Tensor make(const Tensor& like, const std::vector<int64_t>& shape, ScalarType dtype);
template <class T = void>
T* data(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

// Runs an op where its Place says: on torch's threads, as many as torch is set to at this moment, or on a card.
void run_on_torch(OpId id, const void* op);
template <class Op>
void run_on_torch(const Op& op) {
  run_on_torch(Op::id, &op);
}

}  // namespace pennyweight::torch_ops
