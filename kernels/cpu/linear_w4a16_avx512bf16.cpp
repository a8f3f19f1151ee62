// SPDX-License-Identifier: Apache-2.0
// linear_w4a16_avx512bf16.cpp: y = x . ((q - z) * s)^T + bias, 4-bit weights, bf16 activations, on vdpbf16ps
//
//   y[m,n] = sum_g s[n,g] * sum_{k in g} x[m,k] * (q[n,k] - z[n,g]) + bias[n]        float32 sums, rounded once
//
// Shapes    x (M,K) bf16, any row stride; weight INT4_PANEL (formats.h) of (N,K); y (M,N) bf16
//           x in f16 or f32 is not exact in bf16: it goes through linear_w4a16_avx512vnni.cpp's FMA
// Needs     AVX512-BF16; groups of 32, 64, 128 or K; z inline or none; scales bf16, f16 or f32; any M, N, K
// Tile      the walk and the tiles are those of linear_panels.h
// Decode    one dword holds 8 codes of an output: nibble j of its low word is k 2j, of its high word k 2j+1
//
//             bits 31..16   k7 k5 k3 k1        shifted right by 4j, the low 4 bits of both words are the pair
//             bits 15..0    k6 k4 k2 k0        (2j, 2j+1): vpermw turns both into bf16, two per output
//
//           vpermw reads 5 index bits. Without zero points the table holds the 16 values twice, so that bit 4 needs no
//           mask: 3 shifts and 4 permutes per 128 weights. With them the index is (code - 8 - z) mod 32 and the table
//           holds -16..15: a mask and a subtraction more, and q - z stays exact.
// Numerics  q - z is exact in bf16; bound in linear_panels.h
// Reference kernels/reference/linear.cpp
// Limit     M = 1: 28 cycles of shifts and permutes, which share two pipes, per 256 B of codes: 35 GB/s a core
// Tried     one core of a Zen 4, weights in cache: M = 4, 16, 64: 90, 94, 93 % of the bf16 peak in registers;
//           decoded once 90 %. Two threads, cold, M = 256: (4096, 4096) 93 % in registers, 91 % decoded once; at 512
//           rows no difference, at 1024 rows of K = 14336 77 against 89 % (rows and sums leave L2). Shifts as high
//           halves of products: 10 to 30 % slower (multiplier and dot product share a pipe). A second, unaligned load
//           in place of 4 of 12 shifts: no gain, loads become the limit.
#include "dot_bf16.h"
#include "linear_float.h"

namespace pennyweight::cpu {
namespace {

template <bool zeros>
struct Int4Pairs {
  using Codes = __m512i;
  static constexpr int units = 4;
  static constexpr int64_t register_limit = 256;
  static constexpr bool decodes_once = false;
  static constexpr int locality = kL1;
  static constexpr bool channel_scale = true;  // in the weight, where there are no groups
  Int4Panel panel;
  __m512i table;

  explicit Int4Pairs(const Int4Panel& p) : panel(p) {
    alignas(64) uint16_t values[32];
    for (int i = 0; i < 32; ++i) values[i] = f32_bf16(static_cast<float>(zeros ? (i < 16 ? i : i - 32) : (i & 15) - 8));
    table = _mm512_load_si512(values);
  }
  // 16 of the block's scales
  PW_INLINE __m512 scale(const uint8_t* block, int64_t o) const {
    return Avx512::load_as(block + panel.scale_offset(), panel.scale_dtype, o);
  }
  // 8 + z in both words of each output's dword.
  PW_INLINE void offsets(const uint8_t* block, uint32_t* offset) const {
    if constexpr (zeros) {
      for (int o = 0; o < kPanel; o += 16) {
        const __m512i z =
            _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + panel.zero_offset() + o)));
        const __m512i z8 = _mm512_add_epi32(z, _mm512_set1_epi32(8));  // 0..15
        _mm512_store_si512(offset + o, _mm512_or_si512(z8, _mm512_slli_epi32(z8, 16)));
      }
    }
  }
  PW_INLINE Codes load(const uint8_t* codes) const { return _mm512_loadu_si512(codes); }
  PW_INLINE __m512i unit(Codes codes, int u, const uint32_t* offset) const {
    __m512i index = u ? _mm512_srli_epi16(codes, 4 * u) : codes;
    if constexpr (zeros)
      index = _mm512_sub_epi16(_mm512_and_si512(index, _mm512_set1_epi16(15)), _mm512_load_si512(offset));
    return _mm512_permutexvar_epi16(index, table);
  }
};

template <bool zeros>
void run_format(const LinearW4A16& op, const Executor& executor) {
  const Int4Pairs<zeros> format({op.n, op.k, op.group_size, op.scale_dtype, zeros});
  const LinearJob job = int4_job(op);
  const int64_t bytes = job.total_steps * format.units * 4;
  const auto row = [&](int64_t r, uint32_t* out) {
    std::memcpy(out, static_cast<const uint16_t*>(op.x) + r * op.x_stride, op.k * 2);
    std::memset(reinterpret_cast<char*>(out) + op.k * 2, 0, bytes - op.k * 2);
  };
  if (op.group_size != op.k)
    run_linear<Dot16, Int4Pairs<zeros>, true>(job, format, row, executor);
  else
    run_linear<Dot16, Int4Pairs<zeros>, false>(job, format, row, executor);
}

}  // namespace

void linear_w4a16_avx512bf16(const LinearW4A16& op, const Executor& executor) {
  if (op.x_dtype != DType::bf16) return linear_w4a16_avx512vnni(op, executor);
  if (op.zero_points)
    run_format<true>(op, executor);
  else
    run_format<false>(op, executor);
}

}  // namespace pennyweight::cpu
