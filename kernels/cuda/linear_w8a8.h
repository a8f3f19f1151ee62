// SPDX-License-Identifier: Apache-2.0
// linear_w8a8.h: per-token quantization of x into the workspace, then a GEMM on its codes, in one stream.
//
//   workspace:  the GEMM's own | codes (M, K) | row scales (M,) float32                    each from a multiple of 256
//
// Rows of codes begin at multiples of 16 bytes, as the GEMMs want them, whatever K is.
#pragma once
#include "kernels_quantize.h"
#include "linear_sm80.h"
#include "table.h"

namespace pennyweight::cuda {

// Linear, of Quantize and Gemm: the ops and the functions that run them on a card.
template <class Linear, class Quantize, int (*quantize)(const Quantize&, int64_t codes_stride, const CudaCall&),
          class Gemm, const char* (*why_not_gemm)(const Gemm&, const Card&),
          int64_t (*gemm_bytes)(const Gemm&, const Card&), int (*gemm)(const Gemm&, const CudaCall&)>
struct QuantizeThenGemm {
  static Gemm gemm_of(const Linear& op) {  // codes and row scales null
    Gemm g{};
    g.weight = op.weight;
    g.col_scale = op.col_scale;
    g.bias = op.bias;
    g.y = op.y;
    g.m = op.m;
    g.n = op.n;
    g.k = op.k;
    g.codes_stride = code_row_bytes(op.k);
    g.y_stride = op.y_stride;
    g.y_dtype = op.x_dtype;
    g.fast_accum = op.fast_accum;
    return g;
  }

  static int64_t codes_at(const Linear& op, const Card& card) { return round_up(gemm_bytes(gemm_of(op), card), 256); }
  static int64_t scales_at(const Linear& op, const Card& card) {
    return codes_at(op, card) + round_up(op.m * code_row_bytes(op.k), 256);
  }

  static const char* why_not(const Linear& op, const Card& card) {
    if (const char* why = why_not_gemm(gemm_of(op), card)) return why;
    return sm80::why_not_rows(op.m, op.k, op.smooth ? DType::f32 : op.x_dtype, card);
  }
  static int64_t workspace_bytes(const Linear& op, const Card& card) { return scales_at(op, card) + op.m * 4; }

  static int run(const Linear& op, const CudaCall& call) {
    if (op.m == 0) return 0;
    char* workspace = static_cast<char*>(call.workspace);
    Quantize q{};
    q.x = op.x;
    q.smooth = op.smooth;
    q.codes = workspace + codes_at(op, call.card);
    q.scale = reinterpret_cast<float*>(workspace + scales_at(op, call.card));
    q.m = op.m;
    q.k = op.k;
    q.x_stride = op.x_stride;
    q.x_dtype = op.x_dtype;
    Gemm g = gemm_of(op);
    if (const int error = quantize(q, g.codes_stride, call)) return error;
    g.codes = q.codes;
    g.row_scale = q.scale;
    return gemm(g, call);
  }
};

}  // namespace pennyweight::cuda
