// SPDX-License-Identifier: Apache-2.0
// One tile of gemm_w8a8_sm90.cuh.
#include "gemm_w8a8_sm90.cuh"

namespace pennyweight::cuda {

template int launch_sm90<Sm90Outputs64x64<Codes::e4m3, Sums::fast>>(const GemmSm90&, void*);

}  // namespace pennyweight::cuda
