// SPDX-License-Identifier: Apache-2.0
// pack_code_rows_sm80.cu: weights of 8 bits between the checkpoint's (n, k), CODE_ROWS (docs/layouts.md) and floats.
//
//   weight[n][0 .. round_up(k, 16)) = codes[n][0 .. k), zeros          out[n,k] = code * scale[n]
//
// Needs     sm_80 as the rest does; any n, k; CODE_ROWS aligned to 16 bytes. Rows of codes that are aligned to 16 bytes
//           move so, others byte by byte
// Walk      a thread per 16 codes, 8 where floats are written, tile/bytes.cuh
// Limit     2 bytes per code, 5 where floats are written, over the memory's bandwidth
// Numerics  exact; one rounding of the product. A NaN times a scale may differ in its payload
// Reference kernels/reference/pack.cpp (the panels, which cards replace)      Source  own
// Tried     not yet run on a card; emulated against the reference (tests/cuda)
#include "pack_sm80.h"
#include "table.h"
#include "tile/aligned.h"
#include "tile/bytes.cuh"

namespace pennyweight::cuda {
namespace {

struct CodeRows {
  const uint8_t* from;
  uint8_t* to;
  int64_t n, k, from_stride, to_stride;
  bool from_vector, to_vector;
  bool pads;  // whole pieces are written
};

__global__ void __launch_bounds__(kPieceThreads) copy_code_rows(const CodeRows p) {
  for_pieces(p.n, (p.k + 15) / 16, [&](int64_t row, int64_t piece) {
    const int64_t at = piece * 16;
    const int count = piece_count(p.k - at, 16);
    uint32_t word[4];
    load_bytes(p.from + row * p.from_stride + at, count, p.from_vector, word);
    store_bytes(p.to + row * p.to_stride + at, p.pads ? 16 : count, p.to_vector, word);
  });
}

int copy_rows(CodeRows p, void* stream) {
  p.from_vector = pieces_aligned(p.from, p.from_stride, 16);
  p.to_vector = pieces_aligned(p.to, p.to_stride, 16);
  return launch(copy_code_rows, piece_grid(p.n, (p.k + 15) / 16), dim3(kPieceThreads), 0, stream, p);
}

int pack(const PackPanel& op, const CudaCall& call) {
  return copy_rows({static_cast<const uint8_t*>(op.codes), static_cast<uint8_t*>(op.weight), op.n, op.k, op.k,
                    code_row_bytes(op.k), false, false, true},
                   call.stream);
}
int unpack(const UnpackPanel& op, const CudaCall& call) {
  return copy_rows({static_cast<const uint8_t*>(op.weight), static_cast<uint8_t*>(op.codes), op.n, op.k,
                    code_row_bytes(op.k), op.k, false, false, false},
                   call.stream);
}

enum class Code { int8, e4m3 };

struct Decoding {
  const uint8_t* weight;
  const float* scale;
  int64_t n, k, stride;
  Output out;
};

template <Code code>
__global__ void __launch_bounds__(kPieceThreads) dequantize_code_rows(const Decoding p) {
  for_pieces(p.n, (p.k + 7) / 8, [&](int64_t row, int64_t piece) {
    const int64_t at = piece * 8;
    const Two codes = *reinterpret_cast<const Two*>(p.weight + row * p.stride + at);
    const float scale = p.scale[row];
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint8_t byte = static_cast<uint8_t>(codes.word[i / 4] >> (8 * (i % 4)));
      v[i] = (code == Code::int8 ? static_cast<float>(static_cast<int8_t>(byte)) : e4m3_f32(byte)) * scale;
    }
    store_floats(p.out, row, at, piece_count(p.k - at, 8), v);
  });
}

template <Code code>
int dequantize(const DequantizePanel& op, const CudaCall& call) {
  const Decoding p{static_cast<const uint8_t*>(op.weight),
                   op.scale,
                   op.n,
                   op.k,
                   code_row_bytes(op.k),
                   {op.out, op.k, DType::f32, aligned_for_vectors(op.out, op.k)}};
  return launch(dequantize_code_rows<code>, piece_grid(op.n, (op.k + 7) / 8), dim3(kPieceThreads), 0, call.stream, p);
}

}  // namespace

const char* why_not_code_rows(const void* weight, const Card& card) {
  if (const char* why = needs_sm80(card)) return why;
  return aligned(weight) ? nullptr : "needs a packed weight that begins at a multiple of 16 bytes";
}

int pack_int8_sm80(const PackInt8& op, const CudaCall& call) { return pack(op, call); }
int pack_fp8_sm80(const PackFp8& op, const CudaCall& call) { return pack(op, call); }
int unpack_int8_sm80(const UnpackInt8& op, const CudaCall& call) { return unpack(op, call); }
int unpack_fp8_sm80(const UnpackFp8& op, const CudaCall& call) { return unpack(op, call); }
int dequantize_int8_sm80(const DequantizeInt8& op, const CudaCall& call) { return dequantize<Code::int8>(op, call); }
int dequantize_fp8_sm80(const DequantizeFp8& op, const CudaCall& call) { return dequantize<Code::e4m3>(op, call); }

}  // namespace pennyweight::cuda
