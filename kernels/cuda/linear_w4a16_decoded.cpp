// SPDX-License-Identifier: Apache-2.0
// linear_w4a16_decoded.cpp: many tokens: the 4-bit weight decoded once into the workspace, then the 16-bit GEMM of the
// library that the caller has (cuda.h's HalfGemm; torch's).
//
// Pays        decoding moves N K / 2 + 2 N K bytes and the GEMM reads the 2 N K again: on (8192, 8192) some 40 us at an
//             H200's bandwidth, against 700 us of products at M = 4096 and 175 at M = 1024. The tensor cores' own
//             GEMM is the faster one where products are the limit: an mma.sync kernel reaches some two thirds of an
//             A100's rate with a decoding in it, and mma.sync itself two thirds of a Hopper's.
// Numerics    (q - z) * s is found in float32 and rounded once to x's dtype, by u |w| at most (f16: 2^-25 where that is
//             more), so y's bound has u sum |x| |w| more than the kernel's that decodes in registers. Sums as the
//             library does them.
// Tried       not yet run on a card: the number of rows from which it pays is arithmetic
#include "linear_sm80.h"
#include "pack_sm80.h"
#include "table.h"

namespace pennyweight::cuda {
namespace {

Int4Panel panel_of(const LinearW4A16& op) { return {op.n, op.k, op.group_size, op.scale_dtype, op.zero_points != 0}; }

}  // namespace

const char* why_not_linear_w4a16_decoded(const LinearW4A16& op, const Card& card) {
  if (card.compute < 80) return needs_sm80(card);
  if (op.x_dtype == DType::f32) return "takes float16 and bfloat16 activations";
  if (card.compute == 90 && op.m < 512) return "decodes the whole weight, which pays from 512 rows of x on";
  if (card.compute != 90 && op.m < 1024) return "decodes the whole weight, which pays from 1024 rows of x on";
  if (!half_gemm()) return "needs torch's GEMM, and is not called by torch";
  return why_not_int4_panel(op.weight, panel_of(op), card);
}
int64_t workspace_linear_w4a16_decoded(const LinearW4A16& op, const Card&) { return 2 * op.n * op.k; }
int linear_w4a16_decoded(const LinearW4A16& op, const CudaCall& call) {
  if (const int error = decode_int4_sm80(op.weight, panel_of(op), call.workspace, op.x_dtype, call.stream))
    return error;
  return half_gemm()({op.x, call.workspace, op.bias, op.y, op.m, op.n, op.k, op.x_stride, op.y_stride, op.x_dtype},
                     call);
}

}  // namespace pennyweight::cuda
