// SPDX-License-Identifier: Apache-2.0
// hessian.cpp: h += x^T x, lower triangle: the order of work, for any instruction set (hessian.h).
//
// Tokens are taken in blocks small enough that a packed block is 128 MB at most. Of h, squares of 4 x 4 panels are
// tasks, lower ones only: a square is copied to the side, where it stays in L2 while the tokens of the block go by in
// steps of 128 dwords (a panel's step, 24 KB, in L1), and is put back. In place it would not stay: where K is a power
// of two its rows fall into a few sets of the cache.
//
// Tried, one Ice Lake core (peak 176 GFLOP/s), T = 2048, K = 4096 and T = 1024, K = 14336: squares in place, blocks of
// 32 MB, no prefetch 101 and 94; squares aside, prefetch (hessian_kernels.h) 111 and 103; blocks of 128 MB 136 and 133.
// Squares of 2, 3, 6 or 8 panels, steps of 64 or 192, h's tile prefetched to L1: nothing, or worse.
//
//          panels →
//        ┌────┐
//        │ 00 │                 a square on the diagonal skips its upper panels, and puts back its lower part
//        ├────┼────┐
//        │ 10 │ 11 │
//        └────┴────┘
#include "hessian.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "scratch.h"

namespace pennyweight::cpu {
namespace {

constexpr int64_t kBlockFloats = 32 << 20;  // of packed x: h is visited once per block
constexpr int64_t kSquare = 4;              // panels on a side of a task's square
constexpr int64_t kSteps = 128;             // dwords of tokens between two visits to h
constexpr int64_t kTokens = 32;             // per packing task

struct Block {
  const HessianAccumulate& op;
  const HessianKernels& kernels;
  float* packed;  // [panel][step][width]
  int64_t panels, steps;

  const float* panel(int64_t p, int64_t step) const { return packed + (p * steps + step) * kernels.width; }

  // Between h and a square's copy, rows `side` apart, at h's (i0, j0): what lies in h on the diagonal or below.
  template <class Copy>
  void each_row(int64_t i0, int64_t j0, int64_t side, Copy copy) const {
    for (int64_t i = i0; i < std::min(i0 + side, op.k); ++i)
      copy(op.h + i * op.k + j0, (i - i0) * side, std::min(side, i + 1 - j0));
  }

  void add_square(int64_t row, int64_t column) const {
    const int64_t width = kernels.width, side = kSquare * width;
    float* square = static_cast<float*>(scratch(Slot::tile, side * side * sizeof(float)));
    std::memset(square, 0, side * side * sizeof(float));
    each_row(row * side, column * side, side,
             [&](const float* h, int64_t at, int64_t count) { std::memcpy(square + at, h, count * sizeof(float)); });
    for (int64_t step = 0; step < steps; step += kSteps)
      for (int64_t j = 0; j < kSquare && column * kSquare + j < panels; ++j)
        for (int64_t i = row == column ? j : 0; i < kSquare && row * kSquare + i < panels; ++i)
          kernels.multiply(square + i * width * side + j * width, side, panel(row * kSquare + i, step),
                           panel(column * kSquare + j, step), std::min(kSteps, steps - step));
    each_row(row * side, column * side, side,
             [&](float* h, int64_t at, int64_t count) { std::memcpy(h, square + at, count * sizeof(float)); });
  }
};

}  // namespace

void accumulate_hessian(const HessianAccumulate& op, const Executor& executor, const HessianKernels& kernels) {
  const int64_t width = kernels.width, panels = (op.k + width - 1) / width;
  const int64_t fit = std::clamp<int64_t>(kBlockFloats * kernels.pair / (panels * width), 256, 4096);
  const int64_t blocks = (op.t + fit - 1) / fit, block = std::min(round_up((op.t + blocks - 1) / blocks, 256), op.t);
  float* packed = static_cast<float*>(scratch(Slot::panel, panels * width * (block / kernels.pair) * sizeof(float)));
  const char* x = static_cast<const char*>(op.x);
  for (int64_t t0 = 0; t0 < op.t; t0 += block) {
    const int64_t tokens = std::min(block, op.t - t0), steps = (tokens + kernels.pair - 1) / kernels.pair;
    const Block work{op, kernels, packed, panels, steps};
    parallel_chunks(executor, tokens, kTokens, [&](int64_t begin, int64_t end) {
      for (int64_t p = 0; p < panels; ++p)
        kernels.pack(x + ((t0 + begin) * op.x_stride + p * width) * dtype_bytes(op.x_dtype), op.x_dtype, op.x_stride,
                     end - begin, op.k - p * width, packed + (p * steps + begin / kernels.pair) * width);
    });
    // Squares from the bottom, so that the cheap ones on the diagonal do not come last.
    const int64_t squares = (panels + kSquare - 1) / kSquare;
    std::atomic<int64_t> next{0};
    parallel_for(executor, executor.threads, [&](int64_t) {
      for (int64_t task; (task = next++) < squares * (squares + 1) / 2;) {
        int64_t row = squares - 1, column = task;
        while (column > row) column -= row-- + 1;
        work.add_square(row, column);
      }
    });
  }
}

}  // namespace pennyweight::cpu
