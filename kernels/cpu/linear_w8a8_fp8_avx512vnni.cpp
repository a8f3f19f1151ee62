// SPDX-License-Identifier: Apache-2.0
// linear_w8a8_fp8_avx512vnni.cpp: y = x . w^T with E4M3 codes on both sides, on AVX-512 FMA
//
//   y[m,n] = ((sum_k x[m,k] * w[n,k]) * row_scale[m]) * col_scale[n] + bias[n]       float32 sums, rounded once
//
// Shapes    codes (M,K) E4M3, any row stride, or x (M,K) f32/f16/bf16, quantized per token; weight FP8_PANEL of (N,K)
// Needs     AVX-512 F, BW, VL, DQ (the dispatch level is avx512vnni); any M, N, K
// Tile      the walk and the tiles are those of linear_panels.h
// Decode    E4M3 moved 7 bits up is a float16 worth 2^-8 of it, subnormals included, which vcvtph2ps widens exactly
//           whatever MXCSR says; activations are decoded times 2^8 in return. A NaN code would read as 1.875: it gets
//           the top bit of its exponent. 16 outputs, 64 bytes, as formats.h orders them:
//
//             qwords  k01 of n0-3, k23 of n0-3, k01 of n4-7, k23 of n4-7 ...                 even ones first:
//             words   low half (n, k0 | k1 << 8), high half (n, k2 | k3 << 8)                even k, odd k by shifts
//
// Numerics  decoding is exact; bound in linear_panels.h
// Reference kernels/reference/linear.cpp
// Tried     one core of a Zen 4, weights in cache: M = 1: 14 GB/s; M = 4, 16, 64: 65, 77, 83 % of the float32 peak;
//           in registers M = 64 has 76 %, since 19 instructions of decoding serve 4 units.
#include "fma_avx512.h"
#include "fp8_rows.h"
#include "linear_float.h"

namespace pennyweight::cpu {
namespace {

struct Fp8Singles {
  struct Codes {
    __m512i even, odd;  // float16: k 0 and 1 of 16 outputs, then k 2 and 3
  };
  static constexpr int units = 4;
  static constexpr int64_t register_limit = 16;
  static constexpr bool decodes_once = true;
  static constexpr int locality = kL1;
  static constexpr bool channel_scale = false;  // outside of the weight

  __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);

  // Words whose high byte is a code.
  static PW_INLINE __m512i to_half(__m512i words) {
    const __m512i half = _mm512_and_si512(_mm512_srai_epi16(words, 1), _mm512_set1_epi16(static_cast<short>(0xbf80)));
    const __m512i magnitude = _mm512_and_si512(half, _mm512_set1_epi16(0x7fff));
    const __mmask32 nan = _mm512_cmpeq_epi16_mask(magnitude, _mm512_set1_epi16(0x3f80));
    return _mm512_mask_mov_epi16(half, nan, _mm512_set1_epi16(0x7f80));
  }
  // No zero points.
  static void offsets(const uint8_t*, uint32_t*) {}
  PW_INLINE Codes load(const uint8_t* codes) const {
    const __m512i v = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(codes));
    return {to_half(_mm512_slli_epi16(v, 8)), to_half(v)};
  }
  static PW_INLINE __m512i unit(const Codes& v, int u, const uint32_t*) {
    const __m512i pair = u % 2 ? v.odd : v.even;
    const __m256i half = u / 2 ? _mm512_extracti64x4_epi64(pair, 1) : _mm512_castsi512_si256(pair);
    return _mm512_castps_si512(_mm512_cvtph_ps(half));
  }
};

}  // namespace

void gemm_w8a8_fp8_avx512vnni(const GemmW8A8Fp8& op, const Executor& executor) {
  run_fp8_codes<Fma16>(op, Fp8Singles{}, executor);
}
void linear_w8a8_fp8_avx512vnni(const LinearW8A8Fp8& op, const Executor& executor) {
  run_fp8_values<Fma16>(op, Fp8Singles{}, avx512vnni::quantize_row_fp8, executor);
}

}  // namespace pennyweight::cpu
