// SPDX-License-Identifier: Apache-2.0
// linear_w8a8_int8_sm80.cu: per-token quantization of x into the workspace, then the GEMM on its codes, in one stream.
//
//   workspace:  partial sums of the GEMM | codes (M, K) int8 | row scales (M,) float32     each from a multiple of 256
#include "gemm_w8a8_int8_tiles.h"
#include "kernels_quantize.h"
#include "linear_sm80.h"
#include "table.h"

namespace pennyweight::cuda {
namespace {

struct Parts {
  GemmW8A8Int8 gemm;  // codes and row scales null
  Int8Plan plan;
  int64_t codes, scales, bytes;  // where they begin, and all of it

  Parts(const LinearW8A8Int8& op, const Card& card) : gemm{} {
    gemm.weight = op.weight;
    gemm.col_scale = op.col_scale;
    gemm.bias = op.bias;
    gemm.y = op.y;
    gemm.m = op.m;
    gemm.n = op.n;
    gemm.k = gemm.codes_stride = op.k;
    gemm.y_stride = op.y_stride;
    gemm.y_dtype = op.x_dtype;
    plan = plan_int8(gemm, card);
    codes = round_up(partial_bytes(gemm, plan), 256);
    scales = codes + round_up(op.m * op.k, 256);
    bytes = scales + op.m * 4;
  }
};

}  // namespace

const char* why_not_linear_w8a8_int8_sm80(const LinearW8A8Int8& op, const Card& card) {
  if (card.compute < 80) return needs_sm80(card);
  if (op.m > 1 && op.k % 16 != 0) return "needs a K that is a multiple of 16";
  if (const char* why = sm80::why_not_rows(op.m, op.k, op.x_dtype, card)) return why;
  return why_not_gemm_w8a8_int8_sm80(Parts(op, card).gemm, card);
}

int64_t workspace_linear_w8a8_int8_sm80(const LinearW8A8Int8& op, const Card& card) { return Parts(op, card).bytes; }

int linear_w8a8_int8_sm80(const LinearW8A8Int8& op, const CudaCall& call) {
  Parts parts(op, call.card);
  char* workspace = static_cast<char*>(call.workspace);
  QuantizePerTokenInt8 quantize{};
  quantize.x = op.x;
  quantize.smooth = op.smooth;
  quantize.codes = workspace + parts.codes;
  quantize.scale = reinterpret_cast<float*>(workspace + parts.scales);
  quantize.m = op.m;
  quantize.k = op.k;
  quantize.x_stride = op.x_stride;
  quantize.x_dtype = op.x_dtype;
  if (const int error = sm80::quantize_per_token_int8(quantize, call)) return error;
  parts.gemm.codes = quantize.codes;
  parts.gemm.row_scale = quantize.scale;
  return run_int8(parts.gemm, parts.plan, call);
}

}  // namespace pennyweight::cuda
