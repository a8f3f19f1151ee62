// SPDX-License-Identifier: Apache-2.0
// ops.cpp: the implementations for cards of every op that has one, best first.
#include "linear_sm80.h"
#include "table.h"

namespace pennyweight::cuda {
namespace {

const CudaImplementation gemm_w8a8_int8[] = {
    {"sm80", erased_why_not<GemmW8A8Int8, why_not_gemm_w8a8_int8_sm80>, erased<GemmW8A8Int8, gemm_w8a8_int8_sm80>,
     erased_bytes<GemmW8A8Int8, workspace_gemm_w8a8_int8_sm80>},
};

const CudaImplementation linear_w4a16[] = {
    {"sm80", erased_why_not<LinearW4A16, why_not_linear_w4a16_sm80>, erased<LinearW4A16, linear_w4a16_sm80>,
     erased_bytes<LinearW4A16, workspace_linear_w4a16_sm80>},
};

const CudaOp table[] = {
    {OpId::gemm_w8a8_int8, "gemm_w8a8_int8", gemm_w8a8_int8, 1},
    {OpId::linear_w4a16, "linear_w4a16", linear_w4a16, 1},
};

}  // namespace

const CudaOp* find_op(OpId id) {
  for (const CudaOp& op : table)
    if (op.id == id) return &op;
  return nullptr;
}

}  // namespace pennyweight::cuda
