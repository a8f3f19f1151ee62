// SPDX-License-Identifier: Apache-2.0
// attention_kernels.h: rotary position embedding, and attention of one token per sequence, on sixteen lanes; included
// by attention_avx2.cpp and attention_avx512vnni.cpp, which give it its instruction set.
//
// Shapes    pennyweight/attention.h
// Needs     any number of heads that kv_heads divides, any d (even for rotary), any t from 1 on
// Walk      rotary: a row is one task. Attention: a key head of a sequence is one task, with all query heads that share
//           it: keys are read once in order of t, a row made float32 in L1 and multiplied with each query; then values,
//           sixteen columns at a time, four queries in registers.
// Numerics  bit for bit the plain loops
// Limit     arithmetic while keys and values are in caches: with 4 heads to a key head and d = 64 a cached token costs
//           256 bytes and some 130 instructions
// Tried     Zen 4, two threads, 32 heads of 64, 8 key heads, bf16, call included: 10, 14, 70, 233 us at 16, 64, 512,
//           2048 tokens; torch's scaled_dot_product_attention: 80, 194, 948, 3803.
#pragma once
#include <cmath>

#include "f32x16.h"
#include "pennyweight/attention.h"
#include "scratch.h"

namespace pennyweight::cpu {
namespace {

template <DType dtype>
void rotary_row(const Rotary& op, int64_t m) {
  const int64_t half = op.d / 2;
  const void* cos = at<dtype>(op.cos, m * op.cos_stride);
  const void* sin = at<dtype>(op.sin, m * op.sin_stride);
  for (int64_t head = 0; head < op.heads; ++head) {
    const void* x = at<dtype>(op.x, m * op.x_stride + head * op.d);
    void* y = at<dtype>(op.y, (m * op.heads + head) * op.d);
    for_each_16(half, [&](int64_t i, int count) __attribute__((always_inline)) {
      auto turned = [&](int64_t j, F32x16 straight, F32x16 crossed) __attribute__((always_inline)) {
        const F32x16 a = round_to<dtype>(straight * load<dtype>(at<dtype>(cos, j), count));
        const F32x16 b = round_to<dtype>(crossed * load<dtype>(at<dtype>(sin, j), count));
        store<dtype>(at<dtype>(y, j), a + b, count);
      };
      const F32x16 first = load<dtype>(at<dtype>(x, i), count), second = load<dtype>(at<dtype>(x, i + half), count);
      turned(i, first, as_float(bits(second) ^ splat_i32(INT32_MIN)));
      turned(i + half, second, first);
    });
  }
}

void rotary_rows(const Rotary& op, const Executor& executor) {
  with_dtype(op.x_dtype, [&](auto tag) {
    parallel_for(executor, op.m, [&](int64_t m) { rotary_row<decltype(tag)::value>(op, m); });
  });
}

// `d` values as float32, filled up with zeros to whole vectors.
template <DType dtype>
inline void widen(const void* from, float* to, int64_t d) {
  for_each_16(d, [&](int64_t i, int count)
                     __attribute__((always_inline)) { store_f32(to + i, load<dtype>(at<dtype>(from, i), count)); });
}

inline float dot(const float* a, const float* b, int64_t wide) {
  F32x16 sum = splat(0.0f);
  for (int64_t i = 0; i < wide; i += 16) sum = fma(load_f32(a + i), load_f32(b + i), sum);
  return sum_lanes(sum);
}

// The queries that share a key head, and their scores, later weights: rows of whole vectors.
struct Group {
  const float* q;  // (heads, wide)
  float* p;        // (heads, padded)
  float* total;    // (heads,)
  int64_t heads, wide, padded;
};

// p = exp(scale * q . key - max), 0 where the mask is; total = the sum.
template <DType dtype>
void weigh(const AttentionDecode& op, const void* keys, const uint8_t* mask, const Group& group, float* row) {
  const float scale = static_cast<float>(op.scale);
  for (int64_t t = 0; t < op.t; ++t) {
    if (mask && !mask[t]) continue;
    widen<dtype>(at<dtype>(keys, t * op.key_token), row, op.d);
    for (int64_t h = 0; h < group.heads; ++h)
      group.p[h * group.padded + t] = dot(group.q + h * group.wide, row, group.wide) * scale;
  }
  for (int64_t h = 0; h < group.heads; ++h) {
    float* p = group.p + h * group.padded;
    float most = -INFINITY;
    for (int64_t t = 0; t < op.t; ++t)
      if ((!mask || mask[t]) && p[t] > most) most = p[t];
    for (int64_t t = 0; t < group.padded; t += 16) store_f32(p + t, exp_f32(load_f32(p + t) + splat(-most)));
    for (int64_t t = op.t; t < group.padded; ++t) p[t] = 0.0f;
    for (int64_t t = 0; mask && t < op.t; ++t)
      if (!mask[t]) p[t] = 0.0f;
    F32x16 total = splat(0.0f);
    for (int64_t t = 0; t < group.padded; t += 16) total = total + load_f32(p + t);
    group.total[h] = sum_lanes(total);
  }
}

// y = p . values / total of `heads` queries from the first on.
template <DType dtype, int heads>
void mix(const AttentionDecode& op, const void* values, const uint8_t* mask, const Group& group, int64_t first,
         void* y) {
  const float* p = group.p + first * group.padded;
  for_each_16(op.d, [&](int64_t i, int count) __attribute__((always_inline)) {
    F32x16 sum[heads];
    for (int h = 0; h < heads; ++h) sum[h] = splat(0.0f);
    for (int64_t t = 0; t < op.t; ++t) {
      if (mask && !mask[t]) continue;
      const F32x16 value = load<dtype>(at<dtype>(values, t * op.value_token + i), count);
      for (int h = 0; h < heads; ++h) sum[h] = fma(splat(p[h * group.padded + t]), value, sum[h]);
    }
    for (int h = 0; h < heads; ++h) {
      const float total = group.total[first + h];
      const F32x16 out = total == 0.0f ? splat(0.0f) : sum[h] / splat(total);
      store<dtype>(at<dtype>(y, (first + h) * op.d + i), out, count);
    }
  });
}

template <DType dtype>
void attend(const AttentionDecode& op, int64_t b, int64_t kv) {
  Group group{};
  group.heads = op.heads / op.kv_heads;
  group.wide = round_up(op.d, 16);
  group.padded = round_up(op.t, 16);
  float* q = static_cast<float*>(scratch(Slot::activations, (group.heads + 1) * group.wide * 4));
  group.q = q;
  group.p = static_cast<float*>(scratch(Slot::scales, group.heads * group.padded * 4));
  group.total = static_cast<float*>(scratch(Slot::sums, group.heads * 4));
  const int64_t first = kv * group.heads;
  for (int64_t h = 0; h < group.heads; ++h) {
    widen<dtype>(at<dtype>(op.q, b * op.q_stride + (first + h) * op.d), q + h * group.wide, op.d);
    for (int64_t t = op.t; t < group.padded; ++t) group.p[h * group.padded + t] = 0.0f;
  }
  const uint8_t* mask = op.mask ? op.mask + b * op.mask_stride : nullptr;
  weigh<dtype>(op, at<dtype>(op.keys, b * op.key_batch + kv * op.key_head), mask, group, q + group.heads * group.wide);
  const void* values = at<dtype>(op.values, b * op.value_batch + kv * op.value_head);
  void* y = at<dtype>(op.y, (b * op.heads + first) * op.d);
  int64_t h = 0;
  for (; h + 4 <= group.heads; h += 4) mix<dtype, 4>(op, values, mask, group, h, y);
  for (; h < group.heads; ++h) mix<dtype, 1>(op, values, mask, group, h, y);
}

void attend_all(const AttentionDecode& op, const Executor& executor) {
  with_dtype(op.x_dtype, [&](auto tag) {
    parallel_for(executor, op.b * op.kv_heads,
                 [&](int64_t i) { attend<decltype(tag)::value>(op, i / op.kv_heads, i % op.kv_heads); });
  });
}

}  // namespace
}  // namespace pennyweight::cpu

// The exported functions of one instruction set.
#define PW_ATTENTION_ENTRIES                                                             \
  void rotary(const Rotary& op, const Executor& executor) { rotary_rows(op, executor); } \
  void attention_decode(const AttentionDecode& op, const Executor& executor) { attend_all(op, executor); }
