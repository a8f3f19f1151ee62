// SPDX-License-Identifier: Apache-2.0
// gemm_w8a8_sm90_twin.cpp: stands for the GEMMs of Hopper in emulation: what they are given, checked as their copy
// engine would check it, and their tiles by plain loops. It tells nothing of the kernels themselves; it lets what
// chooses them, launches them and comes before them run without a card.
#include "gemm_w8a8_sm90_tiles.h"
#include "pennyweight/numerics.h"
#include "runtime.cuh"

namespace pennyweight::cuda {
namespace {

constexpr int kRefused = 1, kThreads = 32;  // (cudaErrorInvalidValue)

bool whole_16(const void* p, int64_t stride_bytes) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 && stride_bytes % 16 == 0 && stride_bytes > 0;
}

float scaled_sum(const GemmSm90& p, Codes codes, int64_t row, int64_t n) {
  const uint8_t* x = static_cast<const uint8_t*>(p.x) + row * p.x_stride;
  const uint8_t* w = static_cast<const uint8_t*>(p.weight) + n * p.weight_stride;
  float sum = 0.0f;
  uint32_t exact = 0;
  for (int i = 0; i < p.k; ++i)
    if (codes == Codes::int8)
      exact += static_cast<uint32_t>(static_cast<int8_t>(x[i]) * static_cast<int8_t>(w[i]));
    else
      sum = fma_f32(e4m3_f32(x[i]), e4m3_f32(w[i]), sum);
  if (codes == Codes::int8) sum = static_cast<float>(static_cast<int32_t>(exact));
  return sum * p.row_scale[row] * p.col_scale[n];
}

template <class T>
__global__ void tile_by_loops(const GemmSm90 p, int down) {
  const bool outputs = T::rows == Rows::outputs;
  const DType dtype = p.bf16 ? DType::bf16 : DType::f16;
  const int64_t row0 = static_cast<int64_t>(blockIdx.x % down) * T::BM;
  const int64_t column0 = static_cast<int64_t>(blockIdx.x / down) * T::BN;
  for (int i = threadIdx.x; i < T::BM * T::BN; i += kThreads) {
    const int64_t row = row0 + i / T::BN, column = column0 + i % T::BN;
    const int64_t token = outputs ? column : row, n = outputs ? row : column;
    if (token >= p.m || n >= p.n) continue;
    float v = scaled_sum(p, T::codes, token, n);
    if (p.bias) v += load_f32(p.bias, dtype, n);
    store_f32(p.y, dtype, token * p.y_stride + n, v);
  }
}

}  // namespace

template <class T>
int launch_sm90(const GemmSm90& p, void* stream) {
  if (!whole_16(p.x, p.x_stride) || !whole_16(p.weight, p.weight_stride) || !whole_16(p.y, 2 * p.y_stride))
    return kRefused;
  if (p.m < 1 || p.n < 1 || p.k < 1 || p.blocks < 1 || p.x_stride < p.k || p.weight_stride < p.k) return kRefused;
  const int rows = T::rows == Rows::outputs ? p.n : p.m, columns = T::rows == Rows::outputs ? p.m : p.n;
  const int pair_down = T::pair == Pair::below ? 2 : 1, pair_across = T::pair == Pair::beside ? 2 : 1;
  const int down = static_cast<int>(round_up((rows + T::BM - 1) / T::BM, pair_down));
  const int across = static_cast<int>(round_up((columns + T::BN - 1) / T::BN, pair_across));
  if (p.band < 1 || down % (p.band * pair_down) != 0 || across % (p.band * pair_across) != 0) return kRefused;
  return launch(tile_by_loops<T>, dim3(down * across), dim3(kThreads), 0, stream, p, down);
}

#define PW_TWIN(...) template int launch_sm90<__VA_ARGS__>(const GemmSm90&, void*);
PW_SM90_TILES(PW_TWIN)

}  // namespace pennyweight::cuda
