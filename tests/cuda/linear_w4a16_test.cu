// SPDX-License-Identifier: Apache-2.0
// linear_w4a16_test.cu: the 4-bit linear layer against exact sums in float64, by every tile and split.
//
// The bound: q - z is exact in f16 and bf16, and so are its products with x in float32. A tensor core may truncate
// where it adds, twice a rounding's error. Of a sum of K products: K such additions, one FMA per group, `splits`
// additions of parts, the bias; each errs by at most 2^-23 of the sum of all |x w|. Then one rounding to y's type.
// Where the weight is decoded first, each (q - z) s is rounded to x's type besides: by u |w|, or half a step of f16's
// subnormals, 2^-25.
#include "harness.h"
#include "linear_w4a16_tiles.h"
#include "pennyweight/pack.h"
#include "reference/reference.h"

namespace pennyweight::tests {
namespace {

struct Shape {
  int64_t m, n, k, group;
  DType dtype = DType::bf16, scale_dtype = DType::bf16;
  bool zero_points = false, bias = false;
  int64_t y_pad = 0;  // between rows of y
};

struct Problem {
  Shape shape;
  Int4Panel panel;
  int64_t x_stride, y_stride;
  Buffer<uint16_t> x, bias, y;
  Buffer<int8_t> codes, zeros;
  Buffer<float> scale;
  Buffer<uint8_t> weight;
  LinearW4A16 op{};

  explicit Problem(const Shape& s)
      : shape(s),
        panel{s.n, s.k, s.group, s.scale_dtype, s.zero_points},
        x_stride(round_up(s.k, 8)),
        y_stride(s.n + s.y_pad),
        x((s.m - 1) * x_stride + s.k),
        bias(s.n),
        y((s.m - 1) * y_stride + s.n),
        codes(s.n * s.k),
        zeros(s.n * panel.groups()),
        scale(s.n * panel.groups()),
        weight(panel.bytes()) {
    std::mt19937 random(static_cast<uint32_t>(settings().seed * 7919 + s.m * 31 + s.n * 7 + s.k));
    const auto uniform = [&] { return static_cast<float>(static_cast<int>(random() % 4001) - 2000) * 1e-3f; };
    for (size_t i = 0; i < x.count; ++i) store_f32(x.data, s.dtype, i, uniform());
    for (size_t i = 0; i < bias.count; ++i) store_f32(bias.data, s.dtype, i, uniform());
    for (size_t i = 0; i < codes.count; ++i) codes[i] = static_cast<int8_t>(static_cast<int>(random() % 16) - 8);
    for (size_t i = 0; i < zeros.count; ++i) zeros[i] = static_cast<int8_t>(static_cast<int>(random() % 16) - 8);
    for (size_t i = 0; i < scale.count; ++i)
      scale[i] = round_to(s.scale_dtype, static_cast<float>(random() % 1000 + 1) * 1e-4f);
    PackInt4 pack{};
    pack.codes = codes.data;
    pack.scale = scale.data;
    pack.zeros = s.zero_points ? zeros.data : nullptr;
    pack.weight = weight.data;
    pack.n = s.n;
    pack.k = s.k;
    pack.group_size = s.group;
    pack.scale_dtype = s.scale_dtype;
    reference::pack_int4(pack, Executor{});
    op.x = x.data;
    op.weight = weight.data;
    op.bias = s.bias ? bias.data : nullptr;
    op.y = y.data;
    op.m = s.m;
    op.n = s.n;
    op.k = s.k;
    op.x_stride = x_stride;
    op.y_stride = y_stride;
    op.group_size = s.group;
    op.zero_points = s.zero_points;
    op.x_dtype = s.dtype;
    op.scale_dtype = s.scale_dtype;
  }

  float input(int64_t row, int64_t k) const { return load_f32(x.data, shape.dtype, row * x_stride + k); }

  // The weights of an output, exact in float64.
  std::vector<double> weights(int64_t n) const {
    std::vector<double> w(shape.k);
    for (int64_t k = 0; k < shape.k; ++k) {
      const int64_t at = n * panel.groups() + k / shape.group;
      w[k] = static_cast<double>(scale[at]) * (codes[n * shape.k + k] - (shape.zero_points ? zeros[at] : 0));
    }
    return w;
  }

  void check_result(const std::string& how, int splits, bool rounds_weights = false) {
    const std::string what = how + " m " + std::to_string(shape.m) + " n " + std::to_string(shape.n) + " k " +
                             std::to_string(shape.k) + " group " + std::to_string(shape.group);
    const double u = shape.dtype == DType::bf16 ? 0x1p-8 : 0x1p-11;
    const double additions = static_cast<double>(shape.k + panel.groups() + splits + 1);
    for (int64_t n = 0; n < shape.n; ++n) {
      const std::vector<double> w = weights(n);
      for (int64_t m = 0; m < shape.m; ++m) {
        double want = shape.bias ? load_f32(bias.data, shape.dtype, n) : 0, magnitude = std::fabs(want), inputs = 0;
        for (int64_t k = 0; k < shape.k; ++k) {
          want += input(m, k) * w[k];
          magnitude += std::fabs(input(m, k) * w[k]);
          inputs += std::fabs(input(m, k));
        }
        const double in_sum = additions * 0x1p-23 * magnitude + (rounds_weights ? u * magnitude + 0x1p-25 * inputs : 0);
        const double got = load_f32(y.data, shape.dtype, m * y_stride + n);
        const double bound = in_sum + u * (std::fabs(want) + in_sum) + 0x1p-25;
        check(std::fabs(got - want) <= bound, what + ": row " + std::to_string(m) + " column " + std::to_string(n) +
                                                  " is " + std::to_string(got) + ", expected " + std::to_string(want) +
                                                  " +- " + std::to_string(bound));
      }
    }
    for (int64_t i = 0; i < static_cast<int64_t>(y.count); ++i)
      if (i % y_stride >= shape.n) check(y[i] == 0x5a5a, what + ": wrote between rows");
    std::memset(static_cast<void*>(y.data), 0x5a, y.count * 2);
  }
};

void by_plan(const Shape& shape, cuda::Plan plan) {
  Problem problem(shape);
  Buffer<uint8_t> workspace(cuda::partial_bytes(problem.op, plan));
  finish(cuda::run_w4(problem.op, plan, {card(), nullptr, workspace.data}));
  problem.check_result("tile " + std::to_string(plan.tile) + " splits " + std::to_string(plan.splits), plan.splits);
}

void by_registry(const Shape& shape) {
  Problem problem(shape);
  run_on_card(problem.op, "sm80");
  problem.check_result("sm80", 16);
}

constexpr DType kF16 = DType::f16, kBf16 = DType::bf16, kF32 = DType::f32;

// Every tile on rows a little less and a little more than it has, in both types, with and without splits.
PW_CASE(linear_w4a16_tiles) {
  const int64_t rows[] = {8, 16, 32, 64, 128};
  for (int tile = 0; tile < cuda::kW4Tiles; ++tile) {
    const DType dtype = (tile + settings().seed) % 2 ? kF16 : kBf16, other = dtype == kF16 ? kBf16 : kF16;
    by_plan({rows[tile] + 1, 67, 320, 64, dtype, kBf16, true, true, 5}, {tile, 1});
    if (settings().small && tile > 0) continue;
    by_plan({3, 130, 672, 32, other, kF16, true}, {tile, 3});
    if (settings().small) continue;
    by_plan({rows[tile] - 1, 264, 512, 128, other}, {tile, 2});
    by_plan({rows[tile], 64, 128, 128, dtype, kF32}, {tile, 1});
  }
}

PW_CASE(linear_w4a16_weights) {
  int turn = 0;
  for (int64_t group : {32, 64, 128, 384})
    for (DType scale : {kBf16, kF16, kF32})
      for (bool zero_points : {false, true}) {
        if (settings().small && turn++ % 5) continue;
        by_registry({3, 65, 384, group, (group / 32 + zero_points) % 2 ? kF16 : kBf16, scale, zero_points});
      }
}

PW_CASE(linear_w4a16_shapes) {
  by_registry({1, 257, 131, 131, kBf16, kF32, true, true, 7});
  if (settings().small) return;
  for (int64_t m : {1, 15, 17, 33, 127, 129}) by_registry({m, 96, 256, 128, m % 4 == 1 ? kF16 : kBf16});
  for (int64_t n : {1, 15, 63, 64, 65, 255, 257}) by_registry({5, n, 192, 64, kF16, kBf16, true, true, 8 - n % 8});
  for (int64_t k : {1, 7, 8, 9, 127, 129, 1027}) by_registry({9, 33, k, k, kBf16, kF32, k % 2 == 1});
  by_registry({1, 64, 4096, 128});  // K split over the card
}

// What torch stands for: float64 sums of the operands as they are, rounded once.
int plain_gemm(const HalfOperands& o, const CudaCall& call) {
#if !defined(PW_EMULATED)
  check_cuda(cudaStreamSynchronize(static_cast<cudaStream_t>(call.stream)));  // the operands are managed memory
#endif
  check(call.workspace == o.w, "the weight is not in the workspace");
  for (int64_t m = 0; m < o.m; ++m)
    for (int64_t n = 0; n < o.n; ++n) {
      double sum = o.bias ? load_f32(o.bias, o.dtype, n) : 0;
      for (int64_t k = 0; k < o.k; ++k)
        sum += static_cast<double>(load_f32(o.x, o.dtype, m * o.x_stride + k)) * load_f32(o.w, o.dtype, n * o.k + k);
      store_f32(o.y, o.dtype, m * o.y_stride + n, static_cast<float>(sum));
    }
  return 0;
}

PW_CASE(linear_w4a16_decoded) {
  const auto chosen = [](const Problem& problem, std::string* why) {
    Status status;
    const int i = choose_cuda(OpId::linear_w4a16, &problem.op, card(), "sm80_decoded", &status);
    *why = status.message;
    return i >= 0;
  };
  std::string why;
  check(!chosen(Problem({1024, 8, 32, 32}), &why) && why.find("needs torch's GEMM") != why.npos, why);
  set_half_gemm(plain_gemm);
  check(!chosen(Problem({511, 8, 32, 32}), &why) && why.find("rows of x on") != why.npos, why);
  Problem wide({1024, 8, 32, 32});
  wide.op.x_dtype = kF32;
  check(!chosen(wide, &why) && why.find("float16 and bfloat16") != why.npos, why);
  for (const Shape& shape :
       {Shape{1024, 67, 96, 32, kBf16, kF16, true, true, 5}, Shape{1025, 16, 131, 131, kF16, kF32}}) {
    Problem problem(shape);
    run_on_card(problem.op);
    check(std::strcmp(last_cuda_run(OpId::linear_w4a16), "sm80_decoded") == 0, "another implementation ran");
    problem.check_result("decoded", 1, true);
    settings().strict = true;  // few rows are none of its business, so that sm80 is the best for them
    run_on_card(Problem({1, 64, 128, 128}).op);
    settings().strict = false;
    if (settings().small) break;
  }
  set_half_gemm(nullptr);
}

PW_CASE(linear_w4a16_nan_stays_in_its_row) {
  Problem problem({4, 64, 256, 128});
  store_f32(problem.x.data, kBf16, 1 * problem.x_stride + 17, nan_f32());
  run_on_card(problem.op);
  for (int64_t i = 0; i < 4 * 64; ++i) {
    const float y = load_f32(problem.y.data, kBf16, i);
    check((y != y) == (i / 64 == 1), "row " + std::to_string(i / 64) + " is " + std::to_string(y));
  }
}

PW_CASE(linear_w4a16_refuses) {
  Problem problem({3, 64, 128, 128});
  Status status;
  problem.op.x_stride = 130;
  check(choose_cuda(OpId::linear_w4a16, &problem.op, card(), nullptr, &status) < 0, "rows 260 bytes apart are taken");
  check(std::strstr(status.message, "multiples of 16 bytes") != nullptr, status.message);
  problem.op.x_stride = 128;
  problem.op.x_dtype = kF32;
  check(choose_cuda(OpId::linear_w4a16, &problem.op, card(), nullptr, &status) < 0, "float32 is taken");
  check(std::strstr(status.message, "float16 and bfloat16") != nullptr, status.message);
}

}  // namespace
}  // namespace pennyweight::tests
