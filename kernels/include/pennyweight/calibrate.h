// SPDX-License-Identifier: Apache-2.0
// calibrate.h: how weights are found: Hessians, GPTQ, scales, SmoothQuant.
#pragma once
#include "pennyweight/formats.h"
#include "pennyweight/registry.h"

namespace pennyweight {

// h += x^T x, lower triangle only (row >= column); the upper triangle is neither read nor written.
struct HessianAccumulate {
  const void* x;  // (t, k) x_dtype, rows x_stride apart
  float* h;       // (k, k)
  int64_t t, k, x_stride;
  DType x_dtype;
  static constexpr OpId id = OpId::hessian_accumulate;
};

// GPTQ of one weight against given scales (fixed before, found on the original weight): minimizes
// (w - q s) H (w - q s)^T column by column, each column's error handed on to those not yet done, in blocks of 128.
// Zero diagonal entries of H (dead columns) are set to 1 and their weights to 0. damping * mean(diag H) is added to the
// diagonal; where the factorization still fails, damping is raised tenfold, at most `retries` times.
// act_order: columns are visited in order of falling diag H (ties by index), groups stay where they are ("static").
struct GptqQuantize {
  const void* weight;  // (n, k) w_dtype, contiguous
  const float* h;      // (k, k), lower triangle read; unchanged
  const float* scale;  // (n, k / group_size); group_size k: (n, 1)
  int8_t* codes;       // (n, k): -128..127 or -8..7
  double* stats;       // (5,): damping used (< 0: never positive definite, codes are then those of rounding to
                       //  nearest), dead columns, sum of (w-q)H(w-q)^T, sum of w H w^T, sum of (w-q)^2 / sum of w^2.
                       //  w H w^T may be taken over every (n / 256)th row, which is every row for n < 512, and scaled
                       //  by what these rows hold of the sum of w diag(H) w^T (all rows would cost as much again as
                       //  the solve).
  int64_t n, k, group_size, bits;  // bits 8 or 4
  double damping;
  int64_t act_order, retries;
  DType w_dtype;
  static constexpr OpId id = OpId::gptq_quantize;
};

// At most 128 columns of GPTQ, `first` and those after it in order of visit, of layers of one shape. With H = R R^T, R
// upper triangular, sums[i] = sum over columns j before `first` of d_j R_ji, and in float32, one fused multiply-add
// after the other in order of j, so that codes and residuals have the same bits from every implementation:
//   target_i = (sums[i] + sum over first <= j < i of d_j R_ji) * (1 / R_ii) + w_i
//   q_i = clamp(round-half-even(target_i / s_i)),  d_i = w_i - q_i s_i
struct GptqColumns {
  const float* factor;                        // (layers, k, k): R
  const float* sums;                          // (layers, n, k)
  const float* scale;                         // (layers, n, groups)
  const int32_t* group;                       // (layers, k): which scale of a row a column has
  float* residual;                            // (layers, n, k): w; in these columns d on return
  int8_t* codes;                              // (layers, n, k): these columns are written
  float* loss;                                // (layers, n): += sum of ((target - q s) R_ii)^2, summed in any order
  int64_t layers, n, k, groups, first, bits;  // bits 8 or 4
  static constexpr OpId id = OpId::gptq_columns;
};
constexpr int64_t kGptqColumns = 128;

// Symmetric scales of a weight, one per row and group, as llm-compressor computes them: amax / 127.5, / 7.5 (INT8,
// INT4), / 448 (FP8), each step rounded to w_dtype; a zero scale becomes the eps of w_dtype.
// mse: tries p = 1 - i / grid for i in [0, maxshrink * grid) on amax (p * amax rounded to w_dtype first), error
// sum |dequantized - w|^norm, stops after `patience` steps in which no group of the tensor improved.
struct WeightScales {
  const void* weight;  // (n, k) w_dtype, contiguous
  float* scale;        // (n, k / group_size)
  int64_t n, k, group_size;
  int64_t format;  // 8: INT8, 4: INT4, 0: FP8
  int64_t mse;     // 0: min-max
  int64_t grid, patience;
  double maxshrink, norm;
  DType w_dtype;
  static constexpr OpId id = OpId::weight_scales;
};

// Round to nearest: codes = clamp(round-half-even(w / scale)), quotient in float32; FP8 saturates.
struct QuantizeWeight {
  const void* weight;
  const float* scale;  // (n, k / group_size)
  void* codes;         // (n, k) int8, or E4M3 bytes
  int64_t n, k, group_size, format;
  DType w_dtype;
  static constexpr OpId id = OpId::quantize_weight;
};

// low = min(low, column minima of x), high = max(high, column maxima). NaN and Inf propagate.
struct ColumnRange {
  const void* x;  // (t, k)
  float* low;     // (k,)
  float* high;    // (k,)
  int64_t t, k, x_stride;
  DType x_dtype;
  static constexpr OpId id = OpId::column_range;
};

// out = max over rows of |weight|
struct ColumnAbsMax {
  const void* weight;  // (n, k) w_dtype, contiguous
  float* out;          // (k,)
  int64_t n, k;
  DType w_dtype;
  static constexpr OpId id = OpId::column_abs_max;
};

// SmoothQuant: s = (high - low)^strength / (2 * weight_abs_max)^(1 - strength), at least 1e-5; 1 where either is zero.
struct SmoothScales {
  const float* low;             // (k,)
  const float* high;            // (k,)
  const float* weight_abs_max;  // (k,), over all layers that read the channel
  float* scale;                 // (k,)
  int64_t k;
  double strength;
  static constexpr OpId id = OpId::smooth_scales;
};

}  // namespace pennyweight
