// SPDX-License-Identifier: Apache-2.0
// hessian_accumulate_sm80.cu: pieces of an x that tensor cores do not take as it is, how many parts tokens are cut
// into, and the second pass over parts.
//
//   workspace:  pieces of x (3 or 1, tokens, stride) | parts (splits, tiles, 128, 128) float32    from a multiple of
//   256
#include "calibrate_sm80.h"
#include "hessian_accumulate_tiles.h"
#include "ptx/convert.cuh"
#include "rows.cuh"
#include "table.h"
#include "tile/aligned.h"
#include "tile/bytes.cuh"

namespace pennyweight::cuda {
namespace {

constexpr int64_t kTokensAtOnce = 4096;  // that are copied to pieces
constexpr int kLeastTurns = 8;           // of a part
constexpr int kPartTurns = 8;            // whose time it takes to write a part and to read it
constexpr int kMostSplits = 16;
constexpr int64_t kMostParts = 4096;  // 256 MB of them

// x as bf16 pieces that add up to it (f32), or as it is, in rows that begin at multiples of 16 bytes.
struct Pieces {
  const void* x;
  uint16_t* out;
  int64_t t, k, x_stride, stride, piece;
};

template <DType dtype, bool kWhole>
__global__ void __launch_bounds__(kPieceThreads) hessian_pieces(const Pieces p) {
  for_pieces(p.t, p.stride / kChunk, [&](int64_t token, int64_t piece) {
    const int64_t at = piece * kChunk;
    const Packed<dtype> packed = load_chunk<dtype, true, kWhole>(element<dtype>(p.x, token * p.x_stride), at, p.k);
    uint16_t* out = p.out + token * p.stride;
    if constexpr (dtype != DType::f32) {
      store_chunk<dtype, true>(out, at, p.stride, packed);
    } else {
      float left[kChunk], taken[kChunk];
      unpack<dtype>(packed, left);
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        Packed<DType::bf16> rounded;
        pack<DType::bf16>(left, rounded);
        unpack<DType::bf16>(rounded, taken);
#pragma unroll
        for (int j = 0; j < kChunk; ++j) left[j] -= taken[j];  // exact
        store_chunk<DType::bf16, true>(out + i * p.piece, at, p.stride, rounded);
      }
    }
  });
}

// A block has 8 rows of a tile, a thread a column: adds the parts up in their order, then to h.
constexpr int kSumRows = 8;

__global__ void __launch_bounds__(HessianTile::side) hessian_sum(const HessianProblem p) {
  constexpr int side = HessianTile::side;
  const int index = static_cast<int>(blockIdx.x / (side / kSumRows));
  const int first = static_cast<int>(blockIdx.x % (side / kSumRows)) * kSumRows;
  int64_t tile_row = 0;  // as tile_place has it
  while ((tile_row + 1) * (tile_row + 2) / 2 <= index) ++tile_row;
  const int64_t column = (index - tile_row * (tile_row + 1) / 2) * side + threadIdx.x;
#pragma unroll 1
  for (int i = first; i < first + kSumRows; ++i) {
    const int64_t row = tile_row * side + i;
    if (row >= p.k || column > row) continue;
    float sum = 0.0f;
#pragma unroll 4
    for (int split = 0; split < p.splits; ++split)
      sum += p.partial[((static_cast<int64_t>(split) * p.lower + index) * side + i) * side + threadIdx.x];
    p.h[row * p.k + column] += sum;
  }
}

bool needs_pieces(const HessianAccumulate& op) {
  return op.x_dtype == DType::f32 || !rows_aligned(op.x, op.t, op.x_stride, 2);
}
int64_t pieces_of(const HessianAccumulate& op) { return op.x_dtype == DType::f32 ? kPieces : 1; }
int64_t tokens_at_once(const HessianAccumulate& op) {
  return needs_pieces(op) && op.t > kTokensAtOnce ? kTokensAtOnce : op.t;
}
int64_t piece_bytes(const HessianAccumulate& op) {
  return needs_pieces(op) ? round_up(pieces_of(op) * tokens_at_once(op) * round_up(op.k, 8) * 2, 256) : 0;
}
int64_t tiles_of(const HessianAccumulate& op) { return (op.k + HessianTile::side - 1) / HessianTile::side; }
int64_t turns_of(int64_t tokens) { return (tokens + HessianTile::tokens - 1) / HessianTile::tokens; }

int make_pieces(const Pieces& p, DType dtype, void* stream) {
  const dim3 grid = piece_grid(p.t, p.stride / kChunk);
  if (dtype != DType::f32)
    return launch(hessian_pieces<DType::bf16, false>, grid, dim3(kPieceThreads), 0, stream, p);  // any bits
  if (p.k % kChunk == 0 && rows_aligned(p.x, p.t, p.x_stride, 4))
    return launch(hessian_pieces<DType::f32, true>, grid, dim3(kPieceThreads), 0, stream, p);
  return launch(hessian_pieces<DType::f32, false>, grid, dim3(kPieceThreads), 0, stream, p);
}

}  // namespace

// Least waves of blocks times turns of each, where a part costs some turns more for being written and read again.
int splits_of_hessian(const HessianAccumulate& op, const Card& card) {
  const int64_t tiles = tiles_of(op), lower = tiles * (tiles + 1) / 2;
  const int64_t slots = static_cast<int64_t>(card.multiprocessors) * HessianTile::blocks_per_sm;
  const int64_t passes = op.x_dtype == DType::f32 ? kPasses : 1, turns = turns_of(tokens_at_once(op)) * passes;
  int64_t best = 1, least = (lower + slots - 1) / slots * turns;
  for (int64_t splits = 2; splits <= kMostSplits; ++splits) {
    if (turns / splits < kLeastTurns || splits * lower > kMostParts) break;
    const int64_t waves = (splits * lower + slots - 1) / slots;
    const int64_t cost = waves * ((turns + splits - 1) / splits + kPartTurns);
    if (cost >= least) continue;
    best = splits;
    least = cost;
  }
  return static_cast<int>(best);
}

int64_t hessian_bytes(const HessianAccumulate& op, int splits) {
  const int64_t tiles = tiles_of(op), part = HessianTile::side * HessianTile::side * 4;
  return piece_bytes(op) + (splits > 1 ? splits * (tiles * (tiles + 1) / 2) * part : 0);
}

int run_hessian(const HessianAccumulate& op, int splits, const CudaCall& call) {
  const bool copied = needs_pieces(op);
  const int64_t at_once = tokens_at_once(op), x_bytes = dtype_bytes(op.x_dtype), tiles = tiles_of(op);
  HessianProblem p{};
  p.k = op.k;
  p.stride = copied ? round_up(op.k, 8) : op.x_stride;
  p.piece = at_once * p.stride;
  p.passes = op.x_dtype == DType::f32 ? kPasses : 1;
  p.tiles = static_cast<int>(tiles);
  p.lower = static_cast<int>(tiles * (tiles + 1) / 2);
  p.h = op.h;
  for (int64_t token = 0; token < op.t; token += at_once) {
    const char* x = static_cast<const char*>(op.x) + token * op.x_stride * x_bytes;
    p.t = op.t - token < at_once ? op.t - token : at_once;
    p.turns = static_cast<int>(turns_of(p.t));
    p.x = copied ? static_cast<const uint16_t*>(call.workspace) : reinterpret_cast<const uint16_t*>(x);
    if (copied) {
      const Pieces pieces{x, static_cast<uint16_t*>(call.workspace), p.t, op.k, op.x_stride, p.stride, p.piece};
      if (const int error = make_pieces(pieces, op.x_dtype, call.stream)) return error;
    }
    p.splits = p.turns * p.passes < splits ? 1 : splits;
    p.partial = p.splits > 1 ? reinterpret_cast<float*>(static_cast<char*>(call.workspace) + piece_bytes(op)) : nullptr;
    const int error = op.x_dtype == DType::f16 ? launch_hessian<DType::f16>(p, call.stream)
                                               : launch_hessian<DType::bf16>(p, call.stream);
    if (error) return error;
    if (p.splits == 1) continue;
    const dim3 grid(static_cast<unsigned>(p.lower) * (HessianTile::side / kSumRows));
    if (const int sum = launch(hessian_sum, grid, dim3(HessianTile::side), 0, call.stream, p)) return sum;
  }
  return 0;
}

const char* why_not_hessian_accumulate_sm80(const HessianAccumulate& op, const Card& card) {
  if (const char* why = needs_sm80(card)) return why;
  if (op.k > HessianTile::side * int64_t{16000}) return "has more tiles than a launch takes";
  return turns_of(op.t) > 0x7fffffff / kPasses ? "has more tokens than a launch takes; pass them in parts" : nullptr;
}
int64_t workspace_hessian_accumulate_sm80(const HessianAccumulate& op, const Card& card) {
  return hessian_bytes(op, splits_of_hessian(op, card));
}
int hessian_accumulate_sm80(const HessianAccumulate& op, const CudaCall& call) {
  return run_hessian(op, splits_of_hessian(op, call.card), call);
}

}  // namespace pennyweight::cuda
