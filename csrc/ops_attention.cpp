// SPDX-License-Identifier: Apache-2.0
// ops_attention.cpp: rotary embedding and attention of one token per sequence as torch operators, on the CPU.
#include "pennyweight/attention.h"
#include "checks.h"

namespace pennyweight::torch_ops {
namespace {

Tensor rotary(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  const char* name = "rotary";
  const Rows rows = float_rows({name, "x"}, x);
  const Rows cosines = rows_for_each({name, "cos"}, cos, rows);
  const Rows sines = rows_for_each({name, "sin"}, sin, rows);
  check_rotary(name, rows, cosines, sines);
  Tensor y = make(x, rows.shape(rows.columns), scalar_type_of(rows.dtype));
  Rotary op{};
  op.x = rows.data;
  op.cos = cosines.data;
  op.sin = sines.data;
  op.y = data(y);
  op.m = rows.rows;
  op.d = cosines.columns;
  op.heads = rows.columns / op.d;
  op.x_stride = rows.stride;
  op.cos_stride = cosines.rows == 1 ? 0 : cosines.stride;
  op.sin_stride = sines.rows == 1 ? 0 : sines.stride;
  op.x_dtype = rows.dtype;
  if (op.m > 0) run_on_torch(op);
  return y;
}

Tensor attention_decode(const Tensor& q, const Tensor& keys, const Tensor& values, double scale,
                        const MaybeTensor& mask) {
  const char* name = "attention_decode";
  const Rows rows = float_rows({name, "q"}, q);
  const Cached k = cached({name, "keys"}, keys, rows), v = cached({name, "values"}, values, rows);
  check_attention(name, rows, k, v);
  AttentionDecode op{};
  std::optional<Rows> counts;
  if (mask) {
    counts = mask_rows({name, "mask"}, *mask, k);
    op.mask = static_cast<const uint8_t*>(counts->data);
    op.mask_stride = counts->stride;
  }
  Tensor y = make(q, rows.shape(rows.columns), scalar_type_of(rows.dtype));
  op.q = rows.data;
  op.keys = k.data;
  op.values = v.data;
  op.y = data(y);
  op.b = rows.rows;
  op.kv_heads = k.heads;
  op.t = k.tokens;
  op.d = k.columns;
  op.heads = rows.columns / op.d;
  op.q_stride = rows.stride;
  op.key_batch = k.batch_stride;
  op.key_head = k.head_stride;
  op.key_token = k.token_stride;
  op.value_batch = v.batch_stride;
  op.value_head = v.head_stride;
  op.value_token = v.token_stride;
  op.scale = scale;
  op.x_dtype = rows.dtype;
  if (op.b > 0) run_on_torch(op);
  return y;
}

}  // namespace
}  // namespace pennyweight::torch_ops

STABLE_TORCH_LIBRARY_IMPL(pennyweight, CPU, m) {
  using namespace pennyweight::torch_ops;
  m.impl("rotary", TORCH_BOX(&rotary));
  m.impl("attention_decode", TORCH_BOX(&attention_decode));
}
