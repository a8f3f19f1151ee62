// SPDX-License-Identifier: Apache-2.0
// ops_attention.h: rotary embedding and attention of one token per sequence, their tensors checked and held.
#pragma once
#include <optional>

#include "checks.h"
#include "pennyweight/attention.h"

namespace pennyweight::torch_ops {

// Heads of as many columns as cos and sin, which have a row for each of `like` or one for all.
struct Turning {
  Rows cosines, sines;
  Rotary op{};

  Turning(const char* name, const Tensor& cos, const Tensor& sin, const Rows& like);
  void run(const void* x, int64_t stride, int64_t heads, void* y);
};

struct Attending {
  Rows rows;  // q
  Cached keys, values;
  std::optional<Rows> counts;
  AttentionDecode op{};

  Attending(const char* name, const Tensor& q, const Tensor& cached_keys, const Tensor& cached_values, double scale,
            const MaybeTensor& mask);
  void run(void* y);
};

}  // namespace pennyweight::torch_ops
