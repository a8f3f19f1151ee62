// SPDX-License-Identifier: Apache-2.0
// linear_w4a8_int8_avx512vnni.cpp: the tile of linear_w4a8_int8.h on vpdpbusd: up to 6 rows by 64 outputs.
//
// Nibbles (0 .. 15) are the unsigned operand. 24 accumulators + 4 decoded weights + 1 broadcast + 1 mask of 32
// registers; a step's 8 k are two rounds of 4 decoded registers, the second one loaded again from L1, because keeping
// it would cost the registers of a row. Everything in the loop is asm volatile: GCC 12 otherwise merges the loads,
// keeps all eight registers and spills accumulators.
//
// Needs     AVX512-VNNI
// Limit     M = 1 by weight traffic, N * K / 2 bytes and the scales; from M = 16 on by vpdpbusd
// Tried     Zen 4, (4096, 4096), groups of 128, one thread, thread CPU time: M = 16 1.27 ms and M = 256
//           20.4 ms, both 89 % of the vpdpbusd rate and within 6 % of W8A8. Unrolling by pragmas left all
//           accumulators in memory: 55 %.
#include "kernels_int8.h"
#include "linear_w4a8_int8.h"
#include "unroll.h"

namespace pennyweight::cpu::avx512vnni {
namespace {

// Half a step: 4 k from the low nibbles (half 0) or from the high ones (half 1).
template <int half, int rows>
inline PW_INLINE void multiply_half(const int32_t* x, const uint8_t* w, __m512i mask, __m512i (&acc)[rows][4]) {
  __m512i weight[4];
  unroll<4>([&](auto j) PW_INLINE {
    const __m512i* from = reinterpret_cast<const __m512i*>(w + 64 * j);
    if constexpr (half == 0) {
      asm volatile("vpandd %1, %2, %0" : "=v"(weight[j]) : "m"(*from), "v"(mask));
    } else {
      asm volatile("vpsrlw $4, %1, %0" : "=v"(weight[j]) : "m"(*from));
      asm volatile("vpandd %1, %0, %0" : "+v"(weight[j]) : "v"(mask));
    }
  });
  unroll<rows>([&](auto r) PW_INLINE {
    __m512i token;
    asm volatile("vpbroadcastd %1, %0" : "=v"(token) : "m"(x[half * rows + r]));
    unroll<4>([&](auto j) PW_INLINE {
      asm volatile("vpdpbusd %2, %1, %0" : "+v"(acc[r][j]) : "v"(weight[j]), "v"(token));
    });
  });
}

// -(8 + z) * sum x, where the accumulators of a group's outputs 16j .. start.
template <int rows, class Acc>
inline PW_INLINE void start_group(const TileArgs& args, const uint8_t* group, int64_t g, int j, Acc&& acc) {
  auto minus_sum = [&](int r) PW_INLINE { return _mm512_set1_epi32(args.minus_sum[r * args.sum_stride + g]); };
  if (!args.panel->zero_points) {
    unroll<rows>([&](auto r) PW_INLINE { acc(r) = _mm512_slli_epi32(minus_sum(r), 3); });
    return;
  }
  const __m128i* zeros = reinterpret_cast<const __m128i*>(group + args.panel->zero_offset()) + j;
  const __m512i offset = _mm512_add_epi32(_mm512_set1_epi32(8), _mm512_cvtepi8_epi32(_mm_loadu_si128(zeros)));
  unroll<rows>([&](auto r) PW_INLINE { acc(r) = _mm512_mullo_epi32(offset, minus_sum(r)); });
}

// total += acc * scale
inline PW_INLINE void add_group(float* total, __m512i acc, F32x16 scale) {
  store_f32(total, fma(to_float({acc}), scale, load_f32(total)));
}

template <int rows, int lines>
void tile(const TileArgs& args) {
  const Int4Panel& panel = *args.panel;
  const __m512i mask = _mm512_set1_epi8(0x0f);
  const uint8_t* group = args.weight;
  const int32_t* x = args.rows;
  const char* prefetch = args.prefetch;
  for (int64_t g = 0; g < args.groups; ++g) {
    __m512i acc[rows][4];
    unroll<4>([&](auto j) PW_INLINE {
      start_group<rows>(args, group, g, j, [&](auto r) PW_INLINE -> __m512i& { return acc[r][j]; });
    });
    const uint8_t* w = group;
    const char* ahead = prefetch;
    for (const uint8_t* end = w + panel.steps() * kStepBytes; w != end; w += kStepBytes, x += 2 * rows) {
      unroll<lines>([&](auto i) PW_INLINE { _mm_prefetch(ahead + 64 * i, lines < 4 ? _MM_HINT_T1 : _MM_HINT_NTA); });
      ahead += 64 * lines;
      multiply_half<0, rows>(x, w, mask, acc);
      multiply_half<1, rows>(x, w, mask, acc);
    }
    F32x16 scale[4];
    group_scales(args, group, scale);
    unroll<rows>([&](auto r) PW_INLINE {
      unroll<4>([&](auto j) PW_INLINE { add_group(args.total + r * kPanel + 16 * j, acc[r][j], scale[j]); });
    });
    if (lines == 4) prefetch_tail(args, prefetch);
    prefetch += args.prefetch_group;
    group += panel.group_bytes();
  }
}

template <int rows>
void tile_of(const TileArgs& args) {
  switch (args.lines) {
    case 0:
      return tile<rows, 0>(args);
    case 1:
      return tile<rows, 1>(args);
    case 2:
      return tile<rows, 2>(args);
    default:
      return tile<rows, 4>(args);
  }
}

// A group's outputs 16j .. of a narrow tile, every nibble decoded once. x: per step 16 dwords for its low nibbles, 16
// for its high ones.
template <int rows>
void narrow_pass(const TileArgs& args, const uint8_t* group, int64_t g, const int32_t* x, const char* prefetch, int j,
                 F32x16 scale) {
  const __m512i mask = _mm512_set1_epi8(0x0f);
  __m512i acc[rows];
  start_group<rows>(args, group, g, j, [&](auto r) PW_INLINE -> __m512i& { return acc[r]; });
  const uint8_t* w = group + 64 * j;
  for (const uint8_t* end = w + args.panel->steps() * kStepBytes; w != end; w += kStepBytes, x += 2 * kNarrowRows) {
    _mm_prefetch(prefetch, _MM_HINT_T1);
    prefetch += 64;
    const __m512i* from = reinterpret_cast<const __m512i*>(w);
    __m512i low, high;
    asm volatile("vpandd %1, %2, %0" : "=v"(low) : "m"(*from), "v"(mask));
    asm volatile("vpsrlw $4, %1, %0" : "=v"(high) : "m"(*from));
    asm volatile("vpandd %1, %0, %0" : "+v"(high) : "v"(mask));
    unroll<rows>([&](auto r) PW_INLINE {
      asm volatile("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc[r]) : "v"(low), "m"(x[r]));
    });
    unroll<rows>([&](auto r) PW_INLINE {
      asm volatile("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc[r]) : "v"(high), "m"(x[kNarrowRows + r]));
    });
  }
  unroll<rows>([&](auto r) PW_INLINE { add_group(args.total + r * kPanel + 16 * j, acc[r], scale); });
}

template <int rows>
void narrow_tile_of(const TileArgs& args) {
  const int64_t steps = args.panel->steps();
  const uint8_t* group = args.weight;
  const int32_t* x = args.rows;
  const char* prefetch = args.prefetch;
  for (int64_t g = 0; g < args.groups; ++g) {
    F32x16 scale[4];
    group_scales(args, group, scale);
    for (int j = 0; j < 4; ++j) narrow_pass<rows>(args, group, g, x, prefetch + j * steps * 64, j, scale[j]);
    prefetch_tail(args, prefetch);
    prefetch += args.prefetch_group;
    group += args.panel->group_bytes();
    x += steps * 2 * kNarrowRows;
  }
}

struct Kernel {
  static constexpr int kRows = 6, kStreamRows = 6;
  static constexpr bool kHasNarrow = true;
  static float quantize_row(const ActivationRow& row, int8_t* codes) { return quantize_row_int8(row, codes); }
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

void linear_w4a8_int8(const LinearW4A8Int8& op, const Executor& executor) { multiply<Kernel>(op, executor); }

}  // namespace pennyweight::cpu::avx512vnni
