// SPDX-License-Identifier: Apache-2.0
// gptq.h: GPTQ without an inverse: what the driver (gptq.cpp) asks of an instruction set (gptq_kernels.h).
//
// With the columns in reverse order of visit, a = k - 1 - position, H = U^T U, U upper triangular: the objective is
// |U (w - q s)|^2, and its row a involves columns a and later only, all of them decided when a's turn comes:
//
//     q_a = round((w_a + sum_{b > a} U_ab d_b / U_aa) / s_a),   d_a = w_a - q_a s_a
//
// U^-1 is what the usual formulation calls the Cholesky factor of the inverse Hessian; it is never formed.
//
// U is stored as 128 x 128 tiles, upper ones only (half of k^2 floats), each tile as four panels of 32 columns, row by
// row: element (a, b) of a tile is at [b / 32][a][b % 32]. K is padded to whole tiles with the identity.
//
//              b →                     inside a tile
//        ┌────┬────┬────┐            ┌──────┬──────┬──────┬──────┐
//     a  │ 00 │ 01 │ 02 │            │ 128  │      │      │      │   a panel is 16 KB and contiguous: the right
//     ↓  └────┼────┼────┤            │ rows │      │      │      │   operand of a product streams through L1,
//             │ 11 │ 12 │            │ of 32│      │      │      │   the left one is read by broadcasts
//             └────┼────┤            └──────┴──────┴──────┴──────┘
//                  │ 22 │
//                  └────┘
// Weights are held in the same way: 32 rows of W side by side, K running down, [k][32].
#pragma once
#include "pennyweight/calibrate.h"

namespace pennyweight::cpu {

constexpr int kTile = 128;  // GPTQ's block of columns, and the Cholesky factor's
constexpr int kStrip = 32;  // columns of a panel; rows of W that are solved side by side
constexpr int kStripFloats = kTile * kStrip;
constexpr int kTileFloats = kTile * kTile;

// One block of columns of one strip of rows, and where its results go.
struct GptqBlock {
  const float* tile;          // U's diagonal tile
  const float* inverse;       // (128,) 1 / U_aa
  float* sums;                // (128, 32) sum over later tiles of U_ab d_b; overwritten
  float* residual;            // (128, 32) w on entry, d on return
  const float* const* scale;  // (128,) each -> 32 scales
  int8_t* const* codes;       // (128,) each -> 32 codes
  float low, high;            // range of a code
  float* loss;                // (32,) += sum of ((target - q s) U_aa)^2
  float* error;               // (32,) += sum of d^2
};

struct GptqKernels {
  // c (128, 32) -= a^T b: `a` a whole tile, `b` and `c` panels. The next product's are fetched to L2.
  void (*subtract_product)(float* c, const float* a, const float* b, const float* next_a, const float* next_b);
  // Factors a diagonal tile in place, panels from the left; writes 1 / U_aa. False where a pivot is not above
  // floor[a].
  bool (*factor_tile)(float* tile, const float* floor, float* inverse);
  // panel (128, 32) <- U_tile^-T panel.
  void (*solve_panel)(const float* tile, const float* inverse, float* panel);
  // c (128, 32) += a b: `a` a whole tile, b (128, 32). The next product's are fetched to L2.
  void (*add_product)(float* c, const float* a, const float* b, const float* next_a, const float* next_b);
  void (*solve_block)(const GptqBlock& block);
  // Per row of a strip's block (128, 32): norm += sum of w_a^2, weighted += sum of w_a^2 diagonal_a.
  void (*add_norms)(const float* block, const float* diagonal, float* norm, float* weighted);
  // At most 32 rows of k values, `stride` elements apart, as a strip: strip[place[i]][r] = weight[r * stride + i].
  void (*load_strip)(const void* weight, DType dtype, int64_t rows, int64_t stride, int64_t k, const int64_t* place,
                     float* strip);
  // codes (rows, k) <- strip of codes (k, 32)
  void (*store_codes)(const int8_t* strip, int64_t rows, int64_t k, int8_t* codes);
};

void gptq(const GptqQuantize& op, const Executor& executor, const GptqKernels& kernels);
void gptq_quantize_avx2(const GptqQuantize& op, const Executor& executor);
void gptq_quantize_avx512vnni(const GptqQuantize& op, const Executor& executor);

}  // namespace pennyweight::cpu
