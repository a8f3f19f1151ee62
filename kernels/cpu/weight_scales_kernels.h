// SPDX-License-Identifier: Apache-2.0
// weight_scales_kernels.h: weight_scales.h's kernels for the instruction set of the file that includes it.
#pragma once
#include "lanes.h"
#include "pennyweight/numerics.h"
#include "weight_scales.h"

namespace pennyweight::cpu {
namespace {

// u^norm for finite u >= 0, as 2^(norm log2 u). log2: mantissa in [sqrt 1/2, sqrt 2), polynomial of degree 6 (error
// 3e-7); 2^r: degree 5 on [-1/2, 1/2] (7e-8). At norm 2.4 the relative error is below 2e-6 for u in [1e-3, 1e3].
// Results are kept within 2^-126 .. 2^126; 0 gives 0.
static inline Lanes power(Lanes u, Lanes norm) {
  const Bits exponent = ((Bits)u - 0x3f3504f3) >> 23;
  const Lanes f = (Lanes)((Bits)u - (exponent << 23)) - all(1.0f);
  Lanes log = all(0.1706579029560089f);
  log = fma(log, f, all(-0.2726864814758301f));
  log = fma(log, f, all(0.29725056886672974f));
  log = fma(log, f, all(-0.3589632213115692f));
  log = fma(log, f, all(0.48046624660491943f));
  log = fma(log, f, all(-0.7213758230209351f));
  log = fma(log, f, all(1.442699670791626f));
  const Lanes t = greater(all(-126.0f), lesser(all(126.0f), norm * fma(log, f, as_floats(exponent))));
  const Lanes n = round_even(t), r = t - n;
  Lanes exp = all(0.0013276470126584172f);
  exp = fma(exp, r, all(0.009675540961325169f));
  exp = fma(exp, r, all(0.05550713464617729f));
  exp = fma(exp, r, all(0.24022120237350464f));
  exp = fma(exp, r, all(0.6931469440460205f));
  exp = fma(exp, r, all(1.0000001192092896f));
  return (Lanes)(((Bits)exp + (as_whole(n) << 23)) & (Bits)(u > none()));
}

// v rounded to an E4M3 value, magnitudes of 448 and more to 448: the quantum is 2^(exponent - 3), at least 2^-9.
static inline Lanes round_e4m3(Lanes v) {
  const Lanes a = magnitude(v);
  const Lanes power_of_two = greater((Lanes)((Bits)a & 0x7f800000), all(0x1p-6f));
  const Bits quantum = (Bits)power_of_two - (3 << 23);
  const Lanes inverse = (Lanes)((254 << 23) - quantum);
  const Lanes rounded = lesser(round_even(a * inverse) * (Lanes)quantum, all(448.0f));
  return (Lanes)((Bits)rounded | ((Bits)v & static_cast<int32_t>(0x80000000)));
}

template <int kFormat>
static float error_as(const float* values, int64_t count, float scale, float norm) {
  const Lanes inverse = all(1.0f / scale), exponent = all(norm);
  const Lanes high = all(kFormat == 8 ? 127.0f : 7.0f), low = all(kFormat == 8 ? -128.0f : -8.0f);
  Lanes sum = none();
  for (int64_t i = 0; i < count; i += kLanes) {
    const Lanes v = load(values + i) * inverse;
    const Lanes code = kFormat == 0 ? round_e4m3(v) : greater(low, lesser(high, round_even(v)));
    sum += power(magnitude(code - v), exponent);
  }
  return sum_of(sum);
}

static float error(const float* values, int64_t count, float scale, int64_t format, float norm) {
  if (format == 8) return error_as<8>(values, count, scale, norm);
  if (format == 4) return error_as<4>(values, count, scale, norm);
  return error_as<0>(values, count, scale, norm);
}

template <DType T>
static float load_values_as(const void* w, int64_t first, int64_t count, float* values) {
  Lanes amax = none();
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Lanes v = load_as<T>(w, first + i);
    store(values + i, v);
    amax = greater(magnitude(v), amax);
  }
  float largest = largest_of(amax);
  for (; i < count; ++i) {
    values[i] = load_f32(w, T, first + i);
    const float a = __builtin_fabsf(values[i]);
    largest = a > largest ? a : largest;
  }
  for (; i % 16 != 0; ++i) values[i] = 0.0f;
  return largest;
}

static float load_values(const void* w, DType dtype, int64_t first, int64_t count, float* values) {
  if (dtype == DType::f32) return load_values_as<DType::f32>(w, first, count, values);
  if (dtype == DType::f16) return load_values_as<DType::f16>(w, first, count, values);
  return load_values_as<DType::bf16>(w, first, count, values);
}

}  // namespace
}  // namespace pennyweight::cpu
