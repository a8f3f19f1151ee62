// SPDX-License-Identifier: Apache-2.0
// linear_w8a16_sm80.cu: FP8 layers on cards without FP8 tensor cores: which tile and split of K a problem gets; and the
// decoding of x where it comes as codes.
//
//   linear_w8a8_fp8 "sm80_w8a16"   x as it is             workspace: partial sums
//   gemm_w8a8_fp8 "sm80"           codes decoded to f16   workspace: partial sums | x (M, round_up(K, 8)) f16
#include "decode_e4m3.cuh"
#include "linear_sm80.h"
#include "linear_w8a16_tiles.h"
#include "runtime.cuh"
#include "table.h"
#include "tile/aligned.h"
#include "tile/epilogue.cuh"

namespace pennyweight::cuda {
namespace {

struct Instance {
  Tile tile;
  int (*launch[2])(const Gemm&, void*);  // f16, bf16
};
template <template <Half> class T>
constexpr Instance instance_of() {
  using F16 = T<Half::f16>;
  return {{F16::BM, F16::BN, F16::BK, F16::blocks_per_sm, F16::shared_bytes},
          {launch_w8a16<F16>, launch_w8a16<T<Half::bf16>>}};
}
const Instance instances[kW8A16Tiles] = {instance_of<W8A16Tile16>(), instance_of<W8A16Tile64>(),
                                         instance_of<W8A16Tile128>()};

template <class Op>
Plan plan_w8a16(const Op& op, const Card& card) {
  Tile tiles[kW8A16Tiles];
  for (int i = 0; i < kW8A16Tiles; ++i) tiles[i] = instances[i].tile;
  return plan_of(op, tiles, kW8A16Tiles, card);
}

template <class Op>
const char* why_not_weight(const Op& op, const Card& card) {
  if (!aligned(op.weight)) return "needs a weight that begins at a multiple of 16 bytes";
  return why_not_cut(op, instances[plan_w8a16(op, card).tile].tile, card);
}

template <class Op>
int run(const Op& op, const Plan& plan, DType y_dtype, Half half, const void* x, int64_t x_stride,
        const float* row_scale, const CudaCall& call) {
  Gemm p = gemm_of(op, instances[plan.tile].tile, plan, y_dtype, call.workspace);
  p.x = x;
  p.x_stride = x_stride;
  p.weight_stride = code_row_bytes(op.k);
  p.epilogue.row_scale = row_scale;
  p.epilogue.col_scale = op.col_scale;
  const int error = instances[plan.tile].launch[half == Half::bf16](p, call.stream);
  return error || plan.splits == 1 ? error : add_splits(p, true, call.stream);
}

// ---- codes of x to f16, a block per row, a thread for 8 codes at a time; zeros from K on
constexpr int kDecodeThreads = 128;

struct CodesOfX {
  const uint8_t* codes;
  uint16_t* x;
  int64_t k, codes_stride, x_stride;
  bool vector;  // rows of codes begin at multiples of 8 bytes
};

PW_DEVICE uint2 load_codes(const uint8_t* codes, int64_t left, bool vector) {
  if (vector && left >= 8) return __ldg(reinterpret_cast<const uint2*>(codes));
  uint2 eight = make_uint2(0, 0);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i < left) eight.x |= static_cast<uint32_t>(__ldg(codes + i)) << 8 * i;
    if (i + 4 < left) eight.y |= static_cast<uint32_t>(__ldg(codes + i + 4)) << 8 * i;
  }
  return eight;
}

__global__ void __launch_bounds__(kDecodeThreads) decode_codes_sm80(const CodesOfX p) {
  const uint8_t* codes = p.codes + blockIdx.x * p.codes_stride;
  uint16_t* x = p.x + blockIdx.x * p.x_stride;
  for (int64_t at = threadIdx.x * 8; at < p.x_stride; at += kDecodeThreads * 8) {
    const uint2 eight = load_codes(codes + at, p.k - at, p.vector);
    Four four;
    decode_e4m3<Half::f16>(eight.x, eight.y, four.word);
    *reinterpret_cast<Four*>(x + at) = four;
  }
}

int64_t x_at(const GemmW8A8Fp8& op, const Card& card) { return round_up(partial_bytes(op, plan_w8a16(op, card)), 256); }

}  // namespace

Plan plan_w8a16(int64_t m, int64_t n, int64_t k, const Card& card) {
  LinearW8A8Fp8 op{};
  op.m = m;
  op.n = n;
  op.k = k;
  return plan_w8a16(op, card);
}

int run_w8a16(const LinearW8A8Fp8& op, const Plan& plan, const CudaCall& call) {
  const Half half = op.x_dtype == DType::bf16 ? Half::bf16 : Half::f16;
  return run(op, plan, op.x_dtype, half, op.x, op.x_stride, nullptr, call);
}

const char* why_not_linear_w8a8_fp8_sm80_w8a16(const LinearW8A8Fp8& op, const Card& card) {
  if (card.compute < 80) return needs_sm80(card);
  if (op.x_dtype == DType::f32) return "takes float16 and bfloat16 activations";
  if (op.smooth) return "takes activations as they are, and these are divided by a SmoothQuant vector first";
  if (!rows_aligned(op.x, op.m, op.x_stride, 2)) return "needs rows of x that begin at multiples of 16 bytes";
  if (!rows_near(op.m, op.x_stride, 2)) return "needs rows that begin less than 4 GiB apart";
  return why_not_weight(op, card);
}
int64_t workspace_linear_w8a8_fp8_sm80_w8a16(const LinearW8A8Fp8& op, const Card& card) {
  return partial_bytes(op, plan_w8a16(op, card));
}
int linear_w8a8_fp8_sm80_w8a16(const LinearW8A8Fp8& op, const CudaCall& call) {
  return run_w8a16(op, plan_w8a16(op, call.card), call);
}

const char* why_not_gemm_w8a8_fp8_sm80(const GemmW8A8Fp8& op, const Card& card) {
  if (card.compute < 80) return needs_sm80(card);
  if (op.m > 0x7fffffff) return "takes at most 2147483647 rows; pass them in parts";
  return why_not_weight(op, card);
}
int64_t workspace_gemm_w8a8_fp8_sm80(const GemmW8A8Fp8& op, const Card& card) {
  return x_at(op, card) + op.m * round_up(op.k, 8) * 2;
}
int gemm_w8a8_fp8_sm80(const GemmW8A8Fp8& op, const CudaCall& call) {
  CodesOfX decode{};
  decode.codes = static_cast<const uint8_t*>(op.codes);
  decode.x = reinterpret_cast<uint16_t*>(static_cast<char*>(call.workspace) + x_at(op, call.card));
  decode.k = op.k;
  decode.codes_stride = op.codes_stride;
  decode.x_stride = round_up(op.k, 8);
  decode.vector = reinterpret_cast<uintptr_t>(op.codes) % 8 == 0 && op.codes_stride % 8 == 0;
  const int error =
      launch(decode_codes_sm80, dim3(static_cast<unsigned>(op.m)), dim3(kDecodeThreads), 0, call.stream, decode);
  if (error) return error;
  return run(op, plan_w8a16(op, call.card), op.y_dtype, Half::f16, decode.x, decode.x_stride, op.row_scale, call);
}

}  // namespace pennyweight::cuda
