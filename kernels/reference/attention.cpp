// SPDX-License-Identifier: Apache-2.0
// attention.cpp: rotary position embedding, and attention of one token per sequence, element by element.
#include "pennyweight/attention.h"

#include <cmath>
#include <vector>

#include "pennyweight/numerics.h"
#include "reference.h"

namespace pennyweight::reference {
namespace {

void attend(const AttentionDecode& op, int64_t b, int64_t head) {
  const int64_t kv = head / (op.heads / op.kv_heads);
  const int64_t q = b * op.q_stride + head * op.d, y = (b * op.heads + head) * op.d;
  const int64_t keys = b * op.key_batch + kv * op.key_head, values = b * op.value_batch + kv * op.value_head;
  auto counts = [&](int64_t t) { return !op.mask || op.mask[b * op.mask_stride + t] != 0; };
  std::vector<float> p(op.t);
  float most = -INFINITY;
  for (int64_t t = 0; t < op.t; ++t) {
    if (!counts(t)) continue;
    float lane[16] = {0};
    for (int64_t i = 0; i < op.d; ++i)
      lane[i % 16] = fma_f32(load_f32(op.q, op.x_dtype, q + i),
                             load_f32(op.keys, op.x_dtype, keys + t * op.key_token + i), lane[i % 16]);
    p[t] = sum_lanes(lane) * static_cast<float>(op.scale);
    most = p[t] > most ? p[t] : most;
  }
  float lane[16] = {0};
  for (int64_t t = 0; t < op.t; ++t) {
    p[t] = counts(t) ? exp_f32(p[t] - most) : 0.0f;
    lane[t % 16] = lane[t % 16] + p[t];
  }
  const float total = sum_lanes(lane);
  for (int64_t i = 0; i < op.d; ++i) {
    float sum = 0.0f;
    for (int64_t t = 0; t < op.t; ++t)
      if (counts(t)) sum = fma_f32(p[t], load_f32(op.values, op.x_dtype, values + t * op.value_token + i), sum);
    store_f32(op.y, op.x_dtype, y + i, total == 0.0f ? 0.0f : sum / total);
  }
}

}  // namespace

void rotary(const Rotary& op, const Executor& executor) {
  parallel_for(executor, op.m, [&](int64_t row) {
    const int64_t half = op.d / 2;
    for (int64_t j = 0; j < op.heads * op.d; ++j) {
      const int64_t i = j % op.d;
      const float x = load_f32(op.x, op.x_dtype, row * op.x_stride + j);
      const float other = load_f32(op.x, op.x_dtype, row * op.x_stride + (i < half ? j + half : j - half));
      const float straight = round_to(op.x_dtype, x * load_f32(op.cos, op.x_dtype, row * op.cos_stride + i));
      const float sin = load_f32(op.sin, op.x_dtype, row * op.sin_stride + i);
      const float crossed = round_to(op.x_dtype, (i < half ? -other : other) * sin);
      store_f32(op.y, op.x_dtype, row * op.heads * op.d + j, straight + crossed);
    }
  });
}

void attention_decode(const AttentionDecode& op, const Executor& executor) {
  parallel_for(executor, op.b * op.heads, [&](int64_t i) { attend(op, i / op.heads, i % op.heads); });
}

}  // namespace pennyweight::reference
