// SPDX-License-Identifier: Apache-2.0
// linear.cpp: the linear layers as three nested loops over the packed weight's index functions.
#include "pennyweight/linear.h"

#include <vector>

#include "pennyweight/numerics.h"
#include "pennyweight/quantize.h"
#include "reference.h"

namespace pennyweight::reference {
namespace {

float with_bias(float v, const void* bias, DType dtype, int64_t n) { return bias ? v + load_f32(bias, dtype, n) : v; }

// One token's codes and scale, as the quantization ops make them.
template <class Op, class Linear>
float quantize_token(const Linear& op, int64_t row, void* codes, void (*quantize)(const Op&, const Executor&)) {
  float scale = 0.0f;
  Op q{};
  q.x = static_cast<const char*>(op.x) + row * op.x_stride * dtype_bytes(op.x_dtype);
  q.smooth = op.smooth;
  q.codes = codes;
  q.scale = &scale;
  q.m = 1;
  q.k = q.x_stride = op.k;
  q.x_dtype = op.x_dtype;
  quantize(q, Executor{});
  return scale;
}

template <class Gemm, class Quantize, class Linear>
void quantize_then_gemm(const Linear& op, const Executor& executor, void (*quantize)(const Quantize&, const Executor&),
                        void (*gemm)(const Gemm&, const Executor&)) {
  std::vector<uint8_t> codes(op.m * op.k);
  std::vector<float> scale(op.m);
  for (int64_t row = 0; row < op.m; ++row)
    scale[row] = quantize_token<Quantize>(op, row, codes.data() + row * op.k, quantize);
  Gemm g{};
  g.codes = codes.data();
  g.row_scale = scale.data();
  g.weight = op.weight;
  g.col_scale = op.col_scale;
  g.bias = op.bias;
  g.y = op.y;
  g.m = op.m;
  g.n = op.n;
  g.k = g.codes_stride = op.k;
  g.y_stride = op.y_stride;
  g.y_dtype = op.x_dtype;
  gemm(g, executor);
}

template <class Linear>
Int4Panel panel_of(const Linear& op) {
  return {op.n, op.k, op.group_size, op.scale_dtype, op.zero_points != 0};
}

}  // namespace

void gemm_w8a8_int8(const GemmW8A8Int8& op, const Executor& executor) {
  const uint8_t* weight = static_cast<const uint8_t*>(op.weight);
  parallel_for(executor, op.n, [&](int64_t n) {
    for (int64_t m = 0; m < op.m; ++m) {
      const int8_t* x = static_cast<const int8_t*>(op.codes) + m * op.codes_stride;
      int32_t acc = 0;
      for (int64_t k = 0; k < op.k; ++k) acc += x[k] * (weight[int8_panel_offset(n, k, op.k)] - 128);
      if (op.y_dtype == DType::i32) {
        static_cast<int32_t*>(op.y)[m * op.y_stride + n] = acc;
        continue;
      }
      const float y = static_cast<float>(acc) * op.row_scale[m] * op.col_scale[n];
      store_f32(op.y, op.y_dtype, m * op.y_stride + n, with_bias(y, op.bias, op.y_dtype, n));
    }
  });
}

void gemm_w8a8_fp8(const GemmW8A8Fp8& op, const Executor& executor) {
  const uint8_t* weight = static_cast<const uint8_t*>(op.weight);
  parallel_for(executor, op.n, [&](int64_t n) {
    for (int64_t m = 0; m < op.m; ++m) {
      const uint8_t* x = static_cast<const uint8_t*>(op.codes) + m * op.codes_stride;
      float acc = 0.0f;
      for (int64_t k = 0; k < op.k; ++k) acc += e4m3_f32(x[k]) * e4m3_f32(weight[fp8_panel_offset(n, k, op.k)]);
      const float y = acc * op.row_scale[m] * op.col_scale[n];
      store_f32(op.y, op.y_dtype, m * op.y_stride + n, with_bias(y, op.bias, op.y_dtype, n));
    }
  });
}

void linear_w8a8_int8(const LinearW8A8Int8& op, const Executor& executor) {
  quantize_then_gemm<GemmW8A8Int8, QuantizePerTokenInt8>(op, executor, quantize_per_token_int8, gemm_w8a8_int8);
}

void linear_w8a8_fp8(const LinearW8A8Fp8& op, const Executor& executor) {
  quantize_then_gemm<GemmW8A8Fp8, QuantizePerTokenFp8>(op, executor, quantize_per_token_fp8, gemm_w8a8_fp8);
}

void linear_w4a16(const LinearW4A16& op, const Executor& executor) {
  const Int4Panel panel = panel_of(op);
  const uint8_t* weight = static_cast<const uint8_t*>(op.weight);
  parallel_for(executor, op.n, [&](int64_t n) {
    for (int64_t m = 0; m < op.m; ++m) {
      float y = 0.0f;
      for (int64_t g = 0; g < panel.groups(); ++g) {
        const uint8_t* block = weight + panel.block(n, g);
        const int zero = panel.zero_points ? static_cast<int8_t>(block[panel.zero_offset() + n % kPanel]) : 0;
        const float scale = load_f32(block + panel.scale_offset(), op.scale_dtype, n % kPanel);
        float sum = 0.0f;
        for (int64_t k = g * op.group_size; k < (g + 1) * op.group_size; ++k) {
          const uint32_t word = *reinterpret_cast<const uint32_t*>(weight + panel.dword(n, k));
          const int q = static_cast<int>(word >> panel.shift(k) & 15u) - 8;
          sum += load_f32(op.x, op.x_dtype, m * op.x_stride + k) * static_cast<float>(q - zero);
        }
        y += scale * sum;
      }
      store_f32(op.y, op.x_dtype, m * op.y_stride + n, with_bias(y, op.bias, op.x_dtype, n));
    }
  });
}

void linear_w4a8_int8(const LinearW4A8Int8& op, const Executor& executor) {
  const Int4Panel panel = panel_of(op);
  const uint8_t* weight = static_cast<const uint8_t*>(op.weight);
  parallel_for(executor, op.m, [&](int64_t m) {
    std::vector<int8_t> x(op.k);
    const float row_scale = quantize_token<QuantizePerTokenInt8>(op, m, x.data(), quantize_per_token_int8);
    for (int64_t n = 0; n < op.n; ++n) {
      float total = 0.0f;
      for (int64_t g = 0; g < panel.groups(); ++g) {
        const uint8_t* block = weight + panel.block(n, g);
        const int zero = panel.zero_points ? static_cast<int8_t>(block[panel.zero_offset() + n % kPanel]) : 0;
        int32_t acc = 0;
        for (int64_t k = g * op.group_size; k < (g + 1) * op.group_size; ++k) {
          const uint32_t word = *reinterpret_cast<const uint32_t*>(weight + panel.dword(n, k));
          acc += x[k] * (static_cast<int>(word >> panel.shift(k) & 15u) - 8 - zero);
        }
        total =
            fma_f32(static_cast<float>(acc), load_f32(block + panel.scale_offset(), op.scale_dtype, n % kPanel), total);
      }
      store_f32(op.y, op.x_dtype, m * op.y_stride + n, with_bias(total * row_scale, op.bias, op.x_dtype, n));
    }
  });
}

void linear_bf16(const LinearBf16& op, const Executor& executor) {
  parallel_for(executor, op.n, [&](int64_t n) {
    for (int64_t m = 0; m < op.m; ++m) {
      float y = 0.0f;
      for (int64_t k = 0; k < op.k; ++k)
        y += load_f32(op.x, DType::bf16, m * op.x_stride + k) * load_f32(op.weight, DType::bf16, n * op.w_stride + k);
      store_f32(op.y, DType::bf16, m * op.y_stride + n, with_bias(y, op.bias, DType::bf16, n));
    }
  });
}

}  // namespace pennyweight::reference
