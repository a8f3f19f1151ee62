// SPDX-License-Identifier: Apache-2.0
// linear_w8a8_fp8_avx512bf16.cpp: y = x . w^T with E4M3 codes on both sides, on vdpbf16ps
//
//   y[m,n] = ((sum_k x[m,k] * w[n,k]) * row_scale[m]) * col_scale[n] + bias[n]       float32 sums, rounded once
//
// Shapes    codes (M,K) E4M3, any row stride, or x (M,K) f32/f16/bf16, quantized per token; weight FP8_PANEL of (N,K)
// Needs     AVX512-BF16 and VBMI; any M, N, K
// Tile      the walk and the tiles are those of linear_panels.h
// Decode    every E4M3 value is a normal bf16. 64 codes, two byte tables of 128 entries (vpermi2b ignores bit 7):
//
//             high = table_high[code] | code & 0x80      low = table_low[code]
//             unpack low lanes (low, high)   -> k pair 0 of 16 outputs        (formats.h has the order of bytes that
//             unpack high lanes (low, high)  -> k pair 1 of 16 outputs         makes this so)
//
//           5 instructions per 2 dot products. Bit tricks (shift into place, scale by 2^120) flush the 7 subnormals.
// Numerics  decoding is exact, NaN codes give NaN; bound in linear_panels.h
// Reference kernels/reference/linear.cpp
// Limit     M = 1: memory; in cache 42 GB/s of codes a core
// Tried     one core of a Zen 4, weights in cache: M = 4, 16, 64: 76, 88, 88 % of the bf16 peak in registers;
//           decoded once 85 % at M = 64, 87 % at M = 256.
#include "dot_bf16.h"
#include "linear_float.h"
#include "quantize_row.h"

namespace pennyweight::cpu {
namespace {

struct Fp8Pairs {
  struct Codes {
    __m512i low, high;  // bytes of the bf16 values
  };
  static constexpr int units = 2;
  static constexpr int64_t register_limit = 128;
  static constexpr bool decodes_once = false;
  static constexpr int locality = kL2;
  static constexpr bool channel_scale = false;  // outside of the weight
  __m512i low[2], high[2], sign;

  Fp8Pairs() {
    alignas(64) uint8_t l[128], h[128];
    for (int i = 0; i < 128; ++i) {
      const uint16_t v = f32_bf16(e4m3_f32(static_cast<uint8_t>(i)));
      l[i] = static_cast<uint8_t>(v & 255);
      h[i] = static_cast<uint8_t>(v >> 8);
    }
    for (int i = 0; i < 2; ++i) {
      low[i] = _mm512_load_si512(l + 64 * i);
      high[i] = _mm512_load_si512(h + 64 * i);
    }
    sign = _mm512_set1_epi8(-128);
  }
  PW_INLINE Codes split(__m512i codes) const {
    const __m512i h = _mm512_permutex2var_epi8(high[0], codes, high[1]);
    return {_mm512_permutex2var_epi8(low[0], codes, low[1]), _mm512_ternarylogic_epi32(h, codes, sign, 0xf8)};
  }
  // No zero points.
  static void offsets(const uint8_t*, uint32_t*) {}
  PW_INLINE Codes load(const uint8_t* codes) const { return split(_mm512_loadu_si512(codes)); }
  static PW_INLINE __m512i unit(const Codes& v, int u, const uint32_t*) {
    return u ? _mm512_unpackhi_epi8(v.low, v.high) : _mm512_unpacklo_epi8(v.low, v.high);
  }
  // A row of codes in order of k as bf16, `units` dwords of them.
  void decode_row(const uint8_t* codes, int64_t k, uint32_t* out, int64_t units) const {
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);  // so that unpacking within lanes keeps it
    for (int64_t u = 0; u < units; u += 32) {
      const int64_t left = k - 2 * u;
      const __mmask64 in = left >= 64 ? ~__mmask64{0} : left <= 0 ? 0 : (__mmask64{1} << left) - 1;
      const Codes v = split(_mm512_permutexvar_epi64(order, _mm512_maskz_loadu_epi8(in, codes + 2 * u)));
      for (int half = 0; half < 2; ++half) {
        const int64_t room = units - u - 16 * half;
        const __mmask16 to = room >= 16 ? 0xffff : room <= 0 ? 0 : static_cast<__mmask16>((1u << room) - 1);
        _mm512_mask_storeu_epi32(out + u + 16 * half, to, unit(v, half, nullptr));
      }
    }
  }
};

}  // namespace

void gemm_w8a8_fp8_avx512bf16(const GemmW8A8Fp8& op, const Executor& executor) {
  const Fp8Pairs format;
  const LinearJob job = fp8_job(op, op.y_dtype, op.row_scale);
  const int64_t units = job.total_steps * format.units;
  const auto row = [&](int64_t r, uint32_t* out) {
    format.decode_row(static_cast<const uint8_t*>(op.codes) + r * op.codes_stride, op.k, out, units);
  };
  run_linear<Dot16, Fp8Pairs, false>(job, format, row, executor);
}

void linear_w8a8_fp8_avx512bf16(const LinearW8A8Fp8& op, const Executor& executor) {
  const Fp8Pairs format;
  float* row_scale = static_cast<float*>(scratch(Slot::scales, op.m * 4));
  const LinearJob job = fp8_job(op, op.x_dtype, row_scale);
  const int64_t units = job.total_steps * format.units;
  const auto row = [&](int64_t r, uint32_t* out) {
    uint8_t* codes = static_cast<uint8_t*>(scratch(Slot::sums, op.k));
    const char* x = static_cast<const char*>(op.x) + r * op.x_stride * dtype_bytes(op.x_dtype);
    row_scale[r] = avx512bf16::quantize_row_fp8({x, op.smooth, op.k, op.x_dtype}, codes);
    format.decode_row(codes, op.k, out, units);
  };
  run_linear<Dot16, Fp8Pairs, false>(job, format, row, executor);
}

}  // namespace pennyweight::cpu
