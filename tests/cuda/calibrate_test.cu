// SPDX-License-Identifier: Apache-2.0
// calibrate_test.cu: scales, rounding and column statistics against the reference: bit for bit, but for the search for
// the least error, whose sums are float32 here and float64 there.
#include "calibrate_sm80.h"
#include "harness.h"
#include "reference/reference.h"

namespace pennyweight::tests {
namespace {

constexpr DType kDTypes[] = {DType::f32, DType::f16, DType::bf16};
constexpr int64_t kFormats[] = {8, 4, 0};

std::string name_of(int64_t n, int64_t k, int64_t group, int64_t format, DType dtype) {
  return "n " + std::to_string(n) + " k " + std::to_string(k) + " group " + std::to_string(group) + " format " +
         std::to_string(format) + " dtype " + std::to_string(static_cast<int>(dtype));
}

// Values of a bell, some zero, in a buffer of just their size.
struct Values : Buffer<uint8_t> {
  Values(int64_t elements, DType dtype, uint32_t seed) : Buffer<uint8_t>(elements * dtype_bytes(dtype)) {
    std::mt19937 random(static_cast<uint32_t>(settings().seed * 7919 + seed));
    for (int64_t i = 0; i < elements; ++i) {
      float sum = 0.0f;
      for (int j = 0; j < 4; ++j) sum += static_cast<float>(random() % 2001) * 1e-3f - 1.0f;
      store_f32(data, dtype, i, random() % 50 ? sum * 0.02f : 0.0f);
    }
  }
};

WeightScales scales_op(const void* weight, float* scale, int64_t n, int64_t k, int64_t group, int64_t format,
                       DType dtype) {
  WeightScales op{};
  op.weight = weight;
  op.scale = scale;
  op.n = n;
  op.k = k;
  op.group_size = group;
  op.format = format;
  op.w_dtype = dtype;
  op.grid = 100;
  op.patience = 5;
  op.maxshrink = 0.2;
  op.norm = 2.4;
  return op;
}

PW_CASE(weight_scales_min_max) {
  const int64_t shapes[][3] = {{5, 64, 32}, {1, 1, 1}, {33, 200, 200}, {9, 130, 65}, {3, 1024, 128}};
  for (const auto& [n, k, group] : shapes) {
    for (DType dtype : kDTypes)
      for (int64_t format : kFormats) {
        const Values weight(n * k, dtype, static_cast<uint32_t>(n * k));
        for (int64_t i = 0; i < group; ++i) store_f32(weight.data, dtype, i, 0.0f);  // a scale of eps
        store_f32(weight.data, dtype, n * k - 1, 60000.0f);
        Buffer<float> scale(n * (k / group)), expected(scale.count);
        WeightScales op = scales_op(weight.data, expected.data, n, k, group, format, dtype);
        reference::weight_scales(op, Executor{});
        op.scale = scale.data;
        run_on_card(op, "sm80");
        check_same(scale.data, expected.data, scale.count, k / group, name_of(n, k, group, format, dtype));
      }
    if (settings().small) return;
  }
}

// The error of a group at a scale, in float64.
double error_of(const WeightScales& op, int64_t group, float scale) {
  double error = 0.0;
  for (int64_t i = 0; i < op.group_size; ++i) {
    const double w = load_f32(op.weight, op.w_dtype, group * op.group_size + i);
    const float v = static_cast<float>(w) / scale, high = op.format == 8 ? 127.0f : 7.0f;
    float code = op.format == 0 ? e4m3_f32(f32_e4m3(v)) : round_half_even(v);
    if (op.format) code = code < -high - 1 ? -high - 1 : code > high ? high : code;
    error += std::pow(std::fabs(static_cast<double>(code) * scale - w), op.norm);
  }
  return error;
}

// Errors of float32 sums and of the power are below 1e-5 of each term, and all terms are positive: what is found must
// have an error within twice that of what the reference finds, and nearly always be the same.
void check_search(WeightScales op, const std::string& what) {
  const int64_t count = op.n * (op.k / op.group_size);
  Buffer<float> scale(count), expected(count);
  op.mse = 1;
  op.scale = expected.data;
  reference::weight_scales(op, Executor{});
  op.scale = scale.data;
  run_on_card(op, "sm80");
  int64_t same = 0;
  for (int64_t g = 0; g < count; ++g) {
    same += f32_bits(scale[g]) == f32_bits(expected[g]);
    const double got = error_of(op, g, scale[g]), want = error_of(op, g, expected[g]);
    check(got <= want * (1 + 2e-5), what + ": group " + std::to_string(g) + " has an error of " + std::to_string(got) +
                                        ", expected " + std::to_string(want));
  }
  check(same * 100 >= count * 97,
        what + ": " + std::to_string(same) + " of " + std::to_string(count) + " are the same");
}

PW_CASE(weight_scales_least_error) {
  for (DType dtype : kDTypes)
    for (int64_t format : kFormats) {
      const int64_t n = settings().small ? 3 : 20;
      const Values weight(n * 256, dtype, static_cast<uint32_t>(format));
      WeightScales op = scales_op(weight.data, nullptr, n, 256, 64, format, dtype);
      check_search(op, "least error of " + name_of(n, 256, 64, format, dtype));
      if (settings().small) continue;
      op.group_size = 256;
      check_search(op, "least error of a channel, " + name_of(n, 256, 256, format, dtype));
    }
}

// A group whose best lies behind five steps that improve nothing stops there, unless another group still improves.
PW_CASE(weight_scales_stop_together) {
  Buffer<float> weight(24 * 75);
  std::mt19937 random(11);
  for (size_t i = 0; i < weight.count; ++i) weight[i] = static_cast<float>(random() % 6001) * 1e-4f - 0.3f;
  for (int64_t n = 0; n < 24; ++n) weight[n * 75 + n] = n % 4 < 2 ? 1.0f : 0.35f;
  for (int64_t patience : {1, 2, 5, 12, 40})
    for (int64_t format : {4, 8}) {
      for (int64_t n : {1, 4, 24}) {
        WeightScales op = scales_op(weight.data, nullptr, n, 75, 75, format, DType::f32);
        op.grid = 200;
        op.maxshrink = 0.8;  // 160 steps
        op.patience = patience;
        op.norm = 2.0;
        check_search(op, "patience " + std::to_string(patience) + " rows " + std::to_string(n));
      }
      if (settings().small && patience > 1) return;
    }
}

PW_CASE(weight_scales_refuse) {
  WeightScales op = scales_op(nullptr, nullptr, 1, 32, 32, 4, DType::f32);
  op.mse = 1;
  op.grid = 1000000;
  Status status;
  check(choose_cuda(OpId::weight_scales, &op, card(), nullptr, &status) < 0, "200000 steps are taken");
  check(std::strstr(status.message, "at most 5120 steps") != nullptr, status.message);
}

void check_rounding(int64_t n, int64_t k, int64_t group, int64_t format, DType dtype, int64_t shift) {
  const Values room(n * k + shift, dtype, static_cast<uint32_t>(n * k + format));
  uint8_t* weight = room.data + shift * dtype_bytes(dtype);
  const float special[] = {0.0f, -0.0f, 1e-42f, -1e-42f, 0.5f, -0.5f, 1.5f, 2.5f, -2.5f, 447.9f, 1e30f, -1e30f};
  for (int64_t i = 0; i < 12 && i < n * k; ++i) store_f32(weight, dtype, n * k - 1 - i, special[i]);
  Buffer<float> scale(n * (k / group));
  const float sizes[] = {0.01f, 1.0f, 0x1p-126f, 0x1p-140f, 3e-5f, 0x1p100f, 0.5f};
  for (size_t i = 0; i < scale.count; ++i) scale[i] = sizes[i % 7];
  Buffer<uint8_t> codes(n * k), expected(n * k);
  QuantizeWeight op{};
  op.weight = weight;
  op.scale = scale.data;
  op.n = n;
  op.k = k;
  op.group_size = group;
  op.format = format;
  op.w_dtype = dtype;
  op.codes = expected.data;
  reference::quantize_weight(op, Executor{});
  op.codes = codes.data;
  run_on_card(op, "sm80");
  check_same(codes.data, expected.data, codes.count, k, "codes " + name_of(n, k, group, format, dtype));
}

PW_CASE(quantize_weight_codes) {
  for (DType dtype : kDTypes)
    for (int64_t format : kFormats) {
      check_rounding(5, 64, 32, format, dtype, 0);
      check_rounding(3, 35, 7, format, dtype, 1);
      if (settings().small) continue;
      check_rounding(1, 1, 1, format, dtype, 0);
      for (int64_t k : {15, 17, 127, 129, 255, 257, 1040}) check_rounding(3, k, k, format, dtype, 0);
      check_rounding(4, 120, 4, format, dtype, 0);
      check_rounding(129, 16, 16, format, dtype, 0);
    }
}

// Every quotient of a bfloat16 by awkward scales.
PW_CASE(quantize_weight_every_bfloat16) {
  if (settings().small || settings().seed > 0) return;
  Buffer<uint16_t> weight(65536);
  for (int i = 0; i < 65536; ++i) {
    const bool finite = (i & 0x7f80) != 0x7f80;
    weight[i] = static_cast<uint16_t>(finite ? i : 0);
  }
  for (float divisor : {0.0123f, 0.99999f, 3e-39f, 1e33f})
    for (int64_t format : kFormats) {
      Buffer<float> scale(1);
      scale[0] = divisor;
      Buffer<uint8_t> codes(65536), expected(65536);
      QuantizeWeight op{weight.data, scale.data, expected.data, 1, 65536, 65536, format, DType::bf16};
      reference::quantize_weight(op, Executor{});
      op.codes = codes.data;
      run_on_card(op, "sm80");
      check_same(codes.data, expected.data, 65536, 65536, "codes of every bfloat16 by " + std::to_string(divisor));
    }
}

void check_columns(int64_t t, int64_t k, DType dtype, int64_t pad) {
  const int64_t stride = k + pad;
  const Values x((t - 1) * stride + k, dtype, static_cast<uint32_t>(t * 31 + k));
  // zeros of both signs in a column, in both orders, and NaN in another
  if (t > 2) {
    for (int64_t row = 0; row < t; ++row) store_f32(x.data, dtype, row * stride, row % 3 ? -0.0f : 0.0f);
    store_f32(x.data, dtype, (t / 2) * stride + k - 1, nan_f32());
  }
  Buffer<float> low(k), high(k), expected_low(k), expected_high(k);
  for (int64_t i = 0; i < k; ++i) {
    expected_low[i] = low[i] = i % 5 ? bits_f32(0x7f800000u) : -0.5f;
    expected_high[i] = high[i] = i % 5 ? bits_f32(0xff800000u) : 0.5f;
  }
  const std::string what = "t " + std::to_string(t) + " k " + std::to_string(k);
  ColumnRange op{x.data, expected_low.data, expected_high.data, t, k, stride, dtype};
  reference::column_range(op, Executor{});
  op.low = low.data;
  op.high = high.data;
  run_on_card(op, "sm80");
  check_same(low.data, expected_low.data, k, k, "lowest " + what);
  check_same(high.data, expected_high.data, k, k, "highest " + what);
  if (pad) return;
  ColumnAbsMax most{x.data, expected_high.data, t, k, dtype};
  reference::column_abs_max(most, Executor{});
  most.out = high.data;
  run_on_card(most, "sm80");
  check_same(high.data, expected_high.data, k, k, "largest " + what);
}

PW_CASE(column_statistics) {
  check_columns(70, 40, DType::bf16, 0);
  check_columns(9, 19, DType::f16, 2);
  if (settings().small) return;
  for (DType dtype : kDTypes) {
    for (int64_t t : {1, 15, 17, 127, 129, 257, 1000}) check_columns(t, 24, dtype, t % 2 * 3);
    for (int64_t k : {1, 15, 17, 255, 256, 257, 528}) check_columns(66, k, dtype, 0);
  }
}

#if defined(PW_EMULATED)
PW_CASE(column_range_of_rows_more_than_two_to_the_31_elements_apart) {
  const int64_t k = 40;
  const FarRows x(k);
  Buffer<float> low(k), high(k), smallest(k), largest(k);
  for (int64_t i = 0; i < k; ++i) {
    store_f32(x.data, DType::bf16, i, static_cast<float>(i % 5));
    store_f32(x.data, DType::bf16, x.stride + i, static_cast<float>(i % 3 - 9));
    low[i] = high[i] = 0.5f;
    smallest[i] = static_cast<float>(i % 3 - 9);
    largest[i] = i % 5 ? static_cast<float>(i % 5) : 0.5f;
  }
  run_on_card(ColumnRange{x.data, low.data, high.data, 2, k, x.stride, DType::bf16}, "sm80");
  check_same(low.data, smallest.data, k, k, "lowest of far rows");
  check_same(high.data, largest.data, k, k, "highest of far rows");
}
#endif

PW_CASE(smooth_scales_formula) {
  for (int64_t k : {1, 31, 257}) {
    Buffer<float> low(k), high(k), most(k), scale(k), expected(k);
    std::mt19937 random(static_cast<uint32_t>(k + settings().seed));
    for (int64_t i = 0; i < k; ++i) {
      low[i] = -static_cast<float>(random() % 1000) * 1e-2f;
      high[i] = low[i] + static_cast<float>(random() % 1000) * (i % 7 ? 1e-2f : 0.0f);
      most[i] = i % 11 ? static_cast<float>(random() % 1000) * 1e-3f : i % 2 ? 0.0f : 1e30f;
    }
    SmoothScales op{low.data, high.data, most.data, expected.data, k, 0.8};
    reference::smooth_scales(op, Executor{});
    op.scale = scale.data;
    run_on_card(op, "sm80");
    check_same(scale.data, expected.data, k, k, "divisors");
  }
}

}  // namespace
}  // namespace pennyweight::tests
