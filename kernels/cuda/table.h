// SPDX-License-Identifier: Apache-2.0
// table.h: how the CUDA implementations of an op are listed (ops.cpp), and what they ask of a card.
#pragma once
#include "pennyweight/cuda.h"

namespace pennyweight::cuda {

template <class Op, int (*Run)(const Op&, const CudaCall&)>
int erased(const void* op, const CudaCall& call) {
  return Run(*static_cast<const Op*>(op), call);
}

template <class Op, const char* (*WhyNot)(const Op&, const Card&)>
const char* erased_why_not(const void* op, const Card& card) {
  return WhyNot(*static_cast<const Op*>(op), card);
}

template <class Op, int64_t (*Bytes)(const Op&, const Card&)>
int64_t erased_bytes(const void* op, const Card& card) {
  return Bytes(*static_cast<const Op*>(op), card);
}

inline const char* needs_sm80(const Card& card) {
  return card.compute >= 80 ? nullptr : "needs compute capability 8.0 (Ampere) or later";
}

const CudaOp* find_op(OpId id);     // ops.cpp; absent.cpp where CUDA was left out
const char* error_text(int error);  // of a cudaError_t

}  // namespace pennyweight::cuda
