// SPDX-License-Identifier: Apache-2.0
// gemm_w8a8_sm90_test.cu: the GEMMs of Hopper against the reference, by every tile, and the plan that chooses one. In
// emulation plain loops stand for the kernels (gemm_w8a8_sm90_twin.cpp); on another card, or built without them, only
// the plan is tested.
#include "gemm_w8a8_sm90.h"

#include <algorithm>
#include <functional>
#include <set>
#include <utility>

#include "code_rows.h"
#include "harness.h"
#include "pennyweight/pack.h"
#include "pennyweight/quantize.h"
#include "reference/reference.h"

namespace pennyweight::tests {
namespace {

using cuda::Codes;
using cuda::kSm90ShapeCount;
using cuda::kSm90Shapes;
using cuda::Sm90Plan;
using cuda::Sm90Shape;
using cuda::Sums;

constexpr uint8_t kMark = 0x5a;  // what a Buffer is full of

bool has_sm90() { return card().compute == 90 && !cuda::sm90_left_out(); }

// ---- INT8 and FP8, as the tests see them

struct Int8 {
  using Gemm = GemmW8A8Int8;
  using Linear = LinearW8A8Int8;
  using Pack = PackInt8;
  using Quantize = QuantizePerTokenInt8;
  static constexpr Codes codes = Codes::int8;
  static constexpr auto panel_bytes = int8_panel_bytes;
  static void pack(const Pack& op) { reference::pack_int8(op, Executor{}); }
  static void gemm(const Gemm& op) { reference::gemm_w8a8_int8(op, Executor{}); }
  static void linear(const Linear& op) { reference::linear_w8a8_int8(op, Executor{}); }
  static void quantize(const Quantize& op) { reference::quantize_per_token_int8(op, Executor{}); }
  static uint8_t random_code(uint32_t random) { return static_cast<uint8_t>(random); }
};
struct Fp8 {
  using Gemm = GemmW8A8Fp8;
  using Linear = LinearW8A8Fp8;
  using Pack = PackFp8;
  using Quantize = QuantizePerTokenFp8;
  static constexpr Codes codes = Codes::e4m3;
  static constexpr auto panel_bytes = fp8_panel_bytes;
  static void pack(const Pack& op) { reference::pack_fp8(op, Executor{}); }
  static void gemm(const Gemm& op) { reference::gemm_w8a8_fp8(op, Executor{}); }
  static void linear(const Linear& op) { reference::linear_w8a8_fp8(op, Executor{}); }
  static void quantize(const Quantize& op) { reference::quantize_per_token_fp8(op, Executor{}); }
  // -2, -1, 0, 1, 2: for K <= 2048 no sum exceeds 8192, so that a tensor core's 14 bits hold every sum of products
  // without loss, in any order: the same bits as a CPU's, fast accumulation or not.
  static uint8_t random_code(uint32_t random) { return f32_e4m3(static_cast<float>(random % 5) - 2.0f); }
};

// ---- a problem, its operands and what the reference says

struct Shape {
  int64_t m, n, k;
  DType dtype = DType::bf16;
  bool bias = true;
  int64_t y_pad = 0;  // between rows of y, beyond the next multiple of 8
};

template <class Kind>
struct Problem {
  Shape shape;
  int64_t x_stride, y_stride;
  Buffer<uint8_t> x, w, weight;  // codes: of x, with noise between rows; (n, k) as in a checkpoint; as CODE_ROWS
  Buffer<float> row_scale, col_scale;
  Buffer<uint8_t> bias, y, expected;
  typename Kind::Gemm op{};

  explicit Problem(const Shape& s)
      : shape(s),
        x_stride(code_row_bytes(s.k) + 16 * (s.k % 3)),
        y_stride(round_up(s.n, 8) + s.y_pad),
        x((s.m - 1) * x_stride + s.k),
        w(s.n * s.k),
        weight(code_rows_bytes(s.n, s.k)),
        row_scale(s.m),
        col_scale(s.n),
        bias(2 * s.n),
        y(((s.m - 1) * y_stride + s.n) * 2),
        expected(y.count) {
    std::mt19937 random(static_cast<uint32_t>(settings().seed * 7919 + s.m * 31 + s.n * 7 + s.k));
    for (size_t i = 0; i < x.count; ++i) x[i] = Kind::random_code(random());
    for (size_t i = 0; i < w.count; ++i) w[i] = Kind::random_code(random());
    for (size_t i = 0; i < row_scale.count; ++i) row_scale[i] = static_cast<float>(random() % 1000 + 1) * 1e-4f;
    for (size_t i = 0; i < col_scale.count; ++i) col_scale[i] = static_cast<float>(random() % 1000 + 1) * 1e-4f;
    for (int64_t i = 0; i < s.n; ++i) store_f32(bias.data, s.dtype, i, static_cast<float>(random() % 2001) - 1000);
    lay_out_weight();
    op.codes = x.data;
    op.weight = weight.data;
    op.row_scale = row_scale.data;
    op.col_scale = col_scale.data;
    op.bias = s.bias ? bias.data : nullptr;
    op.y = y.data;
    op.m = s.m;
    op.n = s.n;
    op.k = s.k;
    op.codes_stride = x_stride;
    op.y_stride = y_stride;
    op.y_dtype = s.dtype;
    op.fast_accum = 1;
  }

  void lay_out_weight() { write_code_rows(w.data, shape.n, shape.k, weight); }

  // The weight as the reference reads it.
  void with_panels(const std::function<void(const void*)>& use) {
    Buffer<uint8_t> panels(Kind::panel_bytes(shape.n, shape.k));
    typename Kind::Pack pack{};
    pack.codes = w.data;
    pack.weight = panels.data;
    pack.n = shape.n;
    pack.k = shape.k;
    Kind::pack(pack);
    use(panels.data);
  }

  void expect() {
    with_panels([&](const void* panels) {
      typename Kind::Gemm reference = op;
      reference.weight = panels;
      reference.y = expected.data;
      Kind::gemm(reference);
    });
  }

  void check_result(const std::string& how) {
    const std::string what = how + " m " + std::to_string(shape.m) + " n " + std::to_string(shape.n) + " k " +
                             std::to_string(shape.k) + " dtype " + std::to_string(static_cast<int>(shape.dtype));
    check_same(y.data, expected.data, y.count, y_stride * 2, what);  // what lies between rows included
    std::memset(y.data, kMark, y.count);
  }
};

// Elsewhere the cases below have nothing to run; where they have, they must.
PW_CASE(gemm_w8a8_sm90_is_in_a_build_for_hopper) {
  if (card().compute == 90 && cuda::sm90_left_out()) check(false, cuda::sm90_left_out());
}

template <class Kind>
void by_shape(const Shape& shape, int index) {
  Problem<Kind> problem(shape);
  problem.expect();
  const Sm90Shape& tile = kSm90Shapes[index];
  const Sm90Plan plan{index, cuda::band_of(tile, shape.m, shape.n)};
  finish(cuda::run_sm90(problem.op, plan, {card(), nullptr, nullptr}));
  problem.check_result(tile.name);
}

template <class Kind>
void by_registry(const Shape& shape) {
  Problem<Kind> problem(shape);
  problem.expect();
  run_on_card(problem.op, "sm90");
  problem.check_result("sm90");
}

// Every tile on problems that are a little less and a little more than it, and on whole bands of it.
template <class Kind>
void every_tile() {
  if (!has_sm90()) return;
  for (int i = 0; i < kSm90ShapeCount; ++i) {
    const Sm90Shape& tile = kSm90Shapes[i];
    if (tile.codes != Kind::codes) continue;
    const bool outputs = tile.rows == cuda::Rows::outputs;
    const int64_t m = outputs ? tile.bn : tile.bm, n = outputs ? tile.bm : tile.bn;
    const DType dtype = (i + settings().seed) % 2 ? DType::f16 : DType::bf16;
    by_shape<Kind>({m + 1, n + 3, tile.bk + 17, dtype, true, 8}, i);
    if (settings().small) continue;
    by_shape<Kind>({m - 1, n - 1, tile.bk - 1, dtype, false}, i);
    by_shape<Kind>({m, n, tile.bk, dtype == DType::f16 ? DType::bf16 : DType::f16}, i);
    by_shape<Kind>({1, 1, 1, dtype}, i);
    by_shape<Kind>({2 * m, 2 * n, 150, dtype}, i);
#if !defined(PW_EMULATED)
    by_shape<Kind>({2 * m + 9, 3 * n, 530, dtype}, i);
    by_shape<Kind>({16 * m, 16 * n, 2048, dtype}, i);  // bands of 8, more tiles than multiprocessors
    by_shape<Kind>({9 * m + 5, 17 * n + 5, 1040, dtype}, i);
#endif
  }
}
PW_CASE(gemm_w8a8_int8_sm90_tiles) { every_tile<Int8>(); }
PW_CASE(gemm_w8a8_fp8_sm90_tiles) { every_tile<Fp8>(); }

template <class Kind>
void shapes() {
  if (!has_sm90()) return;
  by_registry<Kind>({1, 130, 67});
  by_registry<Kind>({17, 15, 1, DType::f16});
  if (settings().small) return;
  for (int64_t m : {1, 15, 17, 33, 127, 129, 257})
    by_registry<Kind>({m, 96 + m, 240, DType::bf16, m % 2 == 1, 8 * (m % 2)});
  for (int64_t n : {1, 15, 17, 127, 128, 129, 255, 257}) by_registry<Kind>({33, n, 129, DType::f16});
  for (int64_t k : {1, 15, 16, 17, 127, 128, 129, 255, 257, 600}) by_registry<Kind>({65, 70, k});
}
PW_CASE(gemm_w8a8_int8_sm90_shapes) { shapes<Int8>(); }
PW_CASE(gemm_w8a8_fp8_sm90_shapes) { shapes<Fp8>(); }

PW_CASE(gemm_w8a8_int8_sm90_sums_do_not_saturate) {
  if (!has_sm90()) return;
  const int64_t k = settings().small ? 512 : 20000;
  Problem<Int8> problem({2, 64, k, DType::bf16, false});
  std::memset(problem.x.data, 0x80, problem.x.count);
  std::memset(problem.w.data, 0x80, problem.w.count);
  problem.lay_out_weight();
  problem.expect();
  run_on_card(problem.op, "sm90");
  problem.check_result("sums of -128 * -128");
}

// ---- FP8 codes of every size, where sums are rounded

// How far a tensor core's sum of row . column may be from the exact one. Of 32 products and the sum so far it keeps
// what is not below 2^-13 of the largest of them, cutting the rest off: each of the 33 loses less than 2^-13 of r, the
// largest product plus the largest partial sum. Over s such steps that is s * 33 * 2^-13 * (r + error), hence c r / (1
// - c). In float32 registers each 128 inputs are a sum of their own, added up with one rounding each.
double sum_error(const std::vector<double>& products, bool fast) {
  const size_t run = fast ? products.size() : 128;
  double error = 0, total = 0, largest_total = 0;
  for (size_t begin = 0; begin < products.size(); begin += run) {
    const size_t end = std::min(begin + run, products.size());
    double partial = 0, product = 0, largest = 0;
    for (size_t i = begin; i < end; ++i) {
      partial += products[i];
      product = std::max(product, std::fabs(products[i]));
      largest = std::max(largest, std::fabs(partial));
    }
    const double c = double((end - begin + 31) / 32) * 33 * 0x1p-13;
    error += c * (largest + product) / (1 - c);
    total += partial;
    largest_total = std::max(largest_total, std::fabs(total));
    error += 0x1p-24 * (largest_total + error);
  }
  return error;
}

// y of the problem against sums in float64.
void check_sums(Problem<Fp8>& problem, const std::string& what) {
  const Shape& s = problem.shape;
  const double unit = s.dtype == DType::bf16 ? 0x1p-8 : 0x1p-11;
  for (int64_t m = 0; m < s.m; ++m)
    for (int64_t n = 0; n < s.n; ++n) {
      std::vector<double> products(s.k);
      double sum = 0;
      for (int64_t k = 0; k < s.k; ++k) {
        products[k] = double(e4m3_f32(problem.x[m * problem.x_stride + k])) * double(e4m3_f32(problem.w[n * s.k + k]));
        sum += products[k];
      }
      const double scale = double(problem.op.row_scale[m]) * double(problem.op.col_scale[n]);
      const double bias = problem.op.bias ? double(load_f32(problem.op.bias, s.dtype, n)) : 0.0;
      const double exact = sum * scale + bias;
      const double before = sum_error(products, problem.op.fast_accum) * scale;
      // two products and a sum in float32, then one rounding to y's dtype (half of 2^-24 where f16 is subnormal)
      const double after = 3 * 0x1p-24 * (std::fabs(sum * scale) + std::fabs(bias) + before);
      const double bound = (before + after) * (1 + unit) + unit * std::fabs(exact) + 0x1p-25;
      const double got = load_f32(problem.y.data, s.dtype, m * problem.y_stride + n);
      if (std::fabs(got - exact) <= bound) continue;  // NaN fails
      check(false, what + ": row " + std::to_string(m) + ", column " + std::to_string(n) + ": " + std::to_string(got) +
                       ", expected " + std::to_string(exact) + " +- " + std::to_string(bound));
      return;
    }
}

// Any code but NaN.
void randomize(Buffer<uint8_t>& codes, uint32_t seed) {
  std::mt19937 random(seed);
  for (size_t i = 0; i < codes.count; ++i) {
    codes[i] = static_cast<uint8_t>(random());
    if ((codes[i] & 0x7f) == 0x7f) codes[i] ^= 1;
  }
}

PW_CASE(gemm_w8a8_fp8_sm90_rounds_sums_within_its_bound) {
  if (!has_sm90()) return;
  for (const Shape& shape : {Shape{3, 70, 530}, Shape{70, 130, 300, DType::f16}, Shape{130, 40, 700}})
    for (int64_t fast : {1, 0}) {
      Problem<Fp8> problem(shape);
      randomize(problem.x, static_cast<uint32_t>(settings().seed + shape.m));
      randomize(problem.w, static_cast<uint32_t>(settings().seed + shape.n));
      problem.lay_out_weight();
      problem.op.fast_accum = fast;
      run_on_card(problem.op, "sm90");
      check_sums(problem, fast ? "fast sums" : "sums in float32");
      if (settings().small) return;
    }
}

// ---- quantization and GEMM in one call

template <class Kind>
void check_linear(int64_t m, int64_t n, int64_t k, DType dtype, bool smooth, bool fast) {
  if (!has_sm90()) return;
  Problem<Kind> problem({m, n, k, dtype});
  Buffer<uint16_t> x(m * k);
  Buffer<float> divisor(k);
  std::mt19937 random(static_cast<uint32_t>(settings().seed + m + n + k));
  for (int64_t i = 0; i < m * k; ++i) store_f32(x.data, dtype, i, static_cast<float>(random() % 2001) * 1e-3f - 1.0f);
  for (int64_t i = 0; i < k; ++i) divisor[i] = static_cast<float>(random() % 100 + 1) * 0.02f;
  typename Kind::Linear op{};
  op.x = x.data;
  op.smooth = smooth ? divisor.data : nullptr;
  op.weight = problem.weight.data;
  op.col_scale = problem.col_scale.data;
  op.bias = problem.bias.data;
  op.m = m;
  op.n = n;
  op.k = op.x_stride = k;
  op.y_stride = problem.y_stride;
  op.x_dtype = dtype;
  op.fast_accum = fast;
  op.y = problem.y.data;
  run_on_card(op, "sm90");
  if constexpr (Kind::codes == Codes::int8) {
    problem.with_panels([&](const void* panels) {
      typename Kind::Linear reference = op;
      reference.weight = panels;
      reference.y = problem.expected.data;
      Kind::linear(reference);
    });
    problem.check_result("linear");
  } else {
    // the reference's codes and row scales, then the bound of their sums
    Buffer<uint8_t> codes(m * k);
    typename Kind::Quantize quantize{};
    quantize.x = x.data;
    quantize.smooth = op.smooth;
    quantize.codes = codes.data;
    quantize.scale = problem.row_scale.data;
    quantize.m = m;
    quantize.k = quantize.x_stride = k;
    quantize.x_dtype = dtype;
    Kind::quantize(quantize);
    for (int64_t row = 0; row < m; ++row) std::memcpy(&problem.x[row * problem.x_stride], &codes[row * k], k);
    problem.op.fast_accum = fast;
    check_sums(problem, "linear m " + std::to_string(m) + " n " + std::to_string(n) + " k " + std::to_string(k));
  }
}

template <class Kind>
void linears() {
  check_linear<Kind>(3, 70, 64, DType::bf16, true, true);
  check_linear<Kind>(1, 65, 67, DType::f16, false, true);
  check_linear<Kind>(5, 70, 100, DType::bf16, false, false);  // rows of codes are padded to 112
  if (settings().small) return;
  check_linear<Kind>(65, 200, 171, DType::f16, true, true);
  check_linear<Kind>(2, 64, 700, DType::bf16, false, true);
}
PW_CASE(linear_w8a8_int8_sm90_is_quantization_and_gemm) { linears<Int8>(); }
PW_CASE(linear_w8a8_fp8_sm90_is_quantization_and_gemm) { linears<Fp8>(); }

// ---- what is refused

void check_refused(const GemmW8A8Fp8& op, const Card& where, const std::string& words) {
  const char* why = cuda::why_not_sm90(op, where);
  check(why && std::strstr(why, words.c_str()), std::string("expected '") + words + "', got " + (why ? why : "none"));
}

PW_CASE(gemm_w8a8_sm90_refuses) {
  Problem<Fp8> problem({3, 64, 40});
  Card hopper{90, 132, 227 << 10};
  check_refused(problem.op, {80, 108, 163 << 10}, "needs compute capability 9.0");
  check_refused(problem.op, {100, 148, 227 << 10}, "needs compute capability 9.0");
  if (const char* why = cuda::sm90_left_out()) return check_refused(problem.op, hopper, why);
  const auto changed = [&](auto change) {
    GemmW8A8Fp8 op = problem.op;
    change(op);
    return op;
  };
  check(!cuda::why_not_sm90(problem.op, hopper), "an aligned problem is refused");
  check_refused(changed([](auto& op) { op.y_dtype = DType::f32; }), hopper, "outputs of 16 bits only");
  check_refused(changed([](auto& op) { op.y_dtype = DType::i32; }), hopper, "outputs of 16 bits only");
  check_refused(changed([](auto& op) { op.codes_stride = 40; }), hopper, "rows of codes");
  check_refused(changed([](auto& op) { op.weight = static_cast<const char*>(op.weight) + 8; }), hopper,
                "a weight that");
  check_refused(changed([](auto& op) { op.y = static_cast<char*>(op.y) + 2; }), hopper, "rows of y");
  check_refused(changed([](auto& op) { op.y_stride = 70; }), hopper, "N a multiple of 8");
  check_refused(changed([](auto& op) { op.k = int64_t{1} << 31; }), hopper, "less than 2^31");
  check_refused(changed([](auto& op) { op.m = op.n = int64_t{1} << 30; }), hopper, "more tiles");
  check(!cuda::why_not_sm90(changed([](auto& op) { op.m = 1 << 20, op.n = op.y_stride = 128256; }), hopper),
        "many tiles");
  // of a single row only the beginning counts
  check(!cuda::why_not_sm90(changed([](auto& op) { op.m = 1, op.codes_stride = op.y_stride = 67; }), hopper),
        "one row");
}

// On Hopper, what its kernel does not take is refused under PENNYWEIGHT_STRICT; on a card that it is not made for it is
// no better choice that has been missed.
PW_CASE(gemm_w8a8_int8_sm90_is_the_best_on_hopper_alone) {
  Problem<Int8> problem({3, 64, 64, DType::bf16});
  GemmW8A8Int8 bare = problem.op;
  bare.y_dtype = DType::i32;
  bare.row_scale = bare.col_scale = nullptr;
  bare.bias = nullptr;
  const Card hopper{90, 132, 227 << 10}, ampere{80, 108, 163 << 10}, later{100, 148, 227 << 10};
  settings().strict = true;
  Status status;
  check(choose_cuda(bare.id, &bare, hopper, nullptr, &status) < 0, "bare sums run in spite of PENNYWEIGHT_STRICT");
  check(std::strstr(status.message, "PENNYWEIGHT_STRICT"), status.message);
  check(choose_cuda(bare.id, &bare, ampere, nullptr, &status) >= 0, "sm_80 is refused its best");
  check(choose_cuda(bare.id, &bare, later, nullptr, &status) >= 0, "sm_100 is refused its best");
  settings().strict = false;
  check(choose_cuda(bare.id, &bare, hopper, nullptr, &status) >= 0, "bare sums do not run");
}

PW_CASE(gemm_w8a8_sm90_takes_no_rows) {
  if (!has_sm90()) return;
  Problem<Fp8> problem({1, 64, 40});
  problem.op.m = 0;
  run_on_card(problem.op, "sm90");
  LinearW8A8Fp8 linear{};
  linear.n = linear.k = linear.x_stride = linear.y_stride = 64;
  linear.x_dtype = DType::bf16;
  run_on_card(linear, "sm90");
}

// ---- the plan

const Sm90Shape& planned(Codes codes, Sums sums, int64_t m, int64_t n, int64_t k) {
  return kSm90Shapes[cuda::plan_sm90(codes, sums, m, n, k, 132).shape];
}

PW_CASE(gemm_w8a8_sm90_plan_is_of_the_right_kind) {
  for (int64_t m : {1, 16, 17, 64, 65, 128, 300, 4096, 100000})
    for (int64_t n : {1, 64, 1000, 4096, 28672})
      for (int64_t k : {1, 128, 4096, 28672})
        for (int multiprocessors : {1, 3, 114, 132})
          for (const auto& [codes, sums] : {std::pair{Codes::e4m3, Sums::fast}, std::pair{Codes::e4m3, Sums::exact},
                                            std::pair{Codes::int8, Sums::exact}}) {
            const Sm90Plan plan = cuda::plan_sm90(codes, sums, m, n, k, multiprocessors);
            check(plan.shape >= 0 && kSm90Shapes[plan.shape].codes == codes && kSm90Shapes[plan.shape].sums == sums,
                  "m " + std::to_string(m) + " n " + std::to_string(n) + ": no tile, or one of another kind");
          }
}

PW_CASE(gemm_w8a8_sm90_plan_follows_the_problem) {
  for (const auto& [codes, sums] : {std::pair{Codes::e4m3, Sums::fast}, std::pair{Codes::int8, Sums::exact}}) {
    // few tokens: the narrowest tile that has all of them as its columns
    for (int64_t m = 1; m <= 64; ++m) {
      const Sm90Shape& shape = planned(codes, sums, m, 8192, 8192);
      check(shape.rows == cuda::Rows::outputs && shape.bn == (m <= 16   ? 16
                                                              : m <= 32 ? 32
                                                                        : 64),
            "m " + std::to_string(m) + " gets " + shape.name);
    }
    const int areas[][2] = {{128, 64 * 128}, {256, 128 * 128}, {512, 128 * 256}, {8192, 128 * 256}};
    for (const auto& [m, area] : areas) {
      const Sm90Shape& shape = planned(codes, sums, m, 8192, 8192);
      check(shape.bm * shape.bn == area, "m " + std::to_string(m) + " gets " + shape.name);
    }
  }
}

// A row more never makes a problem faster, nor more than 1.8 times slower: where one tile stops to fit, the next does
// it with less than a whole round more.
PW_CASE(gemm_w8a8_sm90_plan_has_no_cliffs) {
  for (const auto& [n, k] : {std::pair{8192, 8192}, std::pair{4096, 14336}, std::pair{28672, 4096}}) {
    double before = 0;
    for (int64_t m = 1; m <= 1500; ++m) {
      const double now = planned(Codes::e4m3, Sums::fast, m, n, k).cycles(m, n, k, 132);
      check(
          before == 0 || (now >= before && now <= 1.8 * before),
          "m " + std::to_string(m) + " n " + std::to_string(n) + ": " + std::to_string(now / before) + " times m - 1");
      before = now;
    }
  }
}

PW_CASE(gemm_w8a8_sm90_plan_needs_every_tile) {
  std::set<int> chosen;
  for (int64_t m = 1; m < 10000; m += 1 + m / 16)
    for (int64_t n = 64; n < 30000; n += 64 * 11)
      for (const auto& [codes, sums] : {std::pair{Codes::e4m3, Sums::fast}, std::pair{Codes::e4m3, Sums::exact},
                                        std::pair{Codes::int8, Sums::exact}})
        chosen.insert(cuda::plan_sm90(codes, sums, m, n, 4096, 132).shape);
  for (int i = 0; i < kSm90ShapeCount; ++i)
    check(chosen.count(i), std::string(kSm90Shapes[i].name) + " is never chosen");
}

PW_CASE(gemm_w8a8_sm90_bands_add_no_tiles) {
  for (int i = 0; i < kSm90ShapeCount; ++i)
    for (int64_t m : {1, 100, 1024, 8192})
      for (int64_t n : {64, 1000, 8192}) {
        const Sm90Shape& shape = kSm90Shapes[i];
        const bool outputs = shape.rows == cuda::Rows::outputs;
        const int64_t rows = outputs ? n : m, columns = outputs ? m : n, band = cuda::band_of(shape, m, n);
        const int64_t down = round_up((rows + shape.bm - 1) / shape.bm, band * shape.down());
        const int64_t across = round_up((columns + shape.bn - 1) / shape.bn, band * shape.beside());
        check(down * across == shape.tiles(m, n), std::string(shape.name) + ": a band of " + std::to_string(band));
        check(m < 8192 || n < 8192 || band == 8, std::string(shape.name) + ": a narrow band");
      }
}

}  // namespace
}  // namespace pennyweight::tests
