// SPDX-License-Identifier: Apache-2.0
// One tile of linear_w4a16_sm80.cuh.
#include "linear_w4a16_sm80.cuh"

namespace pennyweight::cuda {

template int launch_tile<W4Tile128<Half::bf16>>(const GemmW4A16&, void*);

}  // namespace pennyweight::cuda
