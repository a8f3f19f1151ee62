// SPDX-License-Identifier: Apache-2.0
// One type of hessian_accumulate_sm80.cuh.
#include "hessian_accumulate_sm80.cuh"

namespace pennyweight::cuda {

template int launch_hessian<DType::bf16>(const HessianProblem&, void*);

}  // namespace pennyweight::cuda
