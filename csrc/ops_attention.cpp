// SPDX-License-Identifier: Apache-2.0
// ops_attention.cpp: rotary embedding and attention of one token per sequence as torch operators, on the CPU.
#include "ops_attention.h"

namespace pennyweight::torch_ops {

Turning::Turning(const char* name, const Tensor& cos, const Tensor& sin, const Rows& like)
    : cosines(rows_for_each({name, "cos"}, cos, like)), sines(rows_for_each({name, "sin"}, sin, like)) {
  op.cos = cosines.data;
  op.sin = sines.data;
  op.m = like.rows;
  op.d = cosines.columns;
  op.cos_stride = cosines.rows == 1 ? 0 : cosines.stride;
  op.sin_stride = sines.rows == 1 ? 0 : sines.stride;
  op.x_dtype = like.dtype;
}

void Turning::run(const void* x, int64_t stride, int64_t heads, void* y) {
  op.x = x;
  op.x_stride = stride;
  op.heads = heads;
  op.y = y;
  if (op.m > 0) run_on_torch(op);
}

Attending::Attending(const char* name, const Tensor& q, const Tensor& cached_keys, const Tensor& cached_values,
                     double scale, const MaybeTensor& mask)
    : rows(float_rows({name, "q"}, q)),
      keys(cached({name, "keys"}, cached_keys, rows)),
      values(cached({name, "values"}, cached_values, rows)) {
  check_attention(name, rows, keys, values);
  if (mask) {
    counts = mask_rows({name, "mask"}, *mask, keys);
    op.mask = static_cast<const uint8_t*>(counts->data);
    op.mask_stride = counts->stride;
  }
  op.q = rows.data;
  op.keys = keys.data;
  op.values = values.data;
  op.b = rows.rows;
  op.kv_heads = keys.heads;
  op.t = keys.tokens;
  op.d = keys.columns;
  op.heads = rows.columns / op.d;
  op.q_stride = rows.stride;
  op.key_batch = keys.batch_stride;
  op.key_head = keys.head_stride;
  op.key_token = keys.token_stride;
  op.value_batch = values.batch_stride;
  op.value_head = values.head_stride;
  op.value_token = values.token_stride;
  op.scale = scale;
  op.x_dtype = rows.dtype;
}

void Attending::run(void* y) {
  op.y = y;
  if (op.b > 0) run_on_torch(op);
}

namespace {

Tensor rotary(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  const char* name = "rotary";
  const Rows rows = float_rows({name, "x"}, x);
  Turning turning(name, cos, sin, rows);
  check_rotary(name, rows, turning.cosines, turning.sines);
  Tensor y = make(x, rows.shape(rows.columns), scalar_type_of(rows.dtype));
  turning.run(rows.data, rows.stride, rows.columns / turning.op.d, data(y));
  return y;
}

Tensor attention_decode(const Tensor& q, const Tensor& keys, const Tensor& values, double scale,
                        const MaybeTensor& mask) {
  Attending attention("attention_decode", q, keys, values, scale, mask);
  const Rows& rows = attention.rows;
  Tensor y = make(q, rows.shape(rows.columns), scalar_type_of(rows.dtype));
  attention.run(data(y));
  return y;
}

}  // namespace
}  // namespace pennyweight::torch_ops

STABLE_TORCH_LIBRARY_IMPL(pennyweight, CPU, m) {
  using namespace pennyweight::torch_ops;
  m.impl("rotary", TORCH_BOX(&rotary));
  m.impl("attention_decode", TORCH_BOX(&attention_decode));
}
