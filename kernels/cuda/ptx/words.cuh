// SPDX-License-Identifier: Apache-2.0
// words.cuh: 32-bit words as bits, bytes and pairs of 16-bit floats.
#pragma once
#include "../runtime.cuh"
#include "pennyweight/numerics.h"

namespace pennyweight::ptx {

// lop3.b32: any function of three words; kTable = f(0xf0, 0xcc, 0xaa)
template <int kTable>
PW_DEVICE uint32_t lop3(uint32_t a, uint32_t b, uint32_t c) {
#if defined(PW_EMULATED)
  uint32_t out = 0;
  for (int i = 0; i < 8; ++i)
    if (kTable >> i & 1) out |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
  return out;
#else
  uint32_t out;
  asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(out) : "r"(a), "r"(b), "r"(c), "n"(kTable));
  return out;
#endif
}

// prmt.b32: four bytes out of eight (a is bytes 0-3, b is 4-7); digit i of `select` names byte i of the result
PW_DEVICE uint32_t pick_bytes(uint32_t a, uint32_t b, uint32_t select) {
#if defined(PW_EMULATED)
  const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t digit = select >> 4 * i & 0xf;
    uint32_t byte = static_cast<uint32_t>(both >> 8 * (digit & 7)) & 0xff;
    if (digit & 8) byte = byte & 0x80 ? 0xff : 0;  // the byte's sign, eight times
    out |= byte << 8 * i;
  }
  return out;
#else
  uint32_t out;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(select));
  return out;
#endif
}

#if defined(PW_EMULATED)
namespace twin {
// f of both halves, each rounded once to its dtype (float32 holds products of 16-bit floats exactly; a sum of such a
// product is taken in float64, which is exact for f16 and rounds at most once more for bf16 far from a tie).
template <class F>
uint32_t pairs(DType dtype, uint32_t a, uint32_t b, uint32_t c, F f) {
  uint32_t out = 0;
  for (int i = 0; i < 2; ++i) {
    auto half = [&](uint32_t v) {
      const uint16_t bits = static_cast<uint16_t>(v >> 16 * i);
      return static_cast<double>(dtype == DType::f16 ? f16_f32(bits) : bf16_f32(bits));
    };
    const double exact = f(half(a), half(b), half(c));
    float v = static_cast<float>(exact);  // to odd, so that the second rounding sees what was cut
    if (static_cast<double>(v) != exact && exact == exact && v != 0.0f && !(f32_bits(v) & 1u))
      v = bits_f32(f32_bits(v) + ((static_cast<double>(v) < exact) == (v > 0) ? 1u : -1u));
    out |= static_cast<uint32_t>(dtype == DType::f16 ? f32_f16(v) : f32_bf16(v)) << 16 * i;
  }
  return out;
}
}  // namespace twin
#endif

// fma.rn.f16x2, fma.rn.bf16x2: a b + c, rounded once
PW_DEVICE uint32_t fma_f16x2(uint32_t a, uint32_t b, uint32_t c) {
#if defined(PW_EMULATED)
  return twin::pairs(DType::f16, a, b, c, [](double x, double y, double z) { return x * y + z; });
#else
  uint32_t out;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(c));
  return out;
#endif
}
PW_DEVICE uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
#if defined(PW_EMULATED)
  return twin::pairs(DType::bf16, a, b, c, [](double x, double y, double z) { return x * y + z; });
#else
  uint32_t out;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(c));
  return out;
#endif
}

// sub.rn.f16x2, mul.rn.f16x2 (bf16 has both as instructions from sm_90 only: use fma_bf16x2)
PW_DEVICE uint32_t sub_f16x2(uint32_t a, uint32_t b) {
#if defined(PW_EMULATED)
  return twin::pairs(DType::f16, a, b, 0, [](double x, double y, double) { return x - y; });
#else
  uint32_t out;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
#endif
}
PW_DEVICE uint32_t mul_f16x2(uint32_t a, uint32_t b) {
#if defined(PW_EMULATED)
  return twin::pairs(DType::f16, a, b, 0, [](double x, double y, double) { return x * y; });
#else
  uint32_t out;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
#endif
}

}  // namespace pennyweight::ptx
