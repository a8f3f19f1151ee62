// SPDX-License-Identifier: Apache-2.0
// hessian.cpp: h += x^T x, lower triangle: the order of work, for any instruction set (hessian.h).
//
// Tokens are taken in blocks small enough that a packed block is 32 MB at most. Of h, squares of 4 x 4 panels are
// tasks, lower ones only: their part of h stays in L2 while the tokens of the block go by in steps of 128 dwords (a
// panel's step, 24 KB, in L1).
//
//          panels →
//        ┌────┐                 a square on the diagonal skips its upper panels; a panel pair on the diagonal, or at
//        │ 00 │                 the edge of h, is computed aside and its lower part added
//        ├────┼────┐
//        │ 10 │ 11 │
//        └────┴────┘
#include "hessian.h"

#include <algorithm>
#include <cstring>

#include "scratch.h"

namespace pennyweight::cpu {
namespace {

constexpr int64_t kBlockFloats = 8 << 20;  // of packed x
constexpr int64_t kSquare = 4;             // panels on a side of a task's square
constexpr int64_t kSteps = 128;            // dwords of tokens between two visits to h
constexpr int64_t kMaxWidth = 48;
constexpr int64_t kTokens = 32;  // per packing task

struct Block {
  const HessianAccumulate& op;
  const HessianKernels& kernels;
  float* packed;  // [panel][step][width]
  int64_t panels, steps;

  const float* panel(int64_t p, int64_t step) const { return packed + (p * steps + step) * kernels.width; }

  // Panel pair (row, column) of h, row >= column.
  void add(int64_t row, int64_t column, int64_t step) const {
    const int64_t width = kernels.width, i0 = row * width, j0 = column * width;
    const int64_t count = std::min(kSteps, steps - step);
    if (row > column && i0 + width <= op.k) {
      kernels.multiply(op.h + i0 * op.k + j0, op.k, panel(row, step), panel(column, step), count);
      return;
    }
    float aside[kMaxWidth * kMaxWidth] = {};
    kernels.multiply(aside, width, panel(row, step), panel(column, step), count);
    for (int64_t i = i0; i < i0 + width && i < op.k; ++i)
      for (int64_t j = j0; j < j0 + width && j <= i; ++j) op.h[i * op.k + j] += aside[(i - i0) * width + j - j0];
  }

  void add_square(int64_t row, int64_t column) const {
    for (int64_t step = 0; step < steps; step += kSteps)
      for (int64_t j = column * kSquare; j < (column + 1) * kSquare && j < panels; ++j)
        for (int64_t i = std::max(j, row * kSquare); i < (row + 1) * kSquare && i < panels; ++i) add(i, j, step);
  }
};

}  // namespace

void accumulate_hessian(const HessianAccumulate& op, const Executor& executor, const HessianKernels& kernels) {
  const int64_t width = kernels.width, panels = (op.k + width - 1) / width;
  const int64_t fit = kBlockFloats * kernels.pair / (panels * width) / 256 * 256;
  const int64_t block = std::min(std::clamp<int64_t>(fit, 256, 4096), round_up(op.t, 2));
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
    parallel_for(executor, squares * (squares + 1) / 2, [&](int64_t task) {
      int64_t row = squares - 1, column = task;
      while (column > row) column -= row-- + 1;
      work.add_square(row, column);
    });
  }
}

}  // namespace pennyweight::cpu
