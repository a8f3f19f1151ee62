// SPDX-License-Identifier: Apache-2.0
// quantize.cpp: per-token quantization and its fusions, row by row.
#include "pennyweight/quantize.h"

#include <vector>

#include "pennyweight/numerics.h"
#include "reference.h"

namespace pennyweight::reference {
namespace {

enum class Format { int8, fp8 };

// Codes and scale of one row of float32 values.
template <Format format>
void quantize_row(const float* v, int64_t k, void* codes, float* scale) {
  uint32_t amax = 0;
  for (int64_t i = 0; i < k; ++i) {
    const uint32_t bits = f32_bits(v[i]) & 0x7fffffffu;
    if (bits > amax) amax = bits;
  }
  *scale = activation_scale(amax, format == Format::int8 ? 127.0f : 448.0f);
  for (int64_t i = 0; i < k; ++i) {
    if constexpr (format == Format::int8)
      static_cast<int8_t*>(codes)[i] = quantize_int8(v[i], *scale);
    else
      static_cast<uint8_t*>(codes)[i] = quantize_e4m3(v[i], *scale);
  }
}

template <Format format>
void quantize_per_token(const QuantizePerToken& op, const Executor& executor) {
  parallel_for(executor, op.m, [&](int64_t row) {
    std::vector<float> v(op.k);
    for (int64_t i = 0; i < op.k; ++i) {
      v[i] = load_f32(op.x, op.x_dtype, row * op.x_stride + i);
      if (op.smooth) v[i] = v[i] / op.smooth[i];
    }
    quantize_row<format>(v.data(), op.k, static_cast<uint8_t*>(op.codes) + row * op.k, op.scale + row);
  });
}

// 1 / sqrt(mean(v^2) + eps), the sum in 64 lanes as quantize.h says.
float inverse_rms(const float* v, int64_t k, double eps) {
  float lane[64] = {0};
  for (int64_t i = 0; i < k; ++i) lane[i % 64] = fma_f32(v[i], v[i], lane[i % 64]);
  const float mean = sum_lanes(lane) / static_cast<float>(k);
  return 1.0f / __builtin_sqrtf(mean + static_cast<float>(eps));
}

// The normed row, into v; hidden is stored where there is a residual.
template <class Op>
void rms_norm_row(const Op& op, int64_t row, float* v) {
  for (int64_t i = 0; i < op.k; ++i) {
    v[i] = load_f32(op.x, op.x_dtype, row * op.x_stride + i);
    if (op.residual) {
      v[i] = round_to(op.x_dtype, v[i] + load_f32(op.residual, op.x_dtype, row * op.residual_stride + i));
      store_f32(op.hidden, op.x_dtype, row * op.k + i, v[i]);
    }
  }
  const float r = inverse_rms(v, op.k, op.eps);
  for (int64_t i = 0; i < op.k; ++i)
    v[i] = round_to(op.x_dtype, load_f32(op.weight, op.x_dtype, i) * round_to(op.x_dtype, v[i] * r));
}

template <Format format>
void rms_norm_quantize(const RmsNormQuantize& op, const Executor& executor) {
  parallel_for(executor, op.m, [&](int64_t row) {
    std::vector<float> v(op.k);
    rms_norm_row(op, row, v.data());
    quantize_row<format>(v.data(), op.k, static_cast<uint8_t*>(op.codes) + row * op.k, op.scale + row);
  });
}

template <class Op>
float silu_mul_value(const Op& op, int64_t row, int64_t i) {
  const float gate = load_f32(op.gate_up, op.x_dtype, row * op.x_stride + i);
  const float up = load_f32(op.gate_up, op.x_dtype, row * op.x_stride + op.k + i);
  return round_to(op.x_dtype, round_to(op.x_dtype, silu_f32(gate)) * up);
}

template <Format format>
void silu_mul_quantize(const SiluMulQuantize& op, const Executor& executor) {
  parallel_for(executor, op.m, [&](int64_t row) {
    std::vector<float> v(op.k);
    for (int64_t i = 0; i < op.k; ++i) v[i] = silu_mul_value(op, row, i);
    quantize_row<format>(v.data(), op.k, static_cast<uint8_t*>(op.codes) + row * op.k, op.scale + row);
  });
}

}  // namespace

void quantize_per_token_int8(const QuantizePerTokenInt8& op, const Executor& executor) {
  quantize_per_token<Format::int8>(op, executor);
}
void quantize_per_token_fp8(const QuantizePerTokenFp8& op, const Executor& executor) {
  quantize_per_token<Format::fp8>(op, executor);
}
void rms_norm(const RmsNorm& op, const Executor& executor) {
  parallel_for(executor, op.m, [&](int64_t row) {
    std::vector<float> v(op.k);
    rms_norm_row(op, row, v.data());
    for (int64_t i = 0; i < op.k; ++i) store_f32(op.normed, op.x_dtype, row * op.k + i, v[i]);
  });
}
void rms_norm_quantize_int8(const RmsNormQuantizeInt8& op, const Executor& executor) {
  rms_norm_quantize<Format::int8>(op, executor);
}
void rms_norm_quantize_fp8(const RmsNormQuantizeFp8& op, const Executor& executor) {
  rms_norm_quantize<Format::fp8>(op, executor);
}
void silu_mul_quantize_int8(const SiluMulQuantizeInt8& op, const Executor& executor) {
  silu_mul_quantize<Format::int8>(op, executor);
}
void silu_mul_quantize_fp8(const SiluMulQuantizeFp8& op, const Executor& executor) {
  silu_mul_quantize<Format::fp8>(op, executor);
}
void silu_mul(const SiluMul& op, const Executor& executor) {
  parallel_for(executor, op.m, [&](int64_t row) {
    for (int64_t i = 0; i < op.k; ++i) store_f32(op.y, op.x_dtype, row * op.k + i, silu_mul_value(op, row, i));
  });
}

}  // namespace pennyweight::reference
