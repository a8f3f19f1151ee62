// SPDX-License-Identifier: Apache-2.0
// calibrate.cpp: Hessian, GPTQ, scales and SmoothQuant as plain loops; sums that a proof would want exact are double.
#include "pennyweight/calibrate.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "pennyweight/numerics.h"
#include "reference.h"

namespace pennyweight::reference {
namespace {

float code_limit(int64_t format) { return format == 8 ? 127.5f : format == 4 ? 7.5f : 448.0f; }

// round-half-even(w / scale) clamped to the signed range of `bits`
int8_t integer_code(float w, float scale, int64_t bits) {
  const float high = bits == 8 ? 127.0f : 7.0f, low = -high - 1.0f;
  const float q = round_half_even(w / scale);
  return static_cast<int8_t>(q < low ? low : q > high ? high : q);
}

float dequantized(float w, float scale, int64_t format) {
  if (format == 0) return e4m3_f32(f32_e4m3(w / scale)) * scale;
  return static_cast<float>(integer_code(w, scale, format)) * scale;
}

// A scale from a group's amax (already of the weight's dtype), as llm-compressor rounds it.
float scale_of(float amax, int64_t format, DType dtype) {
  const float scale = round_to(dtype, amax / code_limit(format));
  return scale == 0.0f ? dtype_eps(dtype) : scale;
}

}  // namespace

void hessian_accumulate(const HessianAccumulate& op, const Executor& executor) {
  parallel_for(executor, op.k, [&](int64_t i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = 0.0;
      for (int64_t t = 0; t < op.t; ++t)
        sum += static_cast<double>(load_f32(op.x, op.x_dtype, t * op.x_stride + i)) *
               load_f32(op.x, op.x_dtype, t * op.x_stride + j);
      op.h[i * op.k + j] += static_cast<float>(sum);
    }
  });
}

// With H = R R^T, R upper triangular, the objective is |(w - q s) R|^2, and column i of the product involves columns
// 0..i only: q_i = round((w_i + sum_{j<i} d_j R_ji / R_ii) / s), d_j = w_j - q_j s. This is GPTQ (its inverse Cholesky
// factor is R^-1), without the inverse.
void gptq_quantize(const GptqQuantize& op, const Executor& executor) {
  const int64_t k = op.k, groups = op.k / op.group_size;
  auto h = [&](int64_t i, int64_t j) { return i >= j ? op.h[i * k + j] : op.h[j * k + i]; };
  std::vector<int64_t> order(k);
  std::iota(order.begin(), order.end(), 0);
  if (op.act_order)
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return h(a, a) > h(b, b); });
  std::vector<char> dead(k);
  double mean = 0.0;
  for (int64_t i = 0; i < k; ++i) {
    dead[i] = h(i, i) == 0.0f;
    mean += (dead[i] ? 1.0 : h(i, i)) / static_cast<double>(k);
  }
  // R, column by column from the right: a Cholesky factorization of H seen from its last row and column.
  std::vector<double> r(k * k);
  double damping = op.damping;
  bool positive = false;
  for (int64_t attempt = 0; attempt <= op.retries && !positive; ++attempt) {
    if (attempt) damping *= 10.0;
    positive = true;
    for (int64_t j = k - 1; j >= 0 && positive; --j) {
      for (int64_t i = j; i >= 0; --i) {
        double sum = h(order[i], order[j]);
        if (i == j) sum = (dead[order[i]] ? 1.0 : sum) + damping * mean;
        for (int64_t l = j + 1; l < k; ++l) sum -= r[i * k + l] * r[j * k + l];
        if (i == j) {
          positive = sum > 0.0 && std::isfinite(sum);
          if (!positive) break;
          r[j * k + j] = std::sqrt(sum);
        } else {
          r[i * k + j] = sum / r[j * k + j];
        }
      }
    }
  }
  std::vector<double> objective(op.n), energy(op.n), error(op.n), norm(op.n);
  parallel_for(executor, op.n, [&](int64_t n) {
    std::vector<double> d(k), w(k);
    for (int64_t i = 0; i < k; ++i) {
      const int64_t column = order[i];
      w[i] = dead[column] ? 0.0 : load_f32(op.weight, op.w_dtype, n * k + column);
      const float scale = op.scale[n * groups + column / op.group_size];
      double target = w[i];
      if (positive)
        for (int64_t j = 0; j < i; ++j) target += d[j] * r[j * k + i] / r[i * k + i];
      const int8_t q = integer_code(static_cast<float>(target), scale, op.bits);
      op.codes[n * k + column] = q;
      d[i] = w[i] - static_cast<double>(q) * scale;
      error[n] += d[i] * d[i];
      norm[n] += w[i] * w[i];
    }
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < k; ++j) {
        objective[n] += d[i] * h(order[i], order[j]) * d[j];
        energy[n] += w[i] * h(order[i], order[j]) * w[j];
      }
  });
  auto total = [](const std::vector<double>& v) { return std::accumulate(v.begin(), v.end(), 0.0); };
  op.stats[0] = positive ? damping : -1.0;
  op.stats[1] = static_cast<double>(std::count(dead.begin(), dead.end(), 1));
  op.stats[2] = total(objective);
  op.stats[3] = total(energy);
  op.stats[4] = total(norm) > 0.0 ? total(error) / total(norm) : 0.0;
}

void gptq_columns(const GptqColumns& op, const Executor& executor) {
  const int64_t end = std::min(op.first + kGptqColumns, op.k);
  parallel_for(executor, op.layers * op.n, [&](int64_t row) {
    const int64_t layer = row / op.n;
    const float* factor = op.factor + layer * op.k * op.k;
    float* d = op.residual + row * op.k;
    double loss = 0.0;
    for (int64_t i = op.first; i < end; ++i) {
      const float scale = op.scale[row * op.groups + op.group[layer * op.k + i]];
      float sum = op.sums[row * op.k + i];
      for (int64_t j = op.first; j < i; ++j) sum = fma_f32(d[j], factor[j * op.k + i], sum);
      const float target = fma_f32(sum, 1.0f / factor[i * op.k + i], d[i]);
      const int8_t q = integer_code(target, scale, op.bits);
      const float miss = fma_f32(-static_cast<float>(q), scale, target) * factor[i * op.k + i];
      d[i] = fma_f32(-static_cast<float>(q), scale, d[i]);
      op.codes[row * op.k + i] = q;
      loss += static_cast<double>(miss) * miss;
    }
    op.loss[row] += static_cast<float>(loss);
  });
}

void weight_scales(const WeightScales& op, const Executor& executor) {
  const int64_t groups = op.k / op.group_size, count = op.n * groups;
  std::vector<float> amax(count);
  std::vector<double> best(count, INFINITY);
  auto first = [&](int64_t g) { return g / groups * op.k + g % groups * op.group_size; };
  parallel_for(executor, count, [&](int64_t g) {
    for (int64_t i = 0; i < op.group_size; ++i)
      amax[g] = std::max(amax[g], std::fabs(load_f32(op.weight, op.w_dtype, first(g) + i)));
    op.scale[g] = scale_of(amax[g], op.format, op.w_dtype);
  });
  if (!op.mse) return;
  int64_t idle = 0;
  for (int64_t step = 0; step < static_cast<int64_t>(op.maxshrink * static_cast<double>(op.grid)) && idle < op.patience;
       ++step) {
    const float p = static_cast<float>(1.0 - static_cast<double>(step) / static_cast<double>(op.grid));
    std::vector<char> improved(count);
    parallel_for(executor, count, [&](int64_t g) {
      const float scale = scale_of(round_to(op.w_dtype, p * amax[g]), op.format, op.w_dtype);
      double error = 0.0;
      for (int64_t i = 0; i < op.group_size; ++i) {
        const float w = load_f32(op.weight, op.w_dtype, first(g) + i);
        error += std::pow(std::fabs(static_cast<double>(dequantized(w, scale, op.format)) - w), op.norm);
      }
      if (error < best[g]) {
        best[g] = error;
        op.scale[g] = scale;
        improved[g] = 1;
      }
    });
    idle = std::count(improved.begin(), improved.end(), 1) ? 0 : idle + 1;
  }
}

void quantize_weight(const QuantizeWeight& op, const Executor& executor) {
  const int64_t groups = op.k / op.group_size;
  parallel_for(executor, op.n, [&](int64_t n) {
    for (int64_t i = 0; i < op.k; ++i) {
      const float w = load_f32(op.weight, op.w_dtype, n * op.k + i), scale = op.scale[n * groups + i / op.group_size];
      if (op.format == 0)
        static_cast<uint8_t*>(op.codes)[n * op.k + i] = f32_e4m3(w / scale);
      else
        static_cast<int8_t*>(op.codes)[n * op.k + i] = integer_code(w, scale, op.format);
    }
  });
}

void column_range(const ColumnRange& op, const Executor& executor) {
  parallel_for(executor, op.k, [&](int64_t i) {
    for (int64_t t = 0; t < op.t; ++t) {
      const float v = load_f32(op.x, op.x_dtype, t * op.x_stride + i);
      if (op.low[i] == op.low[i] && !(v >= op.low[i])) op.low[i] = v;  // NaN comes in and stays
      if (op.high[i] == op.high[i] && !(v <= op.high[i])) op.high[i] = v;
    }
  });
}

void column_abs_max(const ColumnAbsMax& op, const Executor& executor) {
  parallel_for(executor, op.k, [&](int64_t i) {
    float amax = 0.0f;
    for (int64_t n = 0; n < op.n; ++n) {
      const float v = std::fabs(load_f32(op.weight, op.w_dtype, n * op.k + i));
      if (amax == amax && !(v <= amax)) amax = v;
    }
    op.out[i] = amax;
  });
}

void smooth_scales(const SmoothScales& op, const Executor&) {
  for (int64_t i = 0; i < op.k; ++i) {
    const double range = static_cast<double>(op.high[i]) - op.low[i], weight = 2.0 * op.weight_abs_max[i];
    const double s = std::pow(range, op.strength) / std::pow(weight, 1.0 - op.strength);
    op.scale[i] = range > 0.0 && weight > 0.0 ? static_cast<float>(std::max(s, 1e-5)) : 1.0f;
  }
}

}  // namespace pennyweight::reference
