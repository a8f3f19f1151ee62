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

// The same for any operands but 0, Inf and NaN as b: float64 has room for all of them, and its quotient, rounded to
// float32, is the correctly rounded one (53 >= 2 * 24 + 2 bits).
PW_DEVICE float divide_wide(float a, float b) {
  const double wide = b, value = a;
  double r = ptx::approximate_reciprocal(wide);
#pragma unroll
  for (int i = 0; i < 3; ++i) r = __builtin_fma(__builtin_fma(-wide, r, 1.0), r, r);
  const double q = value * r;
  return static_cast<float>(__builtin_fma(__builtin_fma(-wide, q, value), r, q));
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

}  // namespace pennyweight::cuda
