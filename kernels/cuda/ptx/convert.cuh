// SPDX-License-Identifier: Apache-2.0
// convert.cuh: between floats of 8, 16 and 32 bits. A pair is a uint32_t, its first element in the low half. Twins are
// those of numerics.h, which round half to even as the instructions do; NaN may differ in its payload.
#pragma once
#include "../runtime.cuh"
#include "pennyweight/numerics.h"

namespace pennyweight::ptx {

// The card that this code is for, 10 major + minor: known when compiled by nvcc (a condition on it costs nothing), set
// by the test in emulation.
PW_DEVICE int architecture() {
#if defined(PW_EMULATED)
  return emulator::options().compute;
#elif defined(__CUDA_ARCH__)
  return __CUDA_ARCH__ / 10;
#else
  return 0;
#endif
}

// cvt.f32.f16
PW_DEVICE float f32_of_f16(uint16_t v) {
#if defined(PW_EMULATED)
  return f16_f32(v);
#else
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(v));
  return out;
#endif
}

// cvt.rn.f16x2.f32: low and high, rounded half to even; beyond 65504 Inf
PW_DEVICE uint32_t f16x2_of_f32(float low, float high) {
#if defined(PW_EMULATED)
  return f32_f16(low) | static_cast<uint32_t>(f32_f16(high)) << 16;
#else
  uint32_t out;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
#endif
}

// cvt.rn.bf16x2.f32
PW_DEVICE uint32_t bf16x2_of_f32(float low, float high) {
#if defined(PW_EMULATED)
  return f32_bf16(low) | static_cast<uint32_t>(f32_bf16(high)) << 16;
#else
  uint32_t out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
#endif
}

// cvt.rn.satfinite.e4m3x2.f32 (sm_89+): two E4M3 codes, saturated to +-448
PW_DEVICE uint32_t e4m3x2_of_f32(float low, float high) {
#if defined(PW_EMULATED)
  return f32_e4m3(low) | static_cast<uint32_t>(f32_e4m3(high)) << 8;
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t out;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(out) : "f"(high), "f"(low));
  return out;
#else
  __trap();  // a caller asks architecture() first
  return 0;
#endif
}

// rcp.approx.ftz.f32, rsqrt.approx.f32 (relative error at most 2^-22.9), rcp.approx.ftz.f64 (about 20 bits): starting
// points of iterations. The twins are exact, so that only what does not depend on the last bits is the same on a card.
PW_DEVICE float approximate_reciprocal(float v) {
#if defined(PW_EMULATED)
  return 1.0f / v;
#else
  float out;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(v));
  return out;
#endif
}
PW_DEVICE float approximate_inverse_root(float v) {
#if defined(PW_EMULATED)
  return 1.0f / __builtin_sqrtf(v);
#else
  float out;
  asm("rsqrt.approx.f32 %0, %1;" : "=f"(out) : "f"(v));
  return out;
#endif
}
PW_DEVICE double approximate_reciprocal(double v) {
#if defined(PW_EMULATED)
  return 1.0 / v;
#else
  double out;
  asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(out) : "d"(v));
  return out;
#endif
}

}  // namespace pennyweight::ptx
