// SPDX-License-Identifier: Apache-2.0
// linear_w8a8_fp8_avx2.cpp: y = x . w^T with E4M3 codes on both sides, on AVX2 FMA
//
//   y[m,n] = ((sum_k x[m,k] * w[n,k]) * row_scale[m]) * col_scale[n] + bias[n]       float32 sums, rounded once
//
// Shapes    codes (M,K) E4M3, any row stride, or x (M,K) f32/f16/bf16, quantized per token; weight FP8_PANEL of (N,K)
// Needs     AVX2, FMA, F16C; any M, N, K
// Tile      the walk and the tiles are those of linear_panels.h
// Decode    E4M3 moved 7 bits up is a float16 worth 2^-8 of it, subnormals included, which vcvtph2ps widens exactly
//           whatever MXCSR says; activations are decoded times 2^8 in return. A NaN code would read as 1.875: it gets
//           the top bit of its exponent. 8 outputs, 32 bytes, as formats.h orders them:
//
//             qwords  0: k01 of n0-3   1: k23 of n0-3   2: k01 of n4-7   3: k23 of n4-7      swap 1 and 2:
//             words   low half (n, k0 | k1 << 8), high half (n, k2 | k3 << 8)                even k, odd k by shifts
//
// Numerics  decoding is exact; bound in linear_panels.h
// Reference kernels/reference/linear.cpp
// Tried     one core of a Zen 4, weights in cache: M = 1: 12 GB/s; M = 4, 16, 64: 51, 68, 79 % of the float32 peak
#include "fma_avx2.h"
#include "fp8_rows.h"
#include "linear_float.h"

namespace pennyweight::cpu {
namespace {

struct Fp8Singles {
  struct Codes {
    __m256i even, odd;  // float16: k 0 and 1 of 8 outputs, then k 2 and 3
  };
  static constexpr int units = 4;
  static constexpr int64_t register_limit = 4;
  static constexpr bool decodes_once = true;
  static constexpr int locality = kL1;
  static constexpr bool channel_scale = false;  // outside of the weight

  // Words whose high byte is a code.
  static PW_INLINE __m256i to_half(__m256i words) {
    const __m256i half = _mm256_and_si256(_mm256_srai_epi16(words, 1), _mm256_set1_epi16(static_cast<short>(0xbf80)));
    const __m256i magnitude = _mm256_and_si256(half, _mm256_set1_epi16(0x7fff));
    const __m256i nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x3f80));
    return _mm256_or_si256(half, _mm256_and_si256(nan, _mm256_set1_epi16(0x4000)));
  }
  // No zero points.
  static void offsets(const uint8_t*, uint32_t*) {}
  static PW_INLINE Codes load(const uint8_t* codes) {
    const __m256i v = _mm256_permute4x64_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)), 0xd8);
    return {to_half(_mm256_slli_epi16(v, 8)), to_half(v)};
  }
  static PW_INLINE __m256i unit(const Codes& v, int u, const uint32_t*) {
    const __m256i pair = u % 2 ? v.odd : v.even;
    const __m128i half = u / 2 ? _mm256_extracti128_si256(pair, 1) : _mm256_castsi256_si128(pair);
    return _mm256_castps_si256(_mm256_cvtph_ps(half));
  }
};

}  // namespace

void gemm_w8a8_fp8_avx2(const GemmW8A8Fp8& op, const Executor& executor) {
  run_fp8_codes<Fma8>(op, Fp8Singles{}, executor);
}
void linear_w8a8_fp8_avx2(const LinearW8A8Fp8& op, const Executor& executor) {
  run_fp8_values<Fma8>(op, Fp8Singles{}, avx2::quantize_row_fp8, executor);
}

}  // namespace pennyweight::cpu
