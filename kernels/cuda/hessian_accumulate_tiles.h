// SPDX-License-Identifier: Apache-2.0
// hessian_accumulate_tiles.h: what hessian_accumulate_sm80.cuh, compiled once per type, is given.
#pragma once
#include "pennyweight/calibrate.h"
#include "pennyweight/cuda.h"
#include "pennyweight/numerics.h"

namespace pennyweight::cuda {

struct HessianTile {
  static constexpr int side = 128, tokens = 32, stages = 3, threads = 128, blocks_per_sm = 2;
  static constexpr int warp = 64;          // rows and columns of a warp, two by two
  static constexpr int chunks = side / 8;  // of 16 bytes, in a token's row
  static constexpr int operand_bytes = tokens * side * 2, stage_bytes = 2 * operand_bytes;
  static constexpr int shared_bytes = stages * stage_bytes;  // 48 KB: two blocks in the 100 KB of an sm_86 or sm_89
  static constexpr int run = 512;                            // turns between two visits to h: 16384 tokens
};

struct HessianProblem {
  const uint16_t* x;     // pieces of x, each (tokens, stride)
  int64_t t, k, stride;  // stride: in elements, whole chunks of 16 bytes
  int64_t piece;         // elements from a piece to the next
  int passes;            // 1: x is one piece; 6: x is three, see kPassLeft
  int turns;             // of 32 tokens, in a pass
  int tiles, lower;      // along k; on the diagonal and below
  int splits;            // of all passes' turns
  float* h;              // (k, k)
  float* partial;        // (splits, lower, 128, 128), or null: the sums go to h
};

// x = piece 0 + piece 1 + piece 2. Digit p of each: the pieces that pass p multiplies; left out are those products that
// float32 cannot tell from zero.
constexpr unsigned kPassLeft = 0x201100u, kPassRight = 0x021010u;
constexpr int kPasses = 6, kPieces = 3;

template <DType dtype>
int launch_hessian(const HessianProblem& p, void* stream);  // a cudaError_t

// Into how many parts to cut the turns of a problem; the rest follows.
int splits_of_hessian(const HessianAccumulate& op, const Card& card);
int64_t hessian_bytes(const HessianAccumulate& op, int splits);
int run_hessian(const HessianAccumulate& op, int splits, const CudaCall& call);

}  // namespace pennyweight::cuda
