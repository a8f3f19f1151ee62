// SPDX-License-Identifier: Apache-2.0
// quantize_weight_avx2.cpp: round to nearest against given scales, as the plain loop does, code for code (quotients are
// divided). Bound by memory, so that wider vectors gain nothing.
#include "lanes.h"
#include "pennyweight/numerics.h"
#include "weight_scales.h"

namespace pennyweight::cpu {
namespace {

// numerics.h's f32_e4m3, lane by lane.
static inline Bits e4m3(Lanes v) {
  const Bits bits = (Bits)v, a = bits & 0x7fffffff, sign = bits >> 24 & 0x80;
  const Bits normal = ((a + 0x7ffff + (a >> 20 & 1)) >> 20) - (120 << 3);
  const Bits small = as_whole(round_even((Lanes)a * all(0x1p9f)));
  const Bits code = a < 0x3c800000 ? small : normal;
  const Bits finite = a >= 0x43e00000 ? (code & 0) + 0x7e : code;
  return sign | (a > 0x7f800000 ? (code & 0) + 0x7f : finite);
}

struct ToInt8 {
  float low, high;
  void store(void* codes, int64_t i, Lanes v) const {
    store_int8(static_cast<int8_t*>(codes) + i, greater(all(low), lesser(all(high), round_even(v))));
  }
};
struct ToE4m3 {
  void store(void* codes, int64_t i, Lanes v) const { store_bytes(static_cast<uint8_t*>(codes) + i, e4m3(v)); }
};

// Elements begin .. begin + count, which share a scale. The last, incomplete vector goes through a copy.
template <DType T, class To>
static void quantize_run(const QuantizeWeight& op, const To& to, int64_t begin, int64_t count, float scale) {
  const Lanes divisor = all(scale);
  int64_t i = begin;
  for (; i + kLanes <= begin + count; i += kLanes) to.store(op.codes, i, load_as<T>(op.weight, i) / divisor);
  if (i == begin + count) return;
  float values[kLanes] = {};
  uint8_t codes[kLanes];
  for (int64_t j = 0; i + j < begin + count; ++j) values[j] = load_f32(op.weight, T, i + j);
  to.store(codes, 0, load(values) / divisor);
  for (int64_t j = 0; i + j < begin + count; ++j) static_cast<uint8_t*>(op.codes)[i + j] = codes[j];
}

template <DType T, class To>
static void quantize_rows(const QuantizeWeight& op, const Executor& executor, const To& to) {
  const int64_t groups = op.k / op.group_size;
  parallel_chunks(executor, op.n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin * groups; g < end * groups; ++g)
      quantize_run<T>(op, to, g * op.group_size, op.group_size, op.scale[g]);
  });
}

template <DType T>
static void quantize_as(const QuantizeWeight& op, const Executor& executor) {
  const float high = op.format == 8 ? 127.0f : 7.0f;
  if (op.format == 0)
    quantize_rows<T>(op, executor, ToE4m3{});
  else
    quantize_rows<T>(op, executor, ToInt8{-high - 1.0f, high});
}

}  // namespace

void quantize_weight_avx2(const QuantizeWeight& op, const Executor& executor) {
  if (op.w_dtype == DType::f32)
    quantize_as<DType::f32>(op, executor);
  else if (op.w_dtype == DType::f16)
    quantize_as<DType::f16>(op, executor);
  else
    quantize_as<DType::bf16>(op, executor);
}

}  // namespace pennyweight::cpu
