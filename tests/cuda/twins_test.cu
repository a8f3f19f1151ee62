// SPDX-License-Identifier: Apache-2.0
// twins_test.cu: each instruction of kernels/cuda/ptx on fixed inputs. Matrix instructions are held against plain loops
// here; everything, bit for bit, against golden_twins.txt, which a card must reproduce too. PW_WRITE_GOLDEN=file writes
// it anew.
#include <map>

#include "harness.h"
#include "ptx/convert.cuh"
#include "ptx/copy.cuh"
#include "ptx/matrix.cuh"
#include "ptx/words.cuh"

namespace pennyweight::tests {
namespace {

using Words = Buffer<uint32_t>;

// The same numbers on every machine (the standard fixes this generator, not the distributions).
void fill(Words& words, uint32_t seed) {
  std::mt19937 generator(seed);
  for (size_t i = 0; i < words.count; ++i) words[i] = generator();
}

uint32_t fnv(const Words& words) {
  uint32_t hash = 2166136261u;
  for (size_t i = 0; i < words.count; ++i)
    for (int byte = 0; byte < 4; ++byte) hash = (hash ^ (words[i] >> 8 * byte & 0xff)) * 16777619u;
  return hash;
}

// name -> the first words and a hash of all
void golden(const std::string& name, const Words& words) {
  std::string line = name;
  char text[16];
  for (size_t i = 0; i < 8 && i < words.count; ++i) {
    std::snprintf(text, sizeof text, " %08x", words[i]);
    line += text;
  }
  std::snprintf(text, sizeof text, " | %08x\n", fnv(words));
  line += text;
  if (const char* path = std::getenv("PW_WRITE_GOLDEN")) {
    std::FILE* out = std::fopen(path, "a");
    if (!out) throw std::runtime_error("cannot write PW_WRITE_GOLDEN");
    std::fputs(line.c_str(), out);
    std::fclose(out);
    return;
  }
  std::FILE* in = std::fopen(PW_GOLDEN, "r");
  if (!in) throw std::runtime_error("cannot read " PW_GOLDEN);
  char read[256];
  std::string expected = "nothing of that name";
  while (std::fgets(read, sizeof read, in))
    if (std::string(read).rfind(name + " ", 0) == 0) expected = read;
  std::fclose(in);
  check(expected == line, "golden: got " + line + "    expected " + expected);
}

// ---- matrices: one warp, a (16, K) and b (8, K) row-major in shared memory, K 32 bytes; c (16, 8)
enum class Kind { s8, e4m3, f16, bf16 };

template <Kind kind, class C>
__global__ void multiply_kernel(const uint4* a, const uint4* b, C* c) {
  __shared__ uint4 rows[24 * 2];
  const int lane = threadIdx.x;
  for (int i = lane; i < 48; i += 32) ptx::copy_async(&rows[i], i < 32 ? &a[i] : &b[i - 32], true);
  ptx::commit_copies();
  ptx::wait_copies<0>();
  __syncthreads();
  uint32_t fa[4], fb[2];
  ptx::load_matrix_x4(fa, &rows[lane % 16 * 2 + lane / 16]);
  ptx::load_matrix_x2(fb, &rows[32 + lane % 8 * 2 + lane / 8 % 2]);
  C sum[4];
  for (int i = 0; i < 4; ++i) sum[i] = c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2];
  if constexpr (kind == Kind::s8)
    ptx::mma_s8(sum, fa, fb);
  else if constexpr (kind == Kind::e4m3)
    ptx::mma_e4m3(sum, fa, fb);
  else if constexpr (kind == Kind::f16)
    ptx::mma_f16(sum, fa, fb);
  else
    ptx::mma_bf16(sum, fa, fb);
  for (int i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
}

template <Kind kind, class C>
void check_multiply(const char* name) {
  constexpr bool kBytes = kind == Kind::s8 || kind == Kind::e4m3;
  constexpr int kColumns = kBytes ? 32 : 16;
  Words a(16 * 8), b(8 * 8), c(16 * 8);
  fill(a, 1);
  fill(b, 2);
  std::vector<C> expected(16 * 8);
  auto element = [](Words& words, int i) -> C {
    if constexpr (kind == Kind::s8) return reinterpret_cast<int8_t*>(words.data)[i];
    if constexpr (kind == Kind::e4m3) return C(e4m3_f32(reinterpret_cast<uint8_t*>(words.data)[i]));
    const uint16_t bits = reinterpret_cast<uint16_t*>(words.data)[i];
    return C(kind == Kind::f16 ? f16_f32(bits) : bf16_f32(bits));
  };
  // small integers: every order of summation is exact, of E4M3 also behind 13 bits
  if constexpr (kind == Kind::e4m3)
    for (Words* words : {&a, &b})
      for (size_t i = 0; i < 4 * words->count; ++i) {
        auto* v = &reinterpret_cast<uint8_t*>(words->data)[i];
        *v = f32_e4m3(float(int(*v % 9) - 4));
      }
  if constexpr (!kBytes)
    for (Words* words : {&a, &b})
      for (size_t i = 0; i < 2 * words->count; ++i) {
        auto* v = &reinterpret_cast<uint16_t*>(words->data)[i];
        const float whole = float(int(*v % 129) - 64);
        *v = kind == Kind::f16 ? f32_f16(whole) : f32_bf16(whole);
      }
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 8; ++n) {
      C start = C(100 * m - n), sum = start;
      for (int k = 0; k < kColumns; ++k) sum += element(a, m * kColumns + k) * element(b, n * kColumns + k);
      std::memcpy(&c[m * 8 + n], &start, 4);
      expected[m * 8 + n] = sum;
    }
  finish(cuda::launch(multiply_kernel<kind, C>, 1, 32, 0, nullptr, reinterpret_cast<const uint4*>(a.data),
                      reinterpret_cast<const uint4*>(b.data), reinterpret_cast<C*>(c.data)));
  check_same(reinterpret_cast<const C*>(c.data), expected.data(), 128, 8, name);
  golden(name, c);
}

PW_CASE(twins_mma_s8) { check_multiply<Kind::s8, int>("mma_s8"); }
PW_CASE(twins_mma_e4m3) {
  if (card().compute >= 89) check_multiply<Kind::e4m3, float>("mma_e4m3");
}
PW_CASE(twins_mma_f16) { check_multiply<Kind::f16, float>("mma_f16"); }
PW_CASE(twins_mma_bf16) { check_multiply<Kind::bf16, float>("mma_bf16"); }

__global__ void load_matrix_kernel(const uint4* in, uint32_t* out) {
  __shared__ uint4 rows[32];
  const int lane = threadIdx.x;
  rows[lane] = ptx::load_once(&in[lane]);
  __syncthreads();
  uint32_t straight[4], transposed[4];
  ptx::load_matrix_x4(straight, &rows[lane ^ 5]);
  ptx::load_matrix_x4_transposed(transposed, &rows[lane]);
  for (int i = 0; i < 4; ++i) {
    out[i * 32 + lane] = straight[i];
    out[(4 + i) * 32 + lane] = transposed[i];
  }
}

PW_CASE(twins_load_matrix) {
  Words in(128), out(256);
  fill(in, 3);
  finish(cuda::launch(load_matrix_kernel, 1, 32, 0, nullptr, reinterpret_cast<const uint4*>(in.data), out.data));
  const auto* elements = reinterpret_cast<const uint16_t*>(in.data);
  std::vector<uint32_t> expected(256);
  for (int j = 0; j < 4; ++j)
    for (int lane = 0; lane < 32; ++lane) {
      expected[j * 32 + lane] = in[((8 * j + lane / 4) ^ 5) * 4 + lane % 4];
      const int row = 8 * j + lane % 4 * 2, column = lane / 4;
      expected[(4 + j) * 32 + lane] = elements[row * 8 + column] | uint32_t(elements[(row + 1) * 8 + column]) << 16;
    }
  check_same(out.data, expected.data(), 256, 32, "load_matrix");
  golden("load_matrix", out);
}

// Lane l copies l % 17 bytes, and gets zeros after them.
__global__ void copy_bytes_kernel(const uint4* in, uint32_t* out) {
  __shared__ uint4 rows[32];
  const int lane = threadIdx.x;
  ptx::copy_async_bytes(&rows[lane], &in[lane], lane % 17);
  ptx::commit_copies();
  ptx::wait_copies<0>();
  __syncthreads();
  const uint4 row = rows[lane ^ 9];
  out[lane * 4] = row.x;
  out[lane * 4 + 1] = row.y;
  out[lane * 4 + 2] = row.z;
  out[lane * 4 + 3] = row.w;
}

PW_CASE(twins_copy_bytes) {
  Words in(128), out(128);
  fill(in, 7);
  finish(cuda::launch(copy_bytes_kernel, 1, 32, 0, nullptr, reinterpret_cast<const uint4*>(in.data), out.data));
  std::vector<uint32_t> expected(128, 0);
  for (int lane = 0; lane < 32; ++lane) std::memcpy(&expected[lane * 4], &in[(lane ^ 9) * 4], (lane ^ 9) % 17);
  check_same(out.data, expected.data(), 128, 4, "copy_async_bytes");
  golden("copy_bytes", out);
}

// ---- words and conversions, one lane per input
constexpr int kInputs = 4096;

__global__ void words_kernel(const uint32_t* in, uint32_t* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const uint32_t a = in[i], b = in[i + kInputs], c = in[i + 2 * kInputs];
  uint32_t* to = out + 8 * i;
  to[0] = ptx::lop3<0xea>(a, b, c);
  to[1] = ptx::lop3<(0xf0 & 0xcc) ^ 0xaa>(a, b, c);
  to[2] = ptx::pick_bytes(a, b, c & 0x7777);
  to[3] = ptx::pick_bytes(a, b, c & 0xffff);
  to[4] = f32_bits(ptx::f32_of_f16(uint16_t(a & 0xbfff)));  // no Inf, no NaN
  to[5] = ptx::f16x2_of_f32(bits_f32(a & 0xbfffffffu), bits_f32(b & 0xbfffffffu));
  to[6] = ptx::bf16x2_of_f32(bits_f32(a & 0xbfffffffu), bits_f32(b & 0xbfffffffu));
  to[7] = 0;
}

PW_CASE(twins_words) {
  Words in(3 * kInputs), out(8 * kInputs);
  fill(in, 4);
  finish(cuda::launch(words_kernel, kInputs / 128, 128, 0, nullptr, in.data, out.data));
  for (int i = 0; i < kInputs; ++i) {
    const uint32_t a = in[i], b = in[i + kInputs], c = in[i + 2 * kInputs];
    check(out[8 * i] == ((a & b) | c) && out[8 * i + 1] == ((a & b) ^ c), "lop3 at " + std::to_string(i));
  }
  golden("words", out);
}

// Halves of moderate size: |v| in 2^-4 .. 2^3, so that nothing overflows or is subnormal.
__global__ void pairs_kernel(const uint32_t* in, uint32_t* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  uint32_t f16[3], bf16[3];
  for (int j = 0; j < 3; ++j) {
    const uint32_t v = in[i + j * kInputs];
    f16[j] = (v & 0x9fff9fffu) | 0x20002000u;
    bf16[j] = (v & 0x81ff81ffu) + 0x3e003e00u;
  }
  out[4 * i] = ptx::fma_f16x2(f16[0], f16[1], f16[2]);
  out[4 * i + 1] = ptx::fma_bf16x2(bf16[0], bf16[1], bf16[2]);
  out[4 * i + 2] = ptx::sub_f16x2(f16[0], f16[1]);
  out[4 * i + 3] = ptx::mul_f16x2(f16[0], f16[1]);
}

PW_CASE(twins_pairs) {
  Words in(3 * kInputs), out(4 * kInputs);
  fill(in, 5);
  finish(cuda::launch(pairs_kernel, kInputs / 128, 128, 0, nullptr, in.data, out.data));
  golden("pairs", out);
}

__global__ void e4m3_kernel(const uint32_t* in, uint32_t* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = ptx::architecture() >= 89 ? ptx::e4m3x2_of_f32(bits_f32(in[2 * i]), bits_f32(in[2 * i + 1])) : 0;
}

PW_CASE(twins_e4m3) {
  if (card().compute < 89) return;
  Words in(2 * kInputs), out(kInputs);
  fill(in, 6);
  for (size_t i = 0; i < in.count; ++i) in[i] = (in[i] & 0x87ffffffu) + 0x3c000000u;  // 2^-7 .. 2^8 and beyond
  finish(cuda::launch(e4m3_kernel, kInputs / 128, 128, 0, nullptr, in.data, out.data));
  golden("e4m3", out);
}

}  // namespace
}  // namespace pennyweight::tests
