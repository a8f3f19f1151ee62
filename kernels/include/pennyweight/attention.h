// SPDX-License-Identifier: Apache-2.0
// attention.h: what stands between a decoder layer's linear layers when a token is decoded: rotary position embedding,
// and the attention of one new token per sequence to all that are cached.
#pragma once
#include "pennyweight/formats.h"
#include "pennyweight/registry.h"

namespace pennyweight {

// y = round(round(x * cos) + round(rotated * sin)), head by head, where rotated = (-x[d/2:], x[:d/2]) of a head: the
// embedding of Llama, with the three roundings of transformers' apply_rotary_pos_emb.
struct Rotary {
  const void* x;        // (m, heads * d) x_dtype, rows x_stride elements apart
  const void* cos;      // (m, d), rows cos_stride apart: 0 where all rows share one
  const void* sin;      // (m, d), rows sin_stride apart
  void* y;              // (m, heads * d) contiguous
  int64_t m, heads, d;  // d even
  int64_t x_stride, cos_stride, sin_stride;
  DType x_dtype;  // of all four: f32, f16, bf16
  static constexpr OpId id = OpId::rotary;
};

// y = softmax(scale * q . keys) . values of one query per sequence and head; heads / kv_heads heads in a row share keys
// and values. All in float32, rounded once. A dot product runs in 16 lanes (lane = i mod 16, fused multiply-adds in
// order of i), added pairwise as quantize.h says; then s = dot * scale, p = exp(s - max) by numerics.h's exp, the sum
// of p in 16 lanes (lane = t mod 16), p . values by fused multiply-adds in order of t, divided by the sum. Where mask
// is 0 a key counts for nothing; a query without any key gets 0.
struct AttentionDecode {
  const void* q;        // (b, heads, d), sequences q_stride elements apart, else contiguous
  const void* keys;     // (b, kv_heads, t, d), with the three strides below, d contiguous
  const void* values;   // the same
  const uint8_t* mask;  // (b, t), rows mask_stride apart, or null: all count
  void* y;              // (b, heads, d) contiguous
  int64_t b, heads, kv_heads, t, d;
  int64_t q_stride, mask_stride;
  int64_t key_batch, key_head, key_token, value_batch, value_head, value_token;  // strides in elements
  double scale;
  DType x_dtype;  // of q, keys, values and y
  static constexpr OpId id = OpId::attention_decode;
};

}  // namespace pennyweight
