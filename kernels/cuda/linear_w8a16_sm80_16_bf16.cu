// SPDX-License-Identifier: Apache-2.0
// One tile of linear_w8a16_sm80.cuh.
#include "linear_w8a16_sm80.cuh"

namespace pennyweight::cuda {

template int launch_w8a16<W8A16Tile16<Half::bf16>>(const Gemm&, void*);

}  // namespace pennyweight::cuda
