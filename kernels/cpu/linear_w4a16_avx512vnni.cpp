// SPDX-License-Identifier: Apache-2.0
// linear_w4a16_avx512vnni.cpp: y = x . ((q - z) * s)^T + bias, 4-bit weights, any activations, on AVX-512 FMA
//
//   y[m,n] = sum_g s[n,g] * sum_{k in g} x[m,k] * (q[n,k] - z[n,g]) + bias[n]        float32 sums, rounded once
//
// Shapes    x (M,K) f32, f16 or bf16, any row stride; weight INT4_PANEL (formats.h) of (N,K); y (M,N) as x
// Needs     AVX-512 F, BW, VL, DQ (the dispatch level is avx512vnni); any group, zero points or none, any M, N, K
// Tile      the walk and the tiles are those of linear_panels.h, with x widened to float32 once
// Decode    code k of a dword sits at bit 4 * (k / 2) + 16 * (k % 2): one shift brings it to the low 4 bits, which are
//           all that vpermps reads of an index into 16 floats. With zero points one exact subtraction of z follows.
// Numerics  x and q - z are exact in float32, subnormal activations included; bound in linear_panels.h
// Reference kernels/reference/linear.cpp
// Tried     one core of a Zen 4, weights in cache: M = 1: 17 GB/s; M = 4, 16, 64: 93, 96, 94 % of the float32 peak
#include "fma_avx512.h"
#include "linear_float.h"

namespace pennyweight::cpu {
namespace {

template <bool zeros>
struct Int4Singles {
  using Codes = __m512i;
  static constexpr int units = 8;
  static constexpr int64_t register_limit = 16;
  static constexpr bool decodes_once = true;
  static constexpr int locality = kL1;
  static constexpr bool channel_scale = true;  // in the weight, where there are no groups
  Int4Panel panel;
  __m512 table;  // -8..7

  explicit Int4Singles(const Int4Panel& p) : panel(p) {
    alignas(64) float values[16];
    for (int i = 0; i < 16; ++i) values[i] = static_cast<float>(i - 8);
    table = _mm512_load_ps(values);
  }
  // 16 of the block's scales
  PW_INLINE __m512 scale(const uint8_t* block, int64_t o) const {
    return Avx512::load_as(block + panel.scale_offset(), panel.scale_dtype, o);
  }
  // The zero points as float32.
  PW_INLINE void offsets(const uint8_t* block, uint32_t* offset) const {
    if constexpr (zeros) {
      for (int o = 0; o < kPanel; o += 16) {
        const __m128i z = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + panel.zero_offset() + o));
        _mm512_store_ps(offset + o, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(z)));
      }
    }
  }
  PW_INLINE Codes load(const uint8_t* codes) const { return _mm512_loadu_si512(codes); }
  PW_INLINE __m512i unit(Codes codes, int u, const uint32_t* offset) const {
    const __m512i index = u ? _mm512_srli_epi32(codes, 4 * (u / 2) + 16 * (u % 2)) : codes;
    __m512 w = _mm512_permutexvar_ps(index, table);
    if constexpr (zeros) w = _mm512_sub_ps(w, _mm512_load_ps(offset));
    return _mm512_castps_si512(w);
  }
};

template <bool zeros>
void run_format(const LinearW4A16& op, const Executor& executor) {
  const Int4Singles<zeros> format({op.n, op.k, op.group_size, op.scale_dtype, zeros});
  const LinearJob job = int4_job(op);
  const int64_t units = job.total_steps * format.units;
  const auto row = [&](int64_t r, uint32_t* out) {
    widen_row<Avx512>(op.x, op.x_dtype, r * op.x_stride, op.k, reinterpret_cast<float*>(out), units);
  };
  if (op.group_size != op.k)
    run_linear<Fma16, Int4Singles<zeros>, true>(job, format, row, executor);
  else
    run_linear<Fma16, Int4Singles<zeros>, false>(job, format, row, executor);
}

}  // namespace

void linear_w4a16_avx512vnni(const LinearW4A16& op, const Executor& executor) {
  if (op.zero_points)
    run_format<true>(op, executor);
  else
    run_format<false>(op, executor);
}

}  // namespace pennyweight::cpu
