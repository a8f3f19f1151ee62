// SPDX-License-Identifier: Apache-2.0
// linear_w4a16_avx2.cpp: y = x . ((q - z) * s)^T + bias, 4-bit weights, any activations, on AVX2 FMA
//
//   y[m,n] = sum_g s[n,g] * sum_{k in g} x[m,k] * (q[n,k] - z[n,g]) + bias[n]        float32 sums, rounded once
//
// Shapes    x (M,K) f32, f16 or bf16, any row stride; weight INT4_PANEL (formats.h) of (N,K); y (M,N) as x
// Needs     AVX2, FMA, F16C; any group, zero points or none, any M, N, K
// Tile      the walk and the tiles are those of linear_panels.h, with x widened to float32 once
// Decode    code k of a dword sits at bit 4 * (k / 2) + 16 * (k % 2): shift, mask, convert, subtract 8 + z
// Numerics  x and q - z are exact in float32, subnormal activations included; bound in linear_panels.h
// Reference kernels/reference/linear.cpp
// Tried     one core of a Zen 4, weights in cache: M = 1: 9.5 GB/s; M = 4, 16, 64: 76, 76, 83 % of the float32 peak
#include "fma_avx2.h"
#include "linear_float.h"

namespace pennyweight::cpu {
namespace {

template <bool zeros>
struct Int4Singles {
  using Codes = __m256i;
  static constexpr int units = 8;
  static constexpr int64_t register_limit = 4;
  static constexpr bool decodes_once = true;
  static constexpr int locality = kL1;
  static constexpr bool channel_scale = true;  // in the weight, where there are no groups
  Int4Panel panel;

  // 8 of the block's scales
  PW_INLINE __m256 scale(const uint8_t* block, int64_t o) const {
    return Fma8::load_as(block + panel.scale_offset(), panel.scale_dtype, o);
  }
  // 8 + z as float32
  PW_INLINE void offsets(const uint8_t* block, uint32_t* offset) const {
    if constexpr (zeros) {
      for (int o = 0; o < kPanel; o += 8) {
        const __m128i z = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + panel.zero_offset() + o));
        const __m256i z8 = _mm256_add_epi32(_mm256_cvtepi8_epi32(z), _mm256_set1_epi32(8));
        _mm256_store_si256(reinterpret_cast<__m256i*>(offset + o), _mm256_castps_si256(_mm256_cvtepi32_ps(z8)));
      }
    }
  }
  PW_INLINE Codes load(const uint8_t* codes) const {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  }
  PW_INLINE __m256i unit(Codes codes, int u, const uint32_t* offset) const {
    const __m256i code = _mm256_and_si256(_mm256_srli_epi32(codes, 4 * (u / 2) + 16 * (u % 2)), _mm256_set1_epi32(15));
    const __m256 z8 = zeros ? _mm256_load_ps(reinterpret_cast<const float*>(offset)) : _mm256_set1_ps(8.0f);
    return _mm256_castps_si256(_mm256_sub_ps(_mm256_cvtepi32_ps(code), z8));
  }
};

template <bool zeros>
void run_format(const LinearW4A16& op, const Executor& executor) {
  const Int4Singles<zeros> format{{op.n, op.k, op.group_size, op.scale_dtype, zeros}};
  const LinearJob job = int4_job(op);
  const int64_t units = job.total_steps * format.units;
  const auto row = [&](int64_t r, uint32_t* out) {
    widen_row<Fma8>(op.x, op.x_dtype, r * op.x_stride, op.k, reinterpret_cast<float*>(out), units);
  };
  if (op.group_size != op.k)
    run_linear<Fma8, Int4Singles<zeros>, true>(job, format, row, executor);
  else
    run_linear<Fma8, Int4Singles<zeros>, false>(job, format, row, executor);
}

}  // namespace

void linear_w4a16_avx2(const LinearW4A16& op, const Executor& executor) {
  if (op.zero_points)
    run_format<true>(op, executor);
  else
    run_format<false>(op, executor);
}

}  // namespace pennyweight::cpu
