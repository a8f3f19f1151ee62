// SPDX-License-Identifier: Apache-2.0
// gemm_w8a8_int8_test.cu: the INT8 GEMM against the reference, bit for bit, by every tile and split.
#include "code_rows.h"
#include "gemm_w8a8_tiles.h"
#include "harness.h"
#include "pennyweight/pack.h"
#include "reference/reference.h"

namespace pennyweight::tests {
namespace {

constexpr uint8_t kMark = 0x5a;  // what a Buffer is full of

struct Shape {
  int64_t m, n, k;
  DType dtype = DType::bf16;
  bool bias = true;
  int64_t y_pad = 0;  // between rows of y
};

// A problem, its operands and what the reference says. Rows of x begin at multiples of 16 bytes, as far apart as they
// must, with noise between them. The reference reads the weight in the CPU's layout.
struct Problem {
  Shape shape;
  int64_t x_stride, y_stride;
  Buffer<int8_t> x, w;
  Buffer<uint8_t> weight, panels;
  Buffer<float> row_scale, col_scale, bias;
  Buffer<uint8_t> y, expected;
  GemmW8A8Int8 op{};

  explicit Problem(const Shape& s)
      : shape(s),
        x_stride(round_up(s.k, 16)),
        y_stride(s.n + s.y_pad),
        x((s.m - 1) * x_stride + s.k),
        w(s.n * s.k),
        weight(code_rows_bytes(s.n, s.k)),
        panels(int8_panel_bytes(s.n, s.k)),
        row_scale(s.m),
        col_scale(s.n),
        bias(s.n),
        y(((s.m - 1) * y_stride + s.n) * dtype_bytes(s.dtype)),
        expected(y.count) {
    std::mt19937 random(static_cast<uint32_t>(settings().seed * 7919 + s.m * 31 + s.n * 7 + s.k));
    for (size_t i = 0; i < x.count; ++i) x[i] = static_cast<int8_t>(random());
    for (size_t i = 0; i < w.count; ++i) w[i] = static_cast<int8_t>(random());
    for (size_t i = 0; i < row_scale.count; ++i) row_scale[i] = static_cast<float>(random() % 1000 + 1) * 1e-4f;
    for (size_t i = 0; i < col_scale.count; ++i) col_scale[i] = static_cast<float>(random() % 1000 + 1) * 1e-4f;
    for (int64_t i = 0; i < s.n; ++i)
      store_f32(bias.data, s.dtype == DType::i32 ? DType::f32 : s.dtype, i, static_cast<float>(random() % 2001) - 1000);
    PackInt8 pack{};
    pack.codes = w.data;
    pack.weight = panels.data;
    pack.n = s.n;
    pack.k = s.k;
    reference::pack_int8(pack, Executor{});
    write_code_rows(w.data, s.n, s.k, weight);
    const bool bare = s.dtype == DType::i32;
    op.codes = x.data;
    op.weight = panels.data;
    op.row_scale = bare ? nullptr : row_scale.data;
    op.col_scale = bare ? nullptr : col_scale.data;
    op.bias = bare || !s.bias ? nullptr : bias.data;
    op.m = s.m;
    op.n = s.n;
    op.k = s.k;
    op.codes_stride = x_stride;
    op.y_stride = y_stride;
    op.y_dtype = s.dtype;
    op.y = expected.data;
    reference::gemm_w8a8_int8(op, Executor{});
    op.weight = weight.data;
    op.y = y.data;
  }

  void check_result(const std::string& how) {
    const std::string what = how + " m " + std::to_string(shape.m) + " n " + std::to_string(shape.n) + " k " +
                             std::to_string(shape.k) + " dtype " + std::to_string(static_cast<int>(shape.dtype));
    const int64_t bytes = dtype_bytes(shape.dtype);
    check_same(y.data, expected.data, y.count, y_stride * bytes, what);  // what lies between rows included
    std::memset(y.data, kMark, y.count);
  }
};

void by_plan(const Shape& shape, cuda::Plan plan) {
  Problem problem(shape);
  Buffer<uint8_t> workspace(cuda::partial_bytes(problem.op, plan));
  finish(cuda::run_w8a8(cuda::Codes::int8, problem.op, plan, {card(), nullptr, workspace.data}));
  problem.check_result("tile " + std::to_string(plan.tile) + " splits " + std::to_string(plan.splits));
}

void by_registry(const Shape& shape) {
  Problem problem(shape);
  run_on_card(problem.op, "sm80");
  problem.check_result("sm80");
}

// Every tile on shapes that are a little less and a little more than it, in every dtype, with and without splits.
PW_CASE(gemm_w8a8_int8_tiles) {
  const int64_t rows[] = {16, 64, 128, 128};
  const DType dtypes[] = {DType::bf16, DType::f16, DType::f32, DType::i32};
  for (int tile = 0; tile < cuda::kInt8Tiles; ++tile) {
    if (tile == 3 && card().shared_bytes < cuda::Int8Tile128x5::shared_bytes) continue;
    const DType dtype = dtypes[(tile + settings().seed) % 4], other = dtypes[(tile + settings().seed + 1) % 4];
    by_plan({rows[tile] + 1, 131, 200, dtype, true, 5}, {tile, 1});
    if (settings().small && tile > 0) continue;
    by_plan({3, 65, 1100, other, false, 3}, {tile, 3});
    if (settings().small) continue;
    by_plan({rows[tile] - 1, 264, 530, other}, {tile, 2});
    by_plan({rows[tile], 128, 128, dtype}, {tile, 1});
  }
}

PW_CASE(gemm_w8a8_int8_shapes) {
  by_registry({1, 130, 67});
  by_registry({17, 15, 1, DType::f16});
  if (settings().small) return;
  for (int64_t m : {1, 15, 17, 33, 127, 129}) by_registry({m, 96 + m, 240, DType::bf16, m % 2 == 1, 8 - m % 8});
  for (int64_t n : {1, 15, 63, 64, 65, 127, 129}) by_registry({33, n, 129, DType::f16});
  for (int64_t k : {1, 3, 63, 64, 65, 127, 129, 600}) by_registry({5, 70, k, DType::i32});
  by_registry({257, 520, 64, DType::f32});
  by_registry({1, 64, 4096, DType::bf16});  // K split over the card
}

PW_CASE(gemm_w8a8_int8_sums_do_not_saturate) {
  const int64_t k = settings().small ? 512 : 20000;
  Problem problem({2, 64, k, DType::i32});
  for (size_t i = 0; i < problem.x.count; ++i) problem.x[i] = -128;
  for (size_t i = 0; i < problem.weight.count; ++i) problem.weight[i] = 0x80;  // -128
  run_on_card(problem.op);
  int32_t sum;
  std::memcpy(&sum, problem.y.data, 4);
  check(sum == 16384 * k, "the sum is " + std::to_string(sum));
}

// x to y in one call, against the reference's two steps.
void check_linear(int64_t m, int64_t n, int64_t k, DType dtype, bool smooth) {
  Problem problem({m, n, k, dtype});
  Buffer<uint16_t> x(m * k), y(m * n), expected(m * n);
  Buffer<float> divisor(k);
  std::mt19937 random(static_cast<uint32_t>(settings().seed + m + n + k));
  for (int64_t i = 0; i < m * k; ++i) store_f32(x.data, dtype, i, static_cast<float>(random() % 2001) * 1e-3f - 1.0f);
  for (int64_t i = 0; i < k; ++i) divisor[i] = static_cast<float>(random() % 100 + 1) * 0.02f;
  LinearW8A8Int8 op{};
  op.x = x.data;
  op.smooth = smooth ? divisor.data : nullptr;
  op.weight = problem.panels.data;
  op.col_scale = problem.col_scale.data;
  op.bias = problem.op.bias;
  op.m = m;
  op.n = op.y_stride = n;
  op.k = op.x_stride = k;
  op.x_dtype = dtype;
  op.y = expected.data;
  reference::linear_w8a8_int8(op, Executor{});
  op.weight = problem.weight.data;
  op.y = y.data;
  run_on_card(op, "sm80");
  check_same(y.data, expected.data, y.count, n, "linear_w8a8_int8 m " + std::to_string(m) + " n " + std::to_string(n));
}

PW_CASE(linear_w8a8_int8_is_quantization_and_gemm) {
  check_linear(3, 70, 64, DType::bf16, true);
  check_linear(1, 65, 67, DType::f16, false);
  check_linear(3, 65, 67, DType::f16, false);  // rows of codes are padded
  if (settings().small) return;
  check_linear(65, 200, 176, DType::f16, true);
  check_linear(2, 64, 4096, DType::bf16, false);
}

PW_CASE(gemm_w8a8_int8_refuses_unaligned_rows) {
  Problem problem({3, 64, 40});
  problem.op.codes_stride = 40;
  Status status;
  check(choose_cuda(OpId::gemm_w8a8_int8, &problem.op, card(), nullptr, &status) < 0, "rows 40 bytes apart are taken");
  check(std::strstr(status.message, "multiples of 16 bytes") != nullptr, status.message);
}

}  // namespace
}  // namespace pennyweight::tests
