// SPDX-License-Identifier: Apache-2.0
// quantize_weight_sm80.cu: weights rounded to the nearest code of given scales
//
//   codes[n,k] = clamp(round-half-even(weight[n,k] / scale[n, k / group]))         FP8: saturated to +-448
//
// Needs     sm_80 as the rest does; any N, K, group. Rows that are 16-byte aligned with K a multiple of 8 move 16 bytes
//           at a time, others one element
// Walk      a thread per 8 elements of a row, rows.cuh and tile/bytes.cuh
// Limit     2 bytes in and 1 out per 16-bit weight, over the memory's bandwidth; some 15 operations per weight
// Numerics  correctly rounded quotients: the CPU's codes, bit for bit, where scales are positive and finite
// Reference kernels/reference/calibrate.cpp          Source  own
// Tried     not yet run on a card; emulated against the reference (tests/cuda)
#include "calibrate_sm80.h"
#include "divide.cuh"
#include "rows.cuh"
#include "table.h"
#include "tile/bytes.cuh"

namespace pennyweight::cuda {
namespace {

struct Weight {
  const void* weight;
  const float* scale;
  uint8_t* codes;
  int64_t n, k;
  uint32_t size, groups;  // of a group; of a row
  int64_t format;
};

PW_DEVICE uint32_t code_of(float w, const ScaleDivisor& by, int64_t format) {
  const float q = by.quotient(w);
  if (format == 0) return f32_e4m3(bits_f32(f32_bits(q) | (f32_bits(w) & 0x80000000u)));  // -0 again
  const float high = format == 8 ? 127.0f : 7.0f, low = -high - 1.0f, code = round_half_even(q);
  return static_cast<uint32_t>(static_cast<int32_t>(fminf(fmaxf(code, low), high))) & 0xffu;
}

template <DType dtype, bool kWhole>
__global__ void __launch_bounds__(kPieceThreads) quantize_weights(const Weight p) {
  for_pieces(p.n, (p.k + kChunk - 1) / kChunk, [&](int64_t row, int64_t piece) {
    const int64_t at = piece * kChunk;
    float v[kChunk];
    unpack<dtype>(load_chunk<dtype, true, kWhole>(element<dtype>(p.weight, row * p.k), at, p.k), v);
    uint32_t group = static_cast<uint32_t>(at) / p.size, left = p.size - (static_cast<uint32_t>(at) - group * p.size);
    ScaleDivisor by;
    by.set(p.scale[row * p.groups + group]);
    uint32_t byte[kChunk];
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      if (left == 0 && ++group < p.groups) {  // the next group begins within the chunk
        by.set(p.scale[row * p.groups + group]);
        left = p.size;
      }
      --left;
      byte[i] = code_of(v[i], by, p.format);
    }
    const uint2 codes = make_uint2(byte[0] | byte[1] << 8 | byte[2] << 16 | byte[3] << 24,
                                   byte[4] | byte[5] << 8 | byte[6] << 16 | byte[7] << 24);
    store_codes<kWhole>(p.codes + row * p.k, at, p.k, codes);
  });
}

}  // namespace

const char* why_not_quantize_weight_sm80(const QuantizeWeight& op, const Card& card) {
  if (const char* why = needs_sm80(card)) return why;
  return op.k > 0x7fffffff ? "takes rows of at most 2147483647 weights" : nullptr;
}

int quantize_weight_sm80(const QuantizeWeight& op, const CudaCall& call) {
  const bool whole = op.k % kChunk == 0 && aligned(op.weight, op.k, op.w_dtype) && aligned(op.codes, 0, DType::u8);
  const Weight p{op.weight,
                 op.scale,
                 static_cast<uint8_t*>(op.codes),
                 op.n,
                 op.k,
                 static_cast<uint32_t>(op.group_size),
                 static_cast<uint32_t>(op.k / op.group_size),
                 op.format};
  return with_kind(op.w_dtype, whole, [&](auto kind) {
    return launch(quantize_weights<kind.kType, kind.kWhole>, piece_grid(op.n, (op.k + kChunk - 1) / kChunk),
                  dim3(kPieceThreads), 0, call.stream, p);
  });
}

}  // namespace pennyweight::cuda
