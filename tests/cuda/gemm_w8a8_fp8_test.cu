// SPDX-License-Identifier: Apache-2.0
// gemm_w8a8_fp8_test.cu: FP8 GEMMs and layers: codes by the FP8 tensor core ("sm89"), codes decoded to f16 ("sm80"),
// and activations of 16 bits ("sm80_w8a16"), by every tile and split.
//
// Codes of small integers, whose sums every kernel and every card has exactly, are compared with the reference bit for
// bit: that shows every misplaced operand. Codes of all sizes are compared with sums in float64:
// - Products of codes are exact in float32. Emulated, and on 16-bit tensor cores, which may cut off where they add,
// each
//   of K additions and one per split errs by at most 2^-23 of the sum of all |x w|.
// - An FP8 mma of a card aligns c and 32 products to the largest of them and cuts off behind 13 bits: each mma errs by
//   33 * 2^-13 of the largest product or partial sum that it sees (ptx/matrix.cuh). Partial sums begin anew where K is
//   split, and every 128 inputs where the tile is exact: none is larger than twice the largest prefix of the run.
// - Then two multiplications and the bias, each 2^-24 of its result, and one rounding to y's type.
#include <functional>

#include "code_rows.h"
#include "gemm_w8a8_tiles.h"
#include "linear_w8a16_tiles.h"
#include "pennyweight/pack.h"
#include "pennyweight/quantize.h"
#include "reference/reference.h"

namespace pennyweight::tests {
namespace {

constexpr DType kF16 = DType::f16, kBf16 = DType::bf16, kF32 = DType::f32;
constexpr uint8_t kMark = 0x5a;  // what a Buffer is full of

enum class Values { whole, any };  // integers -4 .. 4, or every finite code

struct Shape {
  int64_t m, n, k;
  DType dtype = kBf16;
  bool bias = true;
  Values values = Values::whole;
  int64_t y_pad = 0;  // between rows of y
};

std::string name_of(const Shape& s) {
  return " m " + std::to_string(s.m) + " n " + std::to_string(s.n) + " k " + std::to_string(s.k) + " dtype " +
         std::to_string(static_cast<int>(s.dtype)) + (s.values == Values::any ? " any" : " whole");
}

uint8_t code(uint32_t bits, Values values) {
  if (values == Values::whole) return f32_e4m3(static_cast<float>(static_cast<int>(bits % 9) - 4));
  return (bits & 0x7f) == 0x7f ? 0 : static_cast<uint8_t>(bits);
}

// What of the sums a kernel may lose (see above): products in order of k.
double bound_of_sum(const std::vector<double>& products, int splits, bool fp8_tensor_core, bool exact) {
  double all = 0, total = 0;
  for (double p : products) all += std::fabs(p);
#if defined(PW_EMULATED)
  fp8_tensor_core = false;
#endif
  if (!fp8_tensor_core) return static_cast<double>(products.size() + splits) * 0x1p-23 * all;
  const size_t run = exact ? cuda::kExactInputs : products.size();
  for (size_t first = 0; first < products.size(); first += run) {
    double prefix = 0, largest = 0;
    size_t k = first;
    for (; k < first + run && k < products.size(); ++k) {
      prefix += products[k];
      largest = std::max({largest, std::fabs(products[k]), 2 * std::fabs(prefix)});
    }
    total += static_cast<double>((k - first + 31) / 32 + 1) * 33 * 0x1p-13 * largest;
  }
  return total + static_cast<double>(products.size() + splits) * 0x1p-24 * all;
}

// An operand pair as the card has it, what y must be, and how it is compared.
struct Problem {
  Shape shape;
  int64_t x_stride, y_stride;
  Buffer<uint8_t> codes, w, weight, panels;
  Buffer<float> row_scale, col_scale, bias;
  Buffer<uint8_t> y, expected;
  GemmW8A8Fp8 op{};

  explicit Problem(const Shape& s)
      : shape(s),
        x_stride(round_up(s.k, 16)),
        y_stride(s.n + s.y_pad),
        codes((s.m - 1) * x_stride + s.k),
        w(s.n * s.k),
        weight(code_rows_bytes(s.n, s.k)),
        panels(fp8_panel_bytes(s.n, s.k)),
        row_scale(s.m),
        col_scale(s.n),
        bias(s.n),
        y(((s.m - 1) * y_stride + s.n) * dtype_bytes(s.dtype)),
        expected(y.count) {
    std::mt19937 random(static_cast<uint32_t>(settings().seed * 7919 + s.m * 31 + s.n * 7 + s.k));
    for (size_t i = 0; i < codes.count; ++i) codes[i] = code(random(), s.values);
    for (size_t i = 0; i < w.count; ++i) w[i] = code(random(), s.values);
    for (size_t i = 0; i < row_scale.count; ++i) row_scale[i] = static_cast<float>(random() % 1000 + 1) * 1e-5f;
    for (size_t i = 0; i < col_scale.count; ++i) col_scale[i] = static_cast<float>(random() % 1000 + 1) * 1e-4f;
    for (int64_t i = 0; i < s.n; ++i)
      store_f32(bias.data, s.dtype, i, (static_cast<float>(random() % 2001) - 1000) * 1e-3f);
    op.codes = codes.data;
    op.row_scale = row_scale.data;
    op.weight = weight.data;
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
    pack();
  }

  void pack() {
    PackFp8 op_pack{};
    op_pack.codes = w.data;
    op_pack.weight = panels.data;
    op_pack.n = shape.n;
    op_pack.k = shape.k;
    reference::pack_fp8(op_pack, Executor{});
    write_code_rows(w.data, shape.n, shape.k, weight);
  }

  void check_bits(const std::string& how) {
    GemmW8A8Fp8 on_cpu = op;
    on_cpu.weight = panels.data;
    on_cpu.y = expected.data;
    reference::gemm_w8a8_fp8(on_cpu, Executor{});
    // what lies between rows included
    check_same(y.data, expected.data, y.count, y_stride * dtype_bytes(shape.dtype), how + name_of(shape));
  }

  // x: its value at (row, k), and the factor of a row.
  void check_sums(const std::string& how, int splits, bool fp8_tensor_core, bool exact,
                  const std::function<double(int64_t, int64_t)>& x, const std::function<double(int64_t)>& factor) {
    const double u = shape.dtype == kF32 ? 0x1p-24 : shape.dtype == kBf16 ? 0x1p-8 : 0x1p-11;
    std::vector<double> products(shape.k);
    for (int64_t n = 0; n < shape.n; ++n)
      for (int64_t m = 0; m < shape.m; ++m) {
        double sum = 0;
        for (int64_t k = 0; k < shape.k; ++k) sum += products[k] = x(m, k) * e4m3_f32(w[n * shape.k + k]);
        const double by = factor(m) * col_scale[n], add = shape.bias ? load_f32(bias.data, shape.dtype, n) : 0;
        const double want = sum * by + add, got = load_f32(y.data, shape.dtype, m * y_stride + n);
        const double in_sum = bound_of_sum(products, splits, fp8_tensor_core, exact) * std::fabs(by);
        const double before = in_sum + 3 * 0x1p-24 * (std::fabs(sum * by) + std::fabs(add) + in_sum);
        const double bound = before + u * (std::fabs(want) + before) + 0x1p-25;
        check(std::fabs(got - want) <= bound, how + name_of(shape) + ": row " + std::to_string(m) + " column " +
                                                  std::to_string(n) + " is " + std::to_string(got) + ", expected " +
                                                  std::to_string(want) + " +- " + std::to_string(bound));
      }
  }

  void check_result(const std::string& how, int splits, bool fp8_tensor_core, bool exact) {
    if (shape.values == Values::whole)
      check_bits(how);
    else
      check_sums(
          how, splits, fp8_tensor_core, exact, [&](int64_t m, int64_t k) { return e4m3_f32(codes[m * x_stride + k]); },
          [&](int64_t m) { return row_scale[m]; });
    std::memset(y.data, kMark, y.count);
  }
};

bool has_fp8() { return card().compute >= 89; }

void by_plan(const Shape& shape, cuda::Plan plan) {
  Problem problem(shape);
  const bool exact = plan.tile == 0 || plan.tile == 2 || plan.tile == 4;
  Buffer<uint8_t> workspace(cuda::partial_bytes(problem.op, plan));
  finish(cuda::run_w8a8(cuda::Codes::e4m3, problem.op, plan, {card(), nullptr, workspace.data}));
  problem.check_result("tile " + std::to_string(plan.tile) + " splits " + std::to_string(plan.splits), plan.splits,
                       true, exact);
}

void by_registry(const Shape& shape, bool fast_accum = true) {
  for (const char* name : {"sm89", "sm80"}) {
    if (name[3] == '9' && !has_fp8()) continue;
    Problem problem(shape);
    problem.op.fast_accum = fast_accum;
    run_on_card(problem.op, name);
    check(std::strcmp(last_cuda_run(OpId::gemm_w8a8_fp8), name) == 0, std::string(name) + " did not run");
    problem.check_result(name, 16, name[3] == '9', !fast_accum);
  }
}

// Every tile on shapes that are a little less and a little more than it, in every dtype, with and without splits.
PW_CASE(gemm_w8a8_fp8_tiles) {
  if (!has_fp8()) return;
  const int64_t rows[] = {16, 64, 64, 128, 128};
  const DType dtypes[] = {kBf16, kF16, kF32};
  for (int tile = 0; tile < cuda::kE4m3Tiles; ++tile) {
    if (tile == 3 && card().compute == 90) continue;  // is empty there
    const DType dtype = dtypes[(tile + settings().seed) % 3], other = dtypes[(tile + settings().seed + 1) % 3];
    by_plan({rows[tile] + 1, 131, 170, dtype, true, Values::whole, 5}, {tile, 1});  // an odd number of k tiles
    by_plan({3, 33, 330, other, true, Values::any}, {tile, 1});
    if (settings().small && tile > 0) continue;
    by_plan({3, 65, 1100, other, false, Values::whole, 3}, {tile, 3});
    if (settings().small) continue;
    by_plan({rows[tile] - 1, 264, 530, other}, {tile, 2});
    by_plan({rows[tile], 128, 128, dtype}, {tile, 1});
    by_plan({5, 70, 1100, dtype, true, Values::any}, {tile, 2});
  }
}

PW_CASE(gemm_w8a8_fp8_shapes) {
  by_registry({1, 130, 67});
  by_registry({17, 15, 1, kF16}, false);
  by_registry({2, 40, 300, kF32, true, Values::any}, false);
  if (settings().small) return;
  for (int64_t m : {1, 15, 17, 33, 127, 129})
    by_registry({m, 96 + m, 240, kBf16, m % 2 == 1, Values::whole, 8 - m % 8}, m % 4 == 1);
  for (int64_t n : {1, 15, 63, 64, 65, 255, 257}) by_registry({33, n, 129, kF16, true, Values::any}, n % 2 == 1);
  for (int64_t k : {1, 3, 63, 64, 65, 127, 129, 600}) by_registry({5, 70, k, kF32}, k % 4 == 1);
  by_registry({129, 136, 240, kF16}, false);
  by_registry({257, 520, 64, kF32});
  by_registry({1, 64, 4096, kBf16});  // K split over the card
}

// Each code once as a weight and once as an activation, beside ones.
PW_CASE(gemm_w8a8_fp8_codes_are_their_values) {
  for (const char* name : {"sm89", "sm80"}) {
    if (name[3] == '9' && !has_fp8()) continue;
    for (bool in_weight : {true, false}) {
      Problem problem({in_weight ? 3 : 256, in_weight ? 256 : 3, 16, kF32, false});
      Buffer<uint8_t>&single = in_weight ? problem.w : problem.codes, &ones = in_weight ? problem.codes : problem.w;
      std::memset(single.data, 0, single.count);
      std::memset(ones.data, f32_e4m3(1.0f), ones.count);
      for (int i = 0; i < 256; ++i) single[i * 16 + i % 16] = static_cast<uint8_t>(i);
      for (size_t i = 0; i < problem.row_scale.count; ++i) problem.row_scale[i] = 1.0f;
      for (size_t i = 0; i < problem.col_scale.count; ++i) problem.col_scale[i] = 1.0f;
      problem.pack();
      run_on_card(problem.op, name);
      for (int64_t m = 0; m < problem.shape.m; ++m)
        for (int64_t n = 0; n < problem.shape.n; ++n) {
          const float want = e4m3_f32(static_cast<uint8_t>(in_weight ? n : m));
          const float got = load_f32(problem.y.data, kF32, m * problem.shape.n + n);
          check(got == want || (got != got && want != want),
                std::string(name) + ": code " + std::to_string(in_weight ? n : m) + " is " + std::to_string(got));
        }
    }
  }
}

// NaN stays in its row or column: as a scale of x, as a code of x, as a code of the weight.
PW_CASE(gemm_w8a8_fp8_nan_stays_in_its_row_and_column) {
  for (const char* name : {"sm89", "sm80"}) {
    if (name[3] == '9' && !has_fp8()) continue;
    Problem problem({5, 70, 200, kBf16, true, Values::any});
    problem.row_scale[4] = nan_f32();
    problem.codes[1 * problem.x_stride + 199] = 0x7f;
    problem.w[67 * 200 + 3] = 0xff;
    problem.pack();
    run_on_card(problem.op, name);
    for (int64_t m = 0; m < 5; ++m)
      for (int64_t n = 0; n < 70; ++n) {
        const float y = load_f32(problem.y.data, kBf16, m * 70 + n);
        check((y != y) == (m == 1 || m == 4 || n == 67), std::string(name) + ": row " + std::to_string(m) + " column " +
                                                             std::to_string(n) + " is " + std::to_string(y));
      }
  }
}

// ---- layers
struct Layer {
  Problem problem;
  int64_t x_stride;
  Buffer<uint8_t> x;
  Buffer<float> divisor;
  LinearW8A8Fp8 op{};

  // `like`: the type of x and y, sizes, values of the weight. Rows of x begin at multiples of 16 bytes, or lie
  // together.
  Layer(const Shape& like, bool together, bool smooth)
      : problem(like),
        x_stride(together ? like.k : round_up(like.k, 8)),
        x(((like.m - 1) * x_stride + like.k) * dtype_bytes(like.dtype)),
        divisor(like.k) {
    std::mt19937 random(static_cast<uint32_t>(settings().seed + like.m + like.n + like.k));
    for (int64_t i = 0; i < (like.m - 1) * x_stride + like.k; ++i)
      store_f32(x.data, like.dtype, i, static_cast<float>(random() % 4001) * 1e-3f - 2.0f);
    for (int64_t i = 0; i < like.k; ++i) divisor[i] = static_cast<float>(random() % 100 + 1) * 0.02f;
    op.x = x.data;
    op.smooth = smooth ? divisor.data : nullptr;
    op.weight = problem.weight.data;
    op.col_scale = problem.col_scale.data;
    op.bias = problem.op.bias;
    op.y = problem.y.data;
    op.m = like.m;
    op.n = like.n;
    op.k = like.k;
    op.x_stride = x_stride;
    op.y_stride = problem.y_stride;
    op.x_dtype = like.dtype;
    op.fast_accum = 1;
  }

  // Of activations of 16 bits.
  void check_sums(const std::string& how, int splits) {
    problem.check_sums(
        how, splits, false, false,
        [&](int64_t m, int64_t k) { return load_f32(x.data, problem.shape.dtype, m * x_stride + k); },
        [](int64_t) { return 1.0; });
    for (int64_t i = 0; i < static_cast<int64_t>(problem.y.count) / 2; ++i)
      if (i % problem.y_stride >= problem.shape.n)
        check(problem.y[2 * i] == kMark && problem.y[2 * i + 1] == kMark, how + ": wrote between rows");
  }
};

void w8a16_by_plan(const Shape& shape, cuda::Plan plan) {
  Layer layer(shape, false, false);
  Buffer<uint8_t> workspace(cuda::partial_bytes(layer.op, plan));
  finish(cuda::run_w8a16(layer.op, plan, {card(), nullptr, workspace.data}));
  layer.check_sums("w8a16 tile " + std::to_string(plan.tile) + " splits " + std::to_string(plan.splits), plan.splits);
}

PW_CASE(linear_w8a16_tiles) {
  const int64_t rows[] = {16, 64, 128};
  for (int tile = 0; tile < cuda::kW8A16Tiles; ++tile) {
    const DType dtype = (tile + settings().seed) % 2 ? kF16 : kBf16, other = dtype == kF16 ? kBf16 : kF16;
    w8a16_by_plan({rows[tile] + 1, 67, 200, dtype, true, Values::any, 5}, {tile, 1});
    if (settings().small && tile > 0) continue;
    w8a16_by_plan({3, 130, 700, other, false, Values::any, 3}, {tile, 3});
    if (settings().small) continue;
    w8a16_by_plan({rows[tile] - 1, 264, 515, other, true, Values::any}, {tile, 2});
    w8a16_by_plan({rows[tile], 128, 128, dtype, false, Values::any}, {tile, 1});
  }
}

PW_CASE(linear_w8a16_shapes) {
  const auto by_name = [](const Shape& shape) {
    Layer layer(shape, false, false);
    run_on_card(layer.op, "sm80_w8a16");
    layer.check_sums("sm80_w8a16", 16);
  };
  by_name({1, 257, 131, kBf16, true, Values::any, 7});
  if (settings().small) return;
  for (int64_t m : {1, 15, 17, 33, 127, 129}) by_name({m, 96, 256, m % 4 == 1 ? kF16 : kBf16, true, Values::any});
  for (int64_t n : {1, 15, 63, 64, 65, 255, 257}) by_name({5, n, 192, kF16, true, Values::any, 8 - n % 8});
  for (int64_t k : {1, 7, 8, 9, 127, 129, 1027}) by_name({9, 33, k, kBf16, k % 2 == 1, Values::any});
  by_name({1, 64, 4096, kBf16, true, Values::any});  // K split over the card
}

// Each code of the weight, in both types.
PW_CASE(linear_w8a16_codes_are_their_values) {
  for (DType dtype : {kBf16, kF16}) {
    Layer layer({3, 256, 16, dtype, false}, false, false);
    Problem& problem = layer.problem;
    for (int64_t i = 0; i < 3 * 16; ++i) store_f32(layer.x.data, dtype, i, 1.0f);
    std::memset(problem.w.data, 0, problem.w.count);
    for (int i = 0; i < 256; ++i) problem.w[i * 16 + i % 16] = static_cast<uint8_t>(i);
    for (size_t i = 0; i < problem.col_scale.count; ++i) problem.col_scale[i] = 1.0f;
    problem.pack();
    run_on_card(layer.op, "sm80_w8a16");
    for (int i = 0; i < 3 * 256; ++i) {
      const float want = e4m3_f32(static_cast<uint8_t>(i)), got = load_f32(problem.y.data, dtype, i);
      check(got == want || (got != got && want != want),
            "code " + std::to_string(i % 256) + " is " + std::to_string(got));
    }
  }
}

PW_CASE(linear_w8a16_nan_stays_in_its_row_and_column) {
  for (DType dtype : {kBf16, kF16}) {
    Layer layer({4, 66, 100, dtype, true, Values::any}, false, false);
    store_f32(layer.x.data, dtype, 1 * layer.x_stride + 17, nan_f32());
    layer.problem.w[65 * 100 + 99] = 0x7f;
    layer.problem.pack();
    run_on_card(layer.op, "sm80_w8a16");
    for (int64_t i = 0; i < 4 * 66; ++i) {
      const float y = load_f32(layer.problem.y.data, dtype, i);
      check((y != y) == (i / 66 == 1 || i % 66 == 65), "element " + std::to_string(i) + " is " + std::to_string(y));
    }
  }
}

// Quantization, then the GEMM of the same name: the same bits, and those of the reference where sums are exact.
void check_two_steps(const Shape& shape, bool smooth, const char* name) {
  Layer layer(shape, true, smooth);
  run_on_card(layer.op, name);
  Problem& problem = layer.problem;
  Buffer<uint8_t> codes(shape.m * shape.k), got(problem.y.count);
  std::memcpy(got.data, problem.y.data, got.count);
  QuantizePerTokenFp8 quantize{};
  quantize.x = layer.op.x;
  quantize.smooth = layer.op.smooth;
  quantize.codes = codes.data;
  quantize.scale = problem.row_scale.data;
  quantize.m = shape.m;
  quantize.k = shape.k;
  quantize.x_stride = layer.x_stride;
  quantize.x_dtype = shape.dtype;
  reference::quantize_per_token_fp8(quantize, Executor{});
  problem.op.codes = codes.data;
  problem.op.codes_stride = shape.k;
  run_on_card(problem.op, name);
  check_same(got.data, problem.y.data, got.count, problem.y_stride * dtype_bytes(shape.dtype),
             std::string("linear_w8a8_fp8 ") + name + name_of(shape));
}

PW_CASE(linear_w8a8_fp8_is_quantization_and_gemm) {
  for (const char* name : {"sm89", "sm80"}) {
    if (name[3] == '9' && !has_fp8()) continue;
    check_two_steps({3, 70, 64, kBf16, true, Values::any}, true, name);
    check_two_steps({1, 65, 67, kF16, true, Values::any}, false, name);
    if (settings().small) continue;
    check_two_steps({65, 200, 176, kF16, true, Values::any}, true, name);
    check_two_steps({2, 64, 4096, kF32, false, Values::any}, false, name);
  }
  check_two_steps({3, 40, 51, kF32, true, Values::any}, true, "sm80");  // rows that nothing is aligned in
}

// Who runs where: the name that is chosen, or the reason that is given for not running.
template <class Op>
std::string chosen(const Op& op) {
  Status status;
  const int i = choose_cuda(Op::id, &op, card(), nullptr, &status);
  return i < 0 ? status.message : cuda_op(Op::id)->implementations[i].name;
}
template <class Op>
std::string why_not(const Op& op, const char* name) {
  for (int i = 0; i < cuda_op(Op::id)->implementation_count; ++i) {
    const CudaImplementation& one = cuda_op(Op::id)->implementations[i];
    if (std::strcmp(one.name, name) != 0) continue;
    const char* why = one.why_not(&op, card());
    return why ? why : "";
  }
  return "there is no such implementation";
}
void check_words(const std::string& text, const char* words) {
  check(text.find(words) != std::string::npos, "\"" + text + "\" does not say: " + words);
}

PW_CASE(linear_w8a8_fp8_chooses) {
  Layer plain({3, 64, 48, kBf16}, false, false), smooth({3, 64, 48, kBf16}, false, true);
  Layer wide({3, 64, 48, kF32}, false, false), ragged({3, 64, 40, kBf16}, true, false);
  check_words(why_not(smooth.op, "sm80_w8a16"), "SmoothQuant");
  check_words(why_not(wide.op, "sm80_w8a16"), "float16 and bfloat16");
  check(why_not(ragged.op, "sm80").empty(), "sm80 does not take rows of 40 codes");
  LinearW8A8Fp8 far = plain.op;
  far.x_stride = int64_t{1} << 31;  // elements of 2 bytes
  check_words(why_not(far, "sm80_w8a16"), "4 GiB");
  far = plain.op;
  far.k = far.x_stride = int64_t{1} << 31;
  check_words(why_not(far, "sm80_w8a16"), "2147483647 inputs");
  if (!has_fp8()) {
    check(chosen(plain.op) == "sm80_w8a16" && chosen(smooth.op) == "sm80" && chosen(wide.op) == "sm80",
          "chosen: " + chosen(plain.op) + ", " + chosen(smooth.op) + ", " + chosen(wide.op));
    check(chosen(plain.problem.op) == "sm80", "chosen: " + chosen(plain.problem.op));
    check_words(why_not(plain.op, "sm89"), "8.9");
    return;
  }
  check_words(why_not(ragged.op, "sm89"), "multiples of 16");
  check(why_not(plain.op, "sm89").empty() && why_not(plain.problem.op, "sm89").empty(), "sm89 does not run");
  if (card().compute != 90)
    check(chosen(plain.op) == "sm89" && chosen(plain.problem.op) == "sm89" && chosen(ragged.op) == "sm80_w8a16",
          "chosen: " + chosen(plain.op) + ", " + chosen(plain.problem.op) + ", " + chosen(ragged.op));
}

}  // namespace
}  // namespace pennyweight::tests
