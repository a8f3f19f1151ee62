// SPDX-License-Identifier: Apache-2.0
// divide.cuh: correctly rounded quotients in line. The compiler's own division calls a subroutine for awkward operands,
// for which every kernel that divides would need a stack.
#pragma once
#include "ptx/convert.cuh"

namespace pennyweight::cuda {

// a / b where neither 1 / b nor a remainder underflows: two corrections by the exact remainder. -0 becomes +0.
PW_DEVICE float divide_normal(float a, float b) {
  float r = ptx::approximate_reciprocal(b);
  r = fma_f32(fma_f32(-b, r, 1.0f), r, r);
  float q = a * r;
  q = fma_f32(fma_f32(-b, q, a), r, q);
  return fma_f32(fma_f32(-b, q, a), r, q);
}

// The same in float64.
PW_DEVICE double divide_double(double a, double b) {
  double r = ptx::approximate_reciprocal(b);
#pragma unroll
  for (int i = 0; i < 3; ++i) r = __builtin_fma(__builtin_fma(-b, r, 1.0), r, r);
  const double q = a * r;
  return __builtin_fma(__builtin_fma(-b, q, a), r, q);
}

// The same for any operands but 0, Inf and NaN as b: float64 has room for all of them, and its quotient, rounded to
// float32, is the correctly rounded one (53 >= 2 * 24 + 2 bits).
PW_DEVICE float divide_wide(float a, float b) {
  return static_cast<float>(divide_double(static_cast<double>(a), static_cast<double>(b)));
}

// a / b as IEEE 754 has it, any operands.
PW_DEVICE float divide(float a, float b) {
  const uint32_t ua = f32_bits(a) & 0x7fffffffu, ub = f32_bits(b) & 0x7fffffffu;
  const uint32_t ea = ua >> 23, eb = ub >> 23;
  float q;
  if (eb - 8 < 240 && (ua == 0 || (ea - 28 < 225 && ea + 99 - eb < 225))) {
    q = divide_normal(a, b);
  } else if (ea == 255 || eb == 255 || ub == 0) {
    q = a * (ub > 0x7f800000u ? b : eb == 255 ? 0.0f : ub == 0 ? bits_f32(0x7f800000u) : 1.0f);
  } else {
    q = divide_wide(a, b);
  }
  return q == q ? bits_f32((f32_bits(q) & 0x7fffffffu) | ((f32_bits(a) ^ f32_bits(b)) & 0x80000000u)) : q;
}

// Values divided by one scale, which is positive and finite: correctly rounded where the quotient is within +-512, else
// something beyond. A scale so small or large that the steps would underflow is brought near 1 by a power of two, and
// the values with it.
struct ScaleDivisor {
  float scale, divisor, inverse, factor;

  __device__ __forceinline__ void set(float v) {
    scale = v;
    factor = v < 0x1p-90f ? 0x1p100f : v > 0x1p90f ? 0x1p-100f : 1.0f;
    divisor = v * factor;
    inverse = divide_normal(1.0f, divisor);
  }
  __device__ __forceinline__ float quotient(float value) const {  // -0 becomes +0
    const float v = value * factor, q = fminf(fmaxf(v * inverse, -512.0f), 512.0f);
    return fma_f32(fma_f32(-q, divisor, v), inverse, q);
  }
};

}  // namespace pennyweight::cuda
