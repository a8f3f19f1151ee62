// SPDX-License-Identifier: Apache-2.0
// hessian_accumulate_test.cu: x^T x against sums in float64, by parts and pieces, over runs of tokens.
//
// The bound: products are exact. A tensor core adds 16 of them to a sum and may truncate each time, twice a rounding's
// error; of T tokens a sum is T at most such additions (the twin adds one by one), then one to h or a part per run, and
// one per part: each errs by at most 2^-23 of the sum of all |x_i x_j| and |h_ij|. float32: six passes, and dropped
// products below 2^-25.
#include "calibrate_sm80.h"
#include "harness.h"
#include "hessian_accumulate_tiles.h"

namespace pennyweight::tests {
namespace {

struct Shape {
  int64_t t, k;
  DType dtype = DType::bf16;
  int64_t pad = 0;  // between rows of x
};

struct Problem {
  Shape shape;
  int64_t stride, bytes;
  Buffer<uint8_t> x;
  Buffer<float> h, before;
  HessianAccumulate op{};

  explicit Problem(const Shape& s)
      : shape(s),
        stride(s.k + s.pad),
        bytes(dtype_bytes(s.dtype)),
        x(((s.t - 1) * stride + s.k) * bytes),
        h(s.k * s.k),
        before(s.k * s.k) {
    std::mt19937 random(static_cast<uint32_t>(settings().seed * 7919 + s.t * 31 + s.k));
    for (size_t i = 0; i < x.count / bytes; ++i)
      store_f32(x.data, s.dtype, static_cast<int64_t>(i), static_cast<float>(random() % 20001) * 1e-4f - 0.7f);
    for (size_t i = 0; i < h.count; ++i) before[i] = h[i] = static_cast<float>(random() % 2001) * 1e-2f;
    op.x = x.data;
    op.h = h.data;
    op.t = s.t;
    op.k = s.k;
    op.x_stride = stride;
    op.x_dtype = s.dtype;
  }

  float value(int64_t t, int64_t i) const { return load_f32(x.data, shape.dtype, t * stride + i); }

  void check_result(const std::string& how, int splits) const {
    const std::string what = how + " t " + std::to_string(shape.t) + " k " + std::to_string(shape.k) + " dtype " +
                             std::to_string(static_cast<int>(shape.dtype));
    const double passes = shape.dtype == DType::f32 ? 6.0 : 1.0;
    const double additions = passes * static_cast<double>(shape.t) + splits + static_cast<double>(shape.t / 4096 + 2);
    std::vector<float> column(shape.t * shape.k);
    for (int64_t t = 0; t < shape.t; ++t)
      for (int64_t i = 0; i < shape.k; ++i) column[i * shape.t + t] = value(t, i);
    for (int64_t i = 0; i < shape.k; ++i)
      for (int64_t j = 0; j < shape.k; ++j) {
        const float got = h[i * shape.k + j], old = before[i * shape.k + j];
        if (j > i) {
          check(f32_bits(got) == f32_bits(old), what + ": wrote above the diagonal");
          continue;
        }
        double want = old, magnitude = std::fabs(want);
        for (int64_t t = 0; t < shape.t; ++t) {
          const double product = static_cast<double>(column[i * shape.t + t]) * column[j * shape.t + t];
          want += product;
          magnitude += std::fabs(product);
        }
        const double bound = (additions * 0x1p-23 + (shape.dtype == DType::f32 ? 0x1p-25 : 0.0)) * magnitude;
        check(std::fabs(got - want) <= bound, what + ": row " + std::to_string(i) + " column " + std::to_string(j) +
                                                  " is " + std::to_string(got) + ", expected " + std::to_string(want) +
                                                  " +- " + std::to_string(bound));
      }
  }
};

void by_splits(const Shape& shape, int splits) {
  Problem problem(shape);
  Buffer<uint8_t> workspace(cuda::hessian_bytes(problem.op, splits));
  finish(cuda::run_hessian(problem.op, splits, {card(), nullptr, workspace.data}));
  problem.check_result("splits " + std::to_string(splits), splits);
}

void by_registry(const Shape& shape) {
  Problem problem(shape);
  run_on_card(problem.op, "sm80");
  problem.check_result("sm80", 16);
}

constexpr DType kF16 = DType::f16, kBf16 = DType::bf16, kF32 = DType::f32;

PW_CASE(hessian_accumulate_parts) {
  by_splits({70, 136, kBf16, 8}, 1);
  by_splits({100, 130, kF16, 6}, 3);
  if (settings().small) return;
  by_splits({65, 264, kF16}, 2);
  by_splits({31, 128, kBf16}, 5);  // fewer turns than parts
  by_splits({300, 72, kBf16}, 4);
}

PW_CASE(hessian_accumulate_pieces) {
  by_splits({33, 40, kF32}, 1);
  by_splits({35, 17, kBf16, 2}, 1);  // rows 38 bytes apart
  if (settings().small) return;
  by_splits({70, 131, kF32, 3}, 2);
  by_splits({64, 129, kF16}, 1);
}

PW_CASE(hessian_accumulate_shapes) {
  by_registry({1, 1});
  if (settings().small) return;
  for (int64_t t : {1, 15, 17, 127, 129, 255, 257}) by_registry({t, 48, t % 4 == 1 ? kF16 : kBf16});
  for (int64_t k : {1, 15, 17, 127, 129, 257}) by_registry({40, k, k % 4 == 1 ? kF16 : kBf16, 8 - k % 8});
  by_registry({50, 65, kF32});
}

// More tokens than a run of sums, and than are copied to pieces at once.
PW_CASE(hessian_accumulate_many_tokens) {
  if (settings().seed > 0) return;
  by_splits({16384 + 40, 8, kBf16}, 1);
  if (settings().small) return;
  by_splits({2 * 16384 + 100, 8, kF16}, 2);
  by_splits({4096 + 37, 5, kF32}, 1);
}

#if defined(PW_EMULATED)
PW_CASE(hessian_accumulate_rows_more_than_two_to_the_31_elements_apart) {
  const int64_t k = 72;
  const FarRows x(k);
  Buffer<float> h(k * k);
  for (int64_t i = 0; i < k; ++i) {  // small whole numbers: the sums are exact
    store_f32(x.data, DType::bf16, i, static_cast<float>(i % 13 - 6));
    store_f32(x.data, DType::bf16, x.stride + i, static_cast<float>(i % 7 - 3));
  }
  for (size_t i = 0; i < h.count; ++i) h[i] = 0.0f;
  run_on_card(HessianAccumulate{x.data, h.data, 2, k, x.stride, kBf16}, "sm80");
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      const float want = static_cast<float>((i % 13 - 6) * (j % 13 - 6) + (i % 7 - 3) * (j % 7 - 3));
      check(h[i * k + j] == want, "far rows: row " + std::to_string(i) + " column " + std::to_string(j) + " is " +
                                      std::to_string(h[i * k + j]) + ", expected " + std::to_string(want));
    }
}
#endif

PW_CASE(hessian_accumulate_adds_to_h) {
  Problem problem({40, 33, kBf16, 7});
  run_on_card(problem.op);
  std::memcpy(problem.before.data, problem.h.data, problem.h.count * 4);
  run_on_card(problem.op);
  problem.check_result("again", 16);
}

PW_CASE(hessian_accumulate_keeps_nan_to_its_column) {
  Problem problem({40, 72, kBf16});
  store_f32(problem.x.data, kBf16, 7 * problem.stride + 50, nan_f32());
  run_on_card(problem.op);
  for (int64_t i = 0; i < 72; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      const float v = problem.h[i * 72 + j];
      check((v != v) == (i == 50 || j == 50), "row " + std::to_string(i) + " column " + std::to_string(j));
    }
}

}  // namespace
}  // namespace pennyweight::tests
