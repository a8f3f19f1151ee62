// SPDX-License-Identifier: Apache-2.0
// linear_w8a8_int8_avx512vnni.cpp: the INT8 tile of linear_w8a8_int8.h on vpdpbusd: up to 6 rows by 64 outputs.
//
// vpdpbusd multiplies unsigned by signed bytes, four at a time, into int32: weights (stored as w + 128) are the
// unsigned operand, a row's dword, broadcast, the signed one. 24 accumulators + 4 weights + 1 broadcast of 32
// registers:
//
//               weights  w0    w1    w2    w3        a step: 4 loads, 6 broadcasts, 24 products
//   row 0   x0 →       ┌─────┬─────┬─────┬─────┐
//   row 1   x1 →       │ acc │ acc │ acc │ acc │
//    ...               │     │     │     │     │
//   row 5   x5 →       └─────┴─────┴─────┴─────┘
//
// A narrow tile is 7 to 16 rows by 16 outputs, each register of weights loaded once for all rows, their dwords
// broadcast as operands; four passes over a block of 16 KB.
//
// Needs     AVX512-VNNI
// Limit     M <= 6 is bound by weight traffic, N * K bytes; from M = 12 on by one vpdpbusd (128 operations) per cycle
// Tried     Zen 4, (4096, 4096), one thread, thread CPU time, best of 9 cold calls: M = 16 1.24 ms and M = 256
//           19.2 ms are 92 and 94 % of the vpdpbusd rate (473 GOP/s); M = 1 streams at 90 to 95 % of what a bare read
//           loop reaches. M = 4 prefetched into L2 instead of L1: 829 us instead of 529. Products are asm volatile
//           because GCC 12 reorders the intrinsics until a 6x4 tile no longer fits its registers and is spilled.
//           Ice Lake, one thread, (512, 4096), M = 32, 64, 252: the next block fetched by the first four tiles 343,
//           547, 2006 us; by all of them evenly 323, 509, 1925 us (the tile alone, from L2, runs at 93 to 100 % of the
//           vpdpbusd rate, but fetches of the same moment share twelve fill buffers with its loads). Two or four
//           panels per pass over the rows: no gain.
//           Zen 4, two threads, 34 GB/s, (28672, 4096) cold, M = 2, 4, prefetched 2, 4, 8, 16 KB ahead: 3592, 3505,
//           3521, 3469 us and 3691, 3390, 3450, 3365 (zentorch: 3340 to 3430); in (4096, 4096) at M = 4 95 to 97, 100
//           and 100 % of the read bandwidth for 4, 8 and 16 KB. Zen 4, two threads, 33 GB/s, (4096, 4096) cold: M = 8
//           and 16 in sixes 608 and 755 us, narrow 571 and 702. The narrow tile alone, share of the peak at M = 16:
//           blocks of 4, 8, 16, 64 KB, the next one fetched to L2: 79, 83, 96, 84 %; to L1: 88, 87, 86, 71 %; no blocks
//           and no fetching 43 %, since the four registers of a panel are four strided streams. (The machine moves
//           these by 10 % within minutes.) M = 32 to 256 in sixes, blocks of 8, 16, 32, 64, 128 KB: 76, 82, 85, 89, 90
//           %.
#include "kernels_int8.h"
#include "linear_w8a8_int8.h"
#include "pennyweight/device.h"
#include "unroll.h"

namespace pennyweight::cpu::avx512vnni {
namespace {

template <int rows, int lines>
void tile(const TileArgs& args) {
  __m512i acc[rows][4];
  unroll<rows>([&](auto r) PW_INLINE {
    unroll<4>([&](auto j) PW_INLINE {
      acc[r][j] = args.start ? _mm512_set1_epi32(args.start[r]) : _mm512_load_si512(args.acc + r * kPanel + 16 * j);
    });
  });
  const int32_t* x = static_cast<const int32_t*>(args.rows);
  const uint8_t* w = args.weight;
  const char* prefetch = args.prefetch;
  for (const uint8_t* end = w + args.steps * kStepBytes; w != end; w += kStepBytes, x += rows) {
    __m512i weight[4];
    unroll<4>([&](auto j) PW_INLINE {
      asm volatile("vmovdqu64 %1, %0" : "=v"(weight[j]) : "m"(*reinterpret_cast<const __m512i*>(w + 64 * j)));
    });
    unroll<lines>([&](auto i) PW_INLINE { _mm_prefetch(prefetch + 64 * i, lines < 4 ? _MM_HINT_T1 : _MM_HINT_NTA); });
    prefetch += args.advance;
    unroll<rows>([&](auto r) PW_INLINE {
      __m512i token;
      asm volatile("vpbroadcastd %1, %0" : "=v"(token) : "m"(x[r]));
      unroll<4>([&](auto j) PW_INLINE {
        asm volatile("vpdpbusd %2, %1, %0" : "+v"(acc[r][j]) : "v"(weight[j]), "v"(token));
      });
    });
  }
  unroll<rows>([&](auto r) PW_INLINE {
    unroll<4>([&](auto j) PW_INLINE { _mm512_store_si512(args.acc + r * kPanel + 16 * j, acc[r][j]); });
  });
}

// Outputs 16j .. of a narrow tile. The next block is fetched to L2 at the pace of the products, a line a step.
template <int rows>
void narrow_pass(const TileArgs& args, int j) {
  __m512i acc[rows];
  unroll<rows>([&](auto r) PW_INLINE {
    acc[r] = args.start ? _mm512_set1_epi32(args.start[r]) : _mm512_load_si512(args.acc + r * kPanel + 16 * j);
  });
  const int32_t* x = static_cast<const int32_t*>(args.rows);
  const uint8_t* w = args.weight + 64 * j;
  const char* prefetch = args.prefetch + 64 * j * args.steps;
  for (const uint8_t* end = w + args.steps * kStepBytes; w != end; w += kStepBytes, x += kNarrowRows) {
    _mm_prefetch(prefetch, _MM_HINT_T1);
    prefetch += 64;
    __m512i weight;
    asm volatile("vmovdqu64 %1, %0" : "=v"(weight) : "m"(*reinterpret_cast<const __m512i*>(w)));
    unroll<rows>([&](auto r) PW_INLINE {
      asm volatile("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc[r]) : "v"(weight), "m"(x[r]));
    });
  }
  unroll<rows>([&](auto r) PW_INLINE { _mm512_store_si512(args.acc + r * kPanel + 16 * j, acc[r]); });
}

template <int rows>
void narrow_tile_of(const TileArgs& args) {
  for (int j = 0; j < 4; ++j) narrow_pass<rows>(args, j);
}

template <int rows>
void tile_of(const TileArgs& args) {
  if (args.advance <= 64) return tile<rows, 1>(args);
  if (args.advance <= 128) return tile<rows, 2>(args);
  tile<rows, 4>(args);
}

struct Kernel {
  static constexpr int kRows = 6, kStreamRows = 6;
  static constexpr bool kHasNarrow = true;
  // From L2, with room for the next block on its way. 16 KB, from L1, loses 2 to 5 % at every M >= 16: accumulators
  // come and go more often than the closer weights repay. 256 KB loses 7 % at M = 16, K = 14336.
  static int64_t block_bytes() { return device().l2_bytes / 8; }
  static float quantize_row(const ActivationRow& row, int8_t* codes) { return quantize_row_int8(row, codes); }
  static int64_t packed_bytes(const RowTiles& tiles, int64_t steps) { return cpu::packed_bytes(tiles, steps); }
  // Step `step` of a packed tile.
  static void* packed(void* rows, const RowTiles& tiles, int64_t tile, int64_t steps, int64_t step) {
    const int64_t per_step = tiles.narrow ? kNarrowRows : tiles.rows(tile);
    return static_cast<int32_t*>(rows) + packed_offset(tiles, tile, steps) + step * per_step;
  }
  static void pack(const CodeRows& codes, int rows, int64_t steps, void* packed) {
    interleave(codes, rows, steps, kInOrder, static_cast<int32_t*>(packed));
  }
  static void tile(int rows, const TileArgs& args) {
    static constexpr void (*tiles[])(const TileArgs&) = {tile_of<1>, tile_of<2>, tile_of<3>,
                                                         tile_of<4>, tile_of<5>, tile_of<6>};
    tiles[rows - 1](args);
  }
  static void narrow_tile(int rows, const TileArgs& args) {
    static constexpr void (*tiles[])(const TileArgs&) = {
        narrow_tile_of<7>,  narrow_tile_of<8>,  narrow_tile_of<9>,  narrow_tile_of<10>, narrow_tile_of<11>,
        narrow_tile_of<12>, narrow_tile_of<13>, narrow_tile_of<14>, narrow_tile_of<15>, narrow_tile_of<16>};
    tiles[rows - 7](args);
  }
};

}  // namespace

void gemm_w8a8_int8(const GemmW8A8Int8& op, const Executor& executor) { gemm<Kernel>(op, executor); }
void linear_w8a8_int8(const LinearW8A8Int8& op, const Executor& executor) { linear<Kernel>(op, executor); }

}  // namespace pennyweight::cpu::avx512vnni
