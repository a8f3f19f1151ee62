// SPDX-License-Identifier: Apache-2.0
// gptq_columns_test.cu: blocks of columns against the reference: codes and residuals bit for bit. The loss is a sum of
// 128 squares, in float32 by lanes here and in float64 there: it may differ by 128 roundings, 2^-17 of itself, and by
// one for each block that is added to it.
#include "calibrate_sm80.h"
#include "harness.h"
#include "reference/reference.h"

namespace pennyweight::tests {
namespace {

struct Shape {
  int64_t layers, n, k, group_size, bits = 4;
};

struct Problem {
  Shape shape;
  Buffer<float> factor, sums, scale, residual, loss;
  Buffer<int32_t> group;
  Buffer<int8_t> codes;
  GptqColumns op{};

  explicit Problem(const Shape& s)
      : shape(s),
        factor(s.layers * s.k * s.k),
        sums(s.layers * s.n * s.k),
        scale(s.layers * s.n * (s.k / s.group_size)),
        residual(s.layers * s.n * s.k),
        loss(s.layers * s.n),
        group(s.layers * s.k),
        codes(s.layers * s.n * s.k) {
    std::mt19937 random(static_cast<uint32_t>(settings().seed * 7919 + s.n * 31 + s.k));
    const auto uniform = [&] { return static_cast<float>(static_cast<int>(random() % 20001) - 10000) * 1e-4f; };
    const int64_t groups = s.k / s.group_size;
    for (int64_t i = 0; i < s.layers * s.k; ++i)
      for (int64_t j = 0; j < s.k; ++j) {
        float& r = factor[i * s.k + j];
        r = j < i % s.k ? nan_f32() : j == i % s.k ? 1.0f + std::fabs(uniform()) : 0.2f * uniform();
      }
    for (size_t i = 0; i < sums.count; ++i) sums[i] = 0.1f * uniform();
    for (size_t i = 0; i < residual.count; ++i) residual[i] = uniform();
    for (size_t i = 0; i < scale.count; ++i) scale[i] = (0.2f + std::fabs(uniform())) / (s.bits == 8 ? 127.5f : 7.5f);
    for (size_t i = 0; i < group.count; ++i)  // as if columns came in another order
      group[i] = static_cast<int32_t>((i % s.k * 7 + 3) % s.k / s.group_size);
    for (size_t i = 0; i < loss.count; ++i) loss[i] = 0.0f;
    op.factor = factor.data;
    op.sums = sums.data;
    op.scale = scale.data;
    op.group = group.data;
    op.residual = residual.data;
    op.codes = codes.data;
    op.loss = loss.data;
    op.layers = s.layers;
    op.n = s.n;
    op.k = s.k;
    op.groups = groups;
    op.bits = s.bits;
  }

  // All blocks by the card and by the reference, each on its own copy.
  void check_result() {
    const std::string what =
        "n " + std::to_string(shape.n) + " k " + std::to_string(shape.k) + " bits " + std::to_string(shape.bits);
    Buffer<float> d(residual.count), total(loss.count);
    Buffer<int8_t> q(codes.count);
    std::memcpy(d.data, residual.data, d.count * 4);
    std::memcpy(total.data, loss.data, total.count * 4);
    for (op.first = 0; op.first < op.k; op.first += kGptqColumns) {
      run_on_card(op, "sm80");
      GptqColumns expected = op;
      expected.residual = d.data;
      expected.codes = q.data;
      expected.loss = total.data;
      reference::gptq_columns(expected, Executor{});
    }
    check_same(codes.data, q.data, q.count, shape.k, "codes " + what);
    check_same(residual.data, d.data, d.count, shape.k, "residual " + what);
    for (size_t i = 0; i < loss.count; ++i)
      check(loss[i] == total[i] ||
                std::fabs(loss[i] - total[i]) <= (0x1p-17 + 0x1p-22 * static_cast<double>(op.k / 128 + 1)) * total[i],
            "loss " + what + ": row " + std::to_string(i) + " is " + std::to_string(loss[i]) + ", expected " +
                std::to_string(total[i]));
  }
};

PW_CASE(gptq_columns_shapes) {
  Problem({1, 17, 40, 20}).check_result();
  Problem({2, 3, 130, 65, 8}).check_result();
  if (settings().small) return;
  for (int64_t k : {1, 31, 32, 33, 127, 128, 129, 255, 257}) Problem({1, 5, k, k}).check_result();
  for (int64_t n : {1, 15, 16, 33, 129}) Problem({1, n, 64, 32, 8}).check_result();
  Problem({3, 20, 256, 128}).check_result();
}

// Scales that a quotient by way of 1 / scale would not survive, and targets far outside the range.
PW_CASE(gptq_columns_extremes) {
  Problem problem({1, 12, 96, 32});
  const float scales[] = {0x1p-140f, 0x1p-120f, 0x1p-95f, 0x1p-126f, 0x1p95f, 0x1p120f};
  for (int64_t n = 0; n < 12; ++n)
    for (int64_t g = 0; g < 3; ++g) problem.scale[n * 3 + g] = scales[(n + g) % 6];
  for (int64_t n = 0; n < 12; ++n)
    for (int64_t i = 0; i < 96; ++i) {
      float& w = problem.residual[n * 96 + i];
      w = n < 6 ? w * 5.0f * problem.scale[n * 3 + i / 32] : w * 0x1p100f;
      problem.sums[n * 96 + i] = 0.0f;
    }
  // A column of R is its diagonal alone: quotients of what is given.
  for (int64_t i = 0; i < 96; ++i)
    for (int64_t j = i + 1; j < 96; ++j) problem.factor[i * 96 + j] = 0.0f;
  problem.check_result();
}

PW_CASE(gptq_columns_keep_nan_to_their_row) {
  Problem clean({1, 20, 64, 32}), problem({1, 20, 64, 32});
  problem.residual[5 * 64 + 20] = nan_f32();
  run_on_card(clean.op, "sm80");
  run_on_card(problem.op, "sm80");
  for (int64_t n = 0; n < 20; ++n)
    if (n != 5) check_same(problem.codes.data + n * 64, clean.codes.data + n * 64, 64, 64, "row " + std::to_string(n));
}

PW_CASE(gptq_columns_refuse) {
  Problem problem({1, 1, 1, 1});
  problem.op.layers = 65536;
  Status status;
  check(choose_cuda(OpId::gptq_columns, &problem.op, card(), nullptr, &status) < 0, "65536 layers are taken");
  check(std::strstr(status.message, "at most 65535 layers") != nullptr, status.message);
}

}  // namespace
}  // namespace pennyweight::tests
