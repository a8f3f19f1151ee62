// SPDX-License-Identifier: Apache-2.0
// hessian_accumulate_avx512vnni.cpp: h += x^T x (hessian.h) in float32, vectors of 16.
#include "hessian_kernels.h"

namespace pennyweight::cpu {

void hessian_accumulate_avx512vnni(const HessianAccumulate& op, const Executor& executor) {
  accumulate_hessian(op, executor, {kWidth, 1, pack, multiply<fma>});
}

}  // namespace pennyweight::cpu
