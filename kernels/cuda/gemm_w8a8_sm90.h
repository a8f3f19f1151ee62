// SPDX-License-Identifier: Apache-2.0
// gemm_w8a8_sm90.h: the W8A8 GEMMs of Hopper: which tile a problem gets. Plain C++, tested without CUDA.
#pragma once
#include "gemm_w8a8_sm90_tiles.h"
#include "pennyweight/cuda.h"
#include "pennyweight/linear.h"

namespace pennyweight::cuda {

// A tile as the plan sees it.
struct Sm90Shape {
  const char* name;
  Codes codes;
  Rows rows;
  int bm, bn, bk;
  Pair pair;
  Groups groups;
  Sums sums;
  int (*launch)(const GemmSm90&, void*);  // null where the kernels were left out of the build

  int down() const { return pair == Pair::below ? 2 : 1; }
  int beside() const { return pair == Pair::beside ? 2 : 1; }
  int64_t tiles(int64_t m, int64_t n) const;  // pairs are whole: a block may have nothing to do
  // Cycles that a multiprocessor needs for a tile of k inputs, and a card for a problem, by the model of
  // gemm_w8a8_sm90.cpp.
  double tile_cycles(int64_t k) const;
  double cycles(int64_t m, int64_t n, int64_t k, int multiprocessors) const;
};
extern const Sm90Shape kSm90Shapes[];
extern const int kSm90ShapeCount;

struct Sm90Plan {
  int shape;  // index into kSm90Shapes, -1: none
  int band;
};
Sm90Plan plan_sm90(Codes codes, Sums sums, int64_t m, int64_t n, int64_t k, int multiprocessors);
// The widest band that adds no empty tiles.
int band_of(const Sm90Shape& shape, int64_t m, int64_t n);

// Why the kernels are not in this build, in words; nullptr: they are.
const char* sm90_left_out();

template <class Op>
Sm90Plan plan_sm90(const Op& op, const Card& card) {
  constexpr Codes codes = Op::id == OpId::gemm_w8a8_int8 ? Codes::int8 : Codes::e4m3;
  const Sums sums = codes == Codes::e4m3 && op.fast_accum ? Sums::fast : Sums::exact;
  return plan_sm90(codes, sums, op.m, op.n, op.k, card.multiprocessors);
}

// Why the sm_90 GEMM does not take this; nullptr: it does.
const char* why_not_sm90(const GemmW8A8& op, const Sm90Plan& plan, const Card& card);
template <class Op>
const char* why_not_sm90(const Op& op, const Card& card) {
  return why_not_sm90(op, plan_sm90(op, card), card);
}
int run_sm90(const GemmW8A8& op, const Sm90Plan& plan, const CudaCall& call);

}  // namespace pennyweight::cuda
