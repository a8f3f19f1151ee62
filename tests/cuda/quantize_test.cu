// SPDX-License-Identifier: Apache-2.0
// quantize_test.cu: per-token quantization and its fusions on a card against the plain loops.
//
// Codes and scales are bit for bit the reference's; behind RMSNorm bit for bit from the normed row on, and end to end
// at most 1 code in 10,000 one step away (its square sum is added in another order).
#include <limits>

#include "harness.h"
#include "quantize_sm80.cuh"
#include "reference/reference.h"

namespace pennyweight::tests {
namespace {

const DType kTypes[] = {DType::f32, DType::f16, DType::bf16};
const char* type_name(DType t) { return t == DType::f32 ? "f32" : t == DType::f16 ? "f16" : "bf16"; }

struct Size {
  int64_t m, k;
};
// One chunk and less, each side of a warp's and a block's reach, every geometry, K past registers last.
std::vector<Size> sizes(DType dtype) {
  if (settings().small) return {{1, 1}, {3, 15}, {5, 257}, {17, 136}, {2, 1040}, {9, 1100}, {8, 2048}};
  std::vector<Size> all = {{1, 1},    {2, 7},    {3, 8},    {4, 15},    {2, 17},   {5, 127},  {6, 129},
                           {7, 255},  {8, 257},  {19, 100}, {17, 1024}, {16, 640}, {3, 1024}, {2, 1032},
                           {9, 1100}, {8, 4096}, {3, 4096}, {9, 8200},  {1, 8192}, {2, 4104}, {8, 1536}};
  const int64_t scale = dtype == DType::f32 ? 1 : 2;  // past what registers keep, whole and ragged
  for (const int64_t k : {16384, 16408, 25000, 24999}) all.push_back({1, scale * k});
  return all;
}

std::mt19937& generator() {
  static std::mt19937 g(11);
  return g;
}
float normal() {
  static std::normal_distribution<float> d;
  return d(generator());
}
float uniform(float low, float high) { return low + (high - low) * float(generator()() % 65536) / 65536.0f; }

// Rows of a dtype, `extra` elements of NaN between them.
struct Rows {
  DType dtype;
  int64_t m, k, stride;
  Buffer<unsigned char> bytes;

  Rows(DType dtype, int64_t m, int64_t k, int64_t extra)
      : dtype(dtype), m(m), k(k), stride(k + extra), bytes(((m - 1) * (k + extra) + k) * dtype_bytes(dtype)) {
    for (int64_t i = 0; i < (m - 1) * stride + k; ++i)
      store_f32(bytes.data, dtype, i, std::numeric_limits<float>::quiet_NaN());
  }
  void set(int64_t row, int64_t i, float v) { store_f32(bytes.data, dtype, row * stride + i, v); }
};

// Row 0 has an outlier; then zeros, subnormals, ties, large values, NaN, Inf, tiny values, and plain rows.
void fill_awkward(Rows& x) {
  const float inf = std::numeric_limits<float>::infinity();
  for (int64_t row = 0; row < x.m; ++row)
    for (int64_t i = 0; i < x.k; ++i) {
      const float v = normal();
      const float kinds[8] = {
          v, 0.0f, float(int(generator()() % 19) - 9) * 1e-40f, std::round(v * 8) / 2, v * 6e4f, v, v, v * 1e-30f};
      x.set(row, i, row < 8 ? kinds[row] : v);
    }
  x.set(0, x.k / 2, 40.0f);
  if (x.k > 1) x.set(0, 0, -0.0f);
  if (x.m > 5) x.set(5, x.k - 1, std::numeric_limits<float>::quiet_NaN());
  if (x.m > 6) x.set(6, 0, -inf);
}

// What an op writes, and one row more that must stay as it was.
struct Codes {
  Buffer<uint8_t> codes;
  Buffer<float> scale;
  Codes(int64_t m, int64_t k) : codes((m + 1) * k), scale(m + 1) {}
};

void check_codes(const Codes& got, const Codes& expected, int64_t m, int64_t k, const std::string& what) {
  check_same(got.codes.data, expected.codes.data, (m + 1) * k, k, what + " codes");
  for (int64_t i = 0; i <= m; ++i) {
    const float a = got.scale[i], b = expected.scale[i];
    check((a != a && b != b) || f32_bits(a) == f32_bits(b),
          what + " scale of row " + std::to_string(i) + ": " + std::to_string(a) + ", expected " + std::to_string(b));
  }
}

std::string describe(const char* op, DType dtype, Size size, int64_t extra) {
  return std::string(op) + " " + type_name(dtype) + " m=" + std::to_string(size.m) + " k=" + std::to_string(size.k) +
         " stride=+" + std::to_string(extra);
}

// ---- alone

template <class Op>
void check_quantize(const char* name, void (*reference)(const Op&, const Executor&)) {
  for (const DType dtype : kTypes)
    for (const bool smooth : {false, true})
      for (const Size size : sizes(smooth ? DType::f32 : dtype))  // quotients are kept as float32
        for (const int64_t extra : {0, 3, 8}) {
          if (extra == 8 && smooth) continue;
          Rows x(dtype, size.m, size.k, extra);
          fill_awkward(x);
          Buffer<float> divisor(size.k);
          for (int64_t i = 0; i < size.k; ++i) divisor[i] = uniform(0.1f, 10.0f);
          Codes got(size.m, size.k), expected(size.m, size.k);
          Op op{};
          op.x = x.bytes.data;
          op.smooth = smooth ? divisor.data : nullptr;
          op.m = size.m;
          op.k = size.k;
          op.x_stride = x.stride;
          op.x_dtype = dtype;
          op.codes = expected.codes.data;
          op.scale = expected.scale.data;
          reference(op, Executor{});
          op.codes = got.codes.data;
          op.scale = got.scale.data;
          run_on_card(op);
          check_codes(got, expected, size.m, size.k, describe(name, dtype, size, extra) + (smooth ? " smooth" : ""));
        }
}

PW_CASE(quantize_per_token_int8) { check_quantize("int8", reference::quantize_per_token_int8); }
PW_CASE(quantize_per_token_fp8) { check_quantize("fp8", reference::quantize_per_token_fp8); }

template <class Op>
void check_every_bfloat16(void (*reference)(const Op&, const Executor&)) {
  for (const int64_t top : {0x0001, 0x3f80, 0x42fe, 0x43e0, 0x7f7f}) {
    if (settings().small && top != 0x43e0) continue;
    const int64_t k = top + 1;
    Buffer<uint16_t> x(k);
    for (int64_t i = 0; i < k; ++i) x[i] = uint16_t(i | (i % 3 == 0 ? 0x8000 : 0));
    Codes got(1, k), expected(1, k);
    Op op{};
    op.x = x.data;
    op.m = 1;
    op.k = op.x_stride = k;
    op.x_dtype = DType::bf16;
    op.codes = expected.codes.data;
    op.scale = expected.scale.data;
    reference(op, Executor{});
    op.codes = got.codes.data;
    op.scale = got.scale.data;
    run_on_card(op);
    check_codes(got, expected, 1, k, "every bfloat16 up to " + std::to_string(top));
  }
}

PW_CASE(quantize_every_bfloat16_int8) { check_every_bfloat16(reference::quantize_per_token_int8); }
PW_CASE(quantize_every_bfloat16_fp8) { check_every_bfloat16(reference::quantize_per_token_fp8); }

#if defined(PW_EMULATED)
PW_CASE(quantize_rows_more_than_two_to_the_31_elements_apart) {
  const int64_t k = 72;
  const FarRows x(k);
  for (int64_t i = 0; i < k; ++i) {
    store_f32(x.data, DType::bf16, i, normal());
    store_f32(x.data, DType::bf16, x.stride + i, normal());
  }
  Codes got(2, k), expected(2, k);
  QuantizePerTokenInt8 op{};
  op.x = x.data;
  op.m = 2;
  op.k = k;
  op.x_stride = x.stride;
  op.x_dtype = DType::bf16;
  op.codes = expected.codes.data;
  op.scale = expected.scale.data;
  reference::quantize_per_token_int8(op, Executor{});
  op.codes = got.codes.data;
  op.scale = got.scale.data;
  run_on_card(op);
  check_codes(got, expected, 2, k, "far rows");
}
#endif

// A row that goes past what registers keep into shared memory, whole and ragged.
PW_CASE(quantize_past_registers) {
  for (const int64_t k : {40960, 32768, 16388}) {  // the first fills its shared memory to the last byte
    Rows x(DType::bf16, 1, k, 0);
    fill_awkward(x);
    Codes got(1, k), expected(1, k);
    QuantizePerTokenInt8 op{};
    op.x = x.bytes.data;
    op.m = 1;
    op.k = op.x_stride = k;
    op.x_dtype = DType::bf16;
    op.codes = expected.codes.data;
    op.scale = expected.scale.data;
    reference::quantize_per_token_int8(op, Executor{});
    op.codes = got.codes.data;
    op.scale = got.scale.data;
    run_on_card(op);
    check_codes(got, expected, 1, k, "past registers");
  }
}

// ---- the quotient and both roundings, at ties and one step beside them

template <cuda::Format format>
__global__ void codes_kernel(const float* v, const float* scale, uint2* codes) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  float own[8];
  for (int j = 0; j < 8; ++j) own[j] = v[8 * i + j];
  codes[i] = cuda::make_codes<format>(own, cuda::make_divisor(scale[i]));
}

template <cuda::Format format>
void check_ties() {
  const int count = settings().small ? 1 << 10 : 1 << 14;
  Buffer<float> v(8 * count), scale(count);
  Buffer<uint2> codes(count);
  const float range = format == cuda::Format::int8 ? 127.0f : 448.0f;
  for (int i = 0; i < count; ++i) {
    const uint32_t exponent = 1 + generator()() % 250;
    scale[i] = bits_f32(exponent << 23 | (generator()() & 0x7fffff));
    if (!is_finite(scale[i] * range)) scale[i] = 1.0f;
    for (int j = 0; j < 8; ++j) {
      const float tie = format == cuda::Format::int8
                            ? float(int(generator()() % 254) - 127) + 0.5f
                            : (e4m3_f32(uint8_t(generator()() % 126)) + e4m3_f32(uint8_t(generator()() % 126))) / 2;
      float near = tie * scale[i];
      for (uint32_t step = generator()() % 4; step > 0; --step) near = std::nextafter(near, j % 2 ? 1e38f : -1e38f);
      const float limit = range * scale[i];
      v[8 * i + j] = near > limit ? limit : near < -limit ? -limit : near;
    }
  }
  finish(cuda::launch(codes_kernel<format>, count / 128, 128, 0, nullptr, v.data, scale.data, codes.data));
  for (int i = 0; i < 8 * count; ++i) {
    const float s = scale[i / 8];
    const uint8_t got = reinterpret_cast<const uint8_t*>(codes.data)[i];
    const uint8_t want =
        format == cuda::Format::int8 ? static_cast<uint8_t>(quantize_int8(v[i], s)) : quantize_e4m3(v[i], s);
    check(got == want, std::to_string(v[i]) + " / " + std::to_string(s) + ": code " + std::to_string(got) +
                           ", expected " + std::to_string(want));
  }
}

PW_CASE(quantize_ties_int8) { check_ties<cuda::Format::int8>(); }
PW_CASE(quantize_ties_fp8) { check_ties<cuda::Format::e4m3>(); }

// ---- divisions in line: IEEE's quotient for any operands

__global__ void divide_kernel(const float* a, const float* b, float* q) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  q[i] = cuda::divide(a[i], b[i]);
}

PW_CASE(quantize_divides_as_ieee) {
  const uint32_t special[] = {0, 1, 0x7fffff, 0x800000, 0x3f800000, 0x7f7fffff, 0x7f800000, 0x7fc00000};
  const int count = settings().small ? 1 << 12 : 1 << 17;
  Buffer<float> a(count), b(count), q(count);
  for (int i = 0; i < count; ++i) {
    a[i] = bits_f32(i < 256 ? special[i / 8 % 8] | (i & 128 ? 0x80000000u : 0) : generator()());
    b[i] = bits_f32(i < 256 ? special[i % 8] | (i & 64 ? 0x80000000u : 0) : generator()());
    if (i % 2 && i >= 256) b[i] = 0.5f + float(generator()()) * 0x1p-32f;
  }
  finish(cuda::launch(divide_kernel, count / 128, 128, 0, nullptr, a.data, b.data, q.data));
  for (int i = 0; i < count; ++i) {
    const float want = a[i] / b[i];
    check(f32_bits(q[i]) == f32_bits(want) || (q[i] != q[i] && want != want),
          std::to_string(a[i]) + " / " + std::to_string(b[i]) + " = " + std::to_string(q[i]) + ", expected " +
              std::to_string(want));
  }
}

// ---- behind RMSNorm

struct NormCase {
  Rows x, residual;
  Buffer<unsigned char> weight, hidden, expected_hidden;

  NormCase(DType dtype, Size size, int64_t extra)
      : x(dtype, size.m, size.k, extra),
        residual(dtype, size.m, size.k, extra == 3 ? 2 : extra),
        weight(size.k * dtype_bytes(dtype)),
        hidden((size.m + 1) * size.k * dtype_bytes(dtype)),
        expected_hidden((size.m + 1) * size.k * dtype_bytes(dtype)) {
    fill_awkward(x);
    for (int64_t row = 0; row < size.m; ++row)
      for (int64_t i = 0; i < size.k; ++i) residual.set(row, i, normal());
    for (int64_t i = 0; i < size.k; ++i) store_f32(weight.data, dtype, i, uniform(0.5f, 2.0f));
  }
  template <class Op>
  Op make(bool with_residual) {
    Op op{};
    op.x = x.bytes.data;
    op.weight = weight.data;
    op.m = x.m;
    op.k = x.k;
    op.x_stride = x.stride;
    op.eps = 1e-5;
    op.x_dtype = x.dtype;
    if (with_residual) {
      op.residual = residual.bytes.data;
      op.residual_stride = residual.stride;
    }
    return op;
  }
};

// Totals over all cases of how far codes are from the reference's, as steps of the code's order.
struct Steps {
  int64_t codes = 0, one = 0, more = 0;

  void add(const uint8_t* got, const uint8_t* expected, int64_t count, bool fp8) {
    auto order = [&](uint8_t code) {
      if (!fp8) return int(static_cast<int8_t>(code));
      return code & 0x80 ? -int(code & 0x7f) : int(code);
    };
    codes += count;
    for (int64_t i = 0; i < count; ++i) {
      const int distance = std::abs(order(got[i]) - order(expected[i]));
      one += distance == 1;
      more += distance > 1;
    }
  }
};

template <class Op, class Quantize>
void check_norm(const char* name, void (*reference)(const Op&, const Executor&),
                void (*quantize)(const Quantize&, const Executor&), bool fp8) {
  Steps steps;
  for (const DType dtype : kTypes)
    for (const Size size : sizes(dtype))
      for (const int64_t extra : {0, 3})
        for (const bool residual : {false, true}) {
          NormCase c(dtype, size, extra);
          const int64_t m = size.m, k = size.k;
          const std::string what = describe(name, dtype, size, extra) + (residual ? " residual" : "");
          Codes got(m, k), expected(m, k), from_normed(m, k);
          Op op = c.make<Op>(residual);
          op.codes = expected.codes.data;
          op.scale = expected.scale.data;
          op.hidden = residual ? c.expected_hidden.data : nullptr;
          reference(op, Executor{});
          op.codes = got.codes.data;
          op.scale = got.scale.data;
          op.hidden = residual ? c.hidden.data : nullptr;
          run_on_card(op);
          if (residual) {
            for (int64_t i = 0; i < (m + 1) * k; ++i) {  // NaN of any payload
              const float a = load_f32(c.hidden.data, dtype, i), b = load_f32(c.expected_hidden.data, dtype, i);
              check(f32_bits(a) == f32_bits(b) || (a != a && b != b), what + " hidden at " + std::to_string(i));
            }
          }
          Buffer<unsigned char> normed(m * k * dtype_bytes(dtype));
          RmsNorm norm = c.make<RmsNorm>(residual);
          norm.normed = normed.data;
          norm.hidden = residual ? c.hidden.data : nullptr;
          run_on_card(norm);
          Quantize plain{};
          plain.x = normed.data;
          plain.m = m;
          plain.k = plain.x_stride = k;
          plain.x_dtype = dtype;
          plain.codes = from_normed.codes.data;
          plain.scale = from_normed.scale.data;
          quantize(plain, Executor{});
          check_codes(got, from_normed, m, k, what + " from the normed row on:");
          for (int64_t row = 0; row < m; ++row) {
            const float a = got.scale[row], b = expected.scale[row];
            check((a != a && b != b) || std::fabs(a - b) <= 0x1p-7f * std::fabs(b), what + " scale of a row");
          }
          steps.add(got.codes.data, expected.codes.data, m * k, fp8);
        }
  std::printf("    %s: %lld of %lld codes one step from the reference\n", name, (long long)steps.one,
              (long long)steps.codes);
  check(steps.more == 0, std::to_string(steps.more) + " codes are more than one step from the reference");
  check(steps.one * 10000 <= steps.codes,
        std::to_string(steps.one) + " of " + std::to_string(steps.codes) + " codes differ: more than 1 in 10,000");
}

PW_CASE(rms_norm_quantize_int8) {
  check_norm("rms int8", reference::rms_norm_quantize_int8, reference::quantize_per_token_int8, false);
}
PW_CASE(rms_norm_quantize_fp8) {
  check_norm("rms fp8", reference::rms_norm_quantize_fp8, reference::quantize_per_token_fp8, true);
}

// ---- behind SiLU(gate) * up

template <class Op>
void check_silu(const char* name, void (*reference)(const Op&, const Executor&)) {
  for (const DType dtype : kTypes)
    for (const Size size : sizes(dtype))
      for (const int64_t extra : {0, 7}) {
        Rows x(dtype, size.m, 2 * size.k, extra);
        fill_awkward(x);
        for (int64_t row = 0; row < size.m; ++row)
          for (int64_t i = 0; i < size.k; ++i) x.set(row, size.k + i, normal());
        Codes got(size.m, size.k), expected(size.m, size.k);
        Op op{};
        op.gate_up = x.bytes.data;
        op.m = size.m;
        op.k = size.k;
        op.x_stride = x.stride;
        op.x_dtype = dtype;
        op.codes = expected.codes.data;
        op.scale = expected.scale.data;
        reference(op, Executor{});
        op.codes = got.codes.data;
        op.scale = got.scale.data;
        run_on_card(op);
        check_codes(got, expected, size.m, size.k, describe(name, dtype, size, extra));
      }
}

PW_CASE(silu_mul) {
  for (const DType dtype : kTypes)
    for (const Size size : sizes(dtype))
      for (const int64_t extra : {0, 7}) {
        Rows x(dtype, size.m, 2 * size.k, extra);
        fill_awkward(x);
        const int64_t count = size.m * size.k;
        Buffer<unsigned char> got(count * dtype_bytes(dtype)), expected(count * dtype_bytes(dtype));
        SiluMul op{};
        op.gate_up = x.bytes.data;
        op.m = size.m;
        op.k = size.k;
        op.x_stride = x.stride;
        op.x_dtype = dtype;
        op.y = expected.data;
        reference::silu_mul(op, Executor{});
        op.y = got.data;
        run_on_card(op);
        for (int64_t i = 0; i < count; ++i) {  // NaN of any payload
          const float a = load_f32(got.data, dtype, i), b = load_f32(expected.data, dtype, i);
          check(f32_bits(a) == f32_bits(b) || (a != a && b != b),
                describe("silu", dtype, size, extra) + " at " + std::to_string(i));
        }
      }
}
PW_CASE(silu_mul_quantize_int8) { check_silu("silu int8", reference::silu_mul_quantize_int8); }
PW_CASE(silu_mul_quantize_fp8) { check_silu("silu fp8", reference::silu_mul_quantize_fp8); }

// ---- what is refused

PW_CASE(quantize_refuses_what_no_kernel_takes) {
  QuantizePerTokenInt8 op{};
  op.x_dtype = DType::bf16;
  op.m = 1;
  op.k = op.x_stride = 1000000;
  auto message = [&](Card on) {
    Status status;
    check(choose_cuda(op.id, &op, on, nullptr, &status) == -1 && status.code == Code::unsupported, "it was taken");
    return std::string(status.message);
  };
  check(message(card()).find("longer than what the registers") != std::string::npos, message(card()));
  op.k = op.x_stride = 64;
  op.m = int64_t{1} << 31;
  check(message(card()).find("at most 2147483647 rows") != std::string::npos, message(card()));
  op.m = 1;
  Card old = card();
  old.compute = 75;
  check(message(old).find("needs compute capability 8.0") != std::string::npos, message(old));
  Status status;
  check(choose_cuda(op.id, &op, card(), "sm90a", &status) == -1, "a name that does not exist was taken");
  check(std::string(status.message).find("'sm90a'") != std::string::npos, status.message);
}

}  // namespace
}  // namespace pennyweight::tests
