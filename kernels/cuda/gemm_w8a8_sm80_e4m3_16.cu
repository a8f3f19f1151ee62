// SPDX-License-Identifier: Apache-2.0
// One tile of gemm_w8a8_sm80.cuh.
#include "gemm_w8a8_sm80.cuh"

namespace pennyweight::cuda {

template int launch_tile<E4m3Tile16>(const Gemm&, void*);

}  // namespace pennyweight::cuda
