// SPDX-License-Identifier: Apache-2.0
// gemm_w8a8_sm90.cpp: which tile a problem gets on Hopper, what the kernels ask of operands, and their launch.
//
// The plan is a model of time, so that it has no thresholds in M, N or K to jump at: of all tiles that sum in the way
// asked for, the one that takes least. A tile of k inputs takes its block the longer of
//
//     multiplying   BM BN k / 4096 cycles            what a multiprocessor's tensor cores do
//     copying       (BM + BN) k / 40                 bytes from L2, where all of them pull at once; what a pair shares
//                                                    counts half
//
// and, where the groups of threads share the tile, BM BN / 32 for storing it. A problem takes as many rounds of that as
// there are tiles per multiprocessor, but never less than the memory needs for the weight, x and y (21 bytes a cycle
// for each multiprocessor). Where two tiles tie, most of all in memory's time, the one that multiplies fewest rows and
// columns that do not exist is taken, then the one with fewest tiles, then the first in the list.
//
// The constants are an H100's: data sheet for the first, and for the second what makes 128 x 128 slower than 128 x 256
// by the 12 % that others have measured. To be fitted on a card.
#include "gemm_w8a8_sm90.h"

#include <algorithm>
#include <tuple>

#include "linear_sm90.h"
#include "tile/aligned.h"

namespace pennyweight::cuda {
namespace {

constexpr double kProductsPerCycle = 4096, kL2BytesPerCycle = 40, kMemoryBytesPerCycle = 21;
constexpr int64_t kMost = 0x7fffffff;  // of M, N, K and tiles
constexpr int64_t kMostStride = int64_t{1} << 40;

template <class T>
constexpr Sm90Shape shape_of(const char* name) {
#if defined(PW_SM90_LEFT_OUT)
  return {name, T::codes, T::rows, T::BM, T::BN, T::BK, T::pair, T::groups, T::sums, nullptr};
#else
  return {name, T::codes, T::rows, T::BM, T::BN, T::BK, T::pair, T::groups, T::sums, launch_sm90<T>};
#endif
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Tiles along the rows and the columns, in whole pairs.
std::tuple<int64_t, int64_t> tiles_of(const Sm90Shape& s, int64_t m, int64_t n) {
  if (s.rows == Rows::outputs) std::swap(m, n);
  return {round_up(divide_up(m, s.bm), s.down()), round_up(divide_up(n, s.bn), s.beside())};
}

}  // namespace

#define PW_SHAPE(...) shape_of<__VA_ARGS__>(#__VA_ARGS__),
const Sm90Shape kSm90Shapes[] = {PW_SM90_TILES(PW_SHAPE)};
const int kSm90ShapeCount = sizeof kSm90Shapes / sizeof kSm90Shapes[0];

int64_t Sm90Shape::tiles(int64_t m, int64_t n) const {
  const auto [down, across] = tiles_of(*this, m, n);
  return down * across;
}

double Sm90Shape::tile_cycles(int64_t k) const {
  const double area = double(bm) * bn, inputs = double(round_up(k, bk));
  const double copied = (double(bm) / beside() + double(bn) / down()) * inputs;
  const double stored = groups == Groups::share ? area / 32 : 0;
  return std::max(area * inputs / kProductsPerCycle, copied / kL2BytesPerCycle) + stored;
}

double Sm90Shape::cycles(int64_t m, int64_t n, int64_t k, int multiprocessors) const {
  const int together = down() * beside(), slots = std::max(multiprocessors / together * together, together);
  const double bytes = double(n) * double(k) + double(m) * double(k) + 2.0 * double(m) * double(n);
  return std::max(double(divide_up(tiles(m, n), slots)) * tile_cycles(k), bytes / (kMemoryBytesPerCycle * slots));
}

Sm90Plan plan_sm90(Codes codes, Sums sums, int64_t m, int64_t n, int64_t k, int multiprocessors) {
  Sm90Plan best{-1, 1};
  std::tuple<double, double, int64_t> least{};
  for (int i = 0; i < kSm90ShapeCount; ++i) {
    const Sm90Shape& shape = kSm90Shapes[i];
    if (shape.codes != codes || shape.sums != sums) continue;
    const int64_t tiles = shape.tiles(m, n);
    const std::tuple<double, double, int64_t> cost{shape.cycles(m, n, k, multiprocessors),
                                                   double(tiles) * shape.bm * shape.bn, tiles};
    if (best.shape >= 0 && !(cost < least)) continue;
    best = {i, band_of(shape, m, n)};
    least = cost;
  }
  return best;
}

int band_of(const Sm90Shape& shape, int64_t m, int64_t n) {
  const auto [down, across] = tiles_of(shape, m, n);
  for (int band = 8; band > 1; band /= 2)
    if (down % (band * shape.down()) == 0 && across % (band * shape.beside()) == 0) return band;
  return 1;
}

const char* sm90_left_out() {
#if defined(PW_SM90_LEFT_OUT)
  return PW_SM90_LEFT_OUT;
#else
  return nullptr;
#endif
}

const char* why_not_sm90(const GemmW8A8& op, const Sm90Plan& plan, const Card& card) {
  if (card.compute != 90) return "needs compute capability 9.0 (Hopper)";
  if (const char* why = sm90_left_out()) return why;
  if (op.y_dtype != DType::bf16 && op.y_dtype != DType::f16) return "gives outputs of 16 bits only";
  if (!rows_aligned(op.codes, op.m, op.codes_stride, 1))
    return "needs rows of codes that begin at multiples of 16 bytes";
  if (!aligned(op.weight)) return "needs a weight that begins at a multiple of 16 bytes";
  if (!rows_aligned(op.y, op.m, op.y_stride, 2))
    return "needs rows of y that begin at multiples of 16 bytes: N a multiple of 8";
  if (op.m > kMost || op.n > kMost || op.k > kMost || op.codes_stride >= kMostStride || op.y_stride >= kMostStride / 2)
    return "takes less than 2^31 rows, outputs and inputs";
  if (kSm90Shapes[plan.shape].tiles(op.m, op.n) > kMost) return "has more tiles than a launch takes";
  return nullptr;
}

int run_sm90(const GemmW8A8& op, const Sm90Plan& plan, const CudaCall& call) {
  if (op.m == 0 || op.n == 0) return 0;
  GemmSm90 p{};
  p.x = op.codes;
  p.weight = op.weight;
  p.row_scale = op.row_scale;
  p.col_scale = op.col_scale;
  p.bias = op.bias;
  p.y = op.y;
  p.m = static_cast<int>(op.m);
  p.n = static_cast<int>(op.n);
  p.k = static_cast<int>(op.k);
  p.weight_stride = code_row_bytes(op.k);
  // (of a single row a caller may say anything)
  p.x_stride = op.m > 1 ? op.codes_stride : code_row_bytes(op.k);
  p.y_stride = op.m > 1 ? op.y_stride : round_up(op.n, 8);
  p.bf16 = op.y_dtype == DType::bf16;
  p.band = plan.band;
  p.blocks = call.card.multiprocessors;
  return kSm90Shapes[plan.shape].launch(p, call.stream);
}

const char* why_not_gemm_w8a8_int8_sm90(const GemmW8A8Int8& op, const Card& card) { return why_not_sm90(op, card); }
int gemm_w8a8_int8_sm90(const GemmW8A8Int8& op, const CudaCall& call) {
  return run_sm90(op, plan_sm90(op, call.card), call);
}
const char* why_not_gemm_w8a8_fp8_sm90(const GemmW8A8Fp8& op, const Card& card) { return why_not_sm90(op, card); }
int gemm_w8a8_fp8_sm90(const GemmW8A8Fp8& op, const CudaCall& call) {
  return run_sm90(op, plan_sm90(op, call.card), call);
}

}  // namespace pennyweight::cuda
