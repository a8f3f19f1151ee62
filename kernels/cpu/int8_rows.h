// SPDX-License-Identifier: Apache-2.0
// int8_rows.h: activations of the INT8 kernels: quantized by row, cut into tiles of a few rows, interleaved.
//
// A kernel multiplies a tile of rows at once, four k at a time (a dword of each row), so a tile's dwords lie in the
// order in which they are broadcast:
//
//            tile of 3 rows              step 0     step 1
//   row 0  k 0 1 2 3 | 4 5 6 7 | ...     r0 r1 r2 | r0 r1 r2 | ...      a dword each: codes k .. k+3 of one row
//   row 1  k 0 1 2 3 | 4 5 6 7 | ...  →
//   row 2  k 0 1 2 3 | 4 5 6 7 | ...
//
// Codes past K are 0, so that whatever a weight's padding holds counts for nothing.
//
// A tile is narrow where 7 to 16 rows go over 16 outputs at a time: all rows in one tile, 16 dwords a step whatever
// their number, which threads interleave four rows each.
#pragma once
#include "f32x16.h"
#include "pennyweight/executor.h"
#include "quantize_row.h"
#include "scratch.h"

namespace pennyweight::cpu {
namespace {

// Where rows come from: floats to be quantized, or codes (dtype i8) with scales.
struct Activations {
  const void* x;           // rows x_stride elements apart
  const float* smooth;     // (k,) or null; null for codes
  const float* row_scale;  // of codes; null when the caller wants bare accumulators
  int64_t k, x_stride;
  DType dtype;
};

constexpr int64_t kNarrowRows = 16;

// m rows in the fewest tiles of at most `largest` rows, as even as can be: 16 rows in sixes are 6 + 5 + 5. One narrow
// tile where there are narrow ones and too many rows for one of the others.
struct RowTiles {
  int64_t m, count;
  bool narrow;
  RowTiles(int64_t rows, int64_t largest, bool has_narrow)
      : m(rows), count((rows + largest - 1) / largest), narrow(has_narrow && rows > largest && rows <= kNarrowRows) {
    if (narrow) count = 1;
  }
  int rows(int64_t tile) const { return static_cast<int>(m / count + (tile < m % count)); }
  int64_t first(int64_t tile) const { return tile * (m / count) + (tile < m % count ? tile : m % count); }
};

// Codes of a tile's rows, each zeroed beyond K up to a multiple of 16; 64 bytes more keep rows of 4096 from sharing
// one set of the cache.
struct CodeRows {
  int8_t* data;
  int64_t stride;
  explicit CodeRows(int64_t k, int rows) : data(nullptr), stride(round_up(k, 64) + 64) {
    data = static_cast<int8_t*>(scratch(Slot::panel, stride * rows));
  }
  int8_t* row(int r) const { return data + r * stride; }
};

// Row m's codes into `codes`; returns its scale.
template <class QuantizeRow>
inline float read_row(const Activations& a, int64_t m, int8_t* codes, QuantizeRow&& quantize_row) {
  const void* x = static_cast<const char*>(a.x) + m * a.x_stride * dtype_bytes(a.dtype);
  __builtin_memset(codes + a.k / 16 * 16, 0, 16);
  if (a.dtype != DType::i8) return quantize_row({x, a.smooth, a.k, a.dtype}, codes);
  copy_bytes(codes, x, a.k);
  return a.row_scale ? a.row_scale[m] : 0.0f;
}

// Sum of `count` codes, a multiple of 16 (whose tail is zeroed).
inline int32_t sum_codes(const int8_t* codes, int64_t count) {
  const __m128i ones8 = _mm_set1_epi8(1), ones16 = _mm_set1_epi16(1);
  __m128i sum = _mm_setzero_si128();
  for (int64_t i = 0; i < count; i += 16) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i));
    sum = _mm_add_epi32(sum, _mm_madd_epi16(_mm_maddubs_epi16(ones8, v), ones16));
  }
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

// ---- interleaving: `rows` rows of dwords -> [step][row], four steps at a time, in order, so that a 16-byte store may
// reach into what the next one overwrites. Writes up to kSlack dwords past the last of steps rounded up to 4.
constexpr int64_t kSlack = 4;

// Dwords from the start of the packed rows to tile `tile`.
inline int64_t packed_offset(const RowTiles& tiles, int64_t tile, int64_t steps) {
  return tiles.first(tile) * round_up(steps, 4) + tile * kSlack;
}
inline int64_t packed_bytes(const RowTiles& tiles, int64_t steps) {
  if (tiles.narrow) return round_up(steps, 4) * kNarrowRows * 4;
  return (packed_offset(tiles, tiles.count - 1, steps) + tiles.rows(tiles.count - 1) * round_up(steps, 4) + kSlack) * 4;
}

// order: a byte shuffle of 16 codes before they are interleaved.
static const __m128i kInOrder = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
inline void interleave(const CodeRows& codes, int rows, int64_t steps, __m128i order, int32_t* packed) {
  auto chunk = [&](int r, int64_t step) {
    const __m128i* p = reinterpret_cast<const __m128i*>(codes.row(r < rows ? r : 0) + step * 4);
    return _mm_shuffle_epi8(_mm_loadu_si128(p), order);
  };
  auto put = [](int32_t* to, __m128i v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), v); };
  for (int64_t step = 0; step < steps; step += 4, packed += 4 * rows) {
    if (rows == 1) {
      put(packed, chunk(0, step));
      continue;
    }
    const __m128i a = chunk(0, step), b = chunk(1, step), c = chunk(2, step), d = chunk(3, step);
    const __m128i ab0 = _mm_unpacklo_epi32(a, b), ab2 = _mm_unpackhi_epi32(a, b);  // steps 0 and 1, 2 and 3
    const __m128i cd0 = _mm_unpacklo_epi32(c, d), cd2 = _mm_unpackhi_epi32(c, d);
    const __m128i first[4] = {_mm_unpacklo_epi64(ab0, cd0), _mm_unpackhi_epi64(ab0, cd0), _mm_unpacklo_epi64(ab2, cd2),
                              _mm_unpackhi_epi64(ab2, cd2)};  // a step's rows 0 to 3
    if (rows <= 4) {
      for (int i = 0; i < 4; ++i) put(packed + i * rows, first[i]);
      continue;
    }
    const __m128i e = chunk(4, step), f = chunk(5, step);
    const __m128i ef0 = _mm_unpacklo_epi32(e, f), ef2 = _mm_unpackhi_epi32(e, f);
    const __m128i second[4] = {ef0, _mm_unpackhi_epi64(ef0, ef0), ef2, _mm_unpackhi_epi64(ef2, ef2)};
    for (int i = 0; i < 4; ++i) {
      put(packed + i * rows, first[i]);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(packed + i * rows + 4), second[i]);
    }
  }
}

// Up to four rows into their places among the kNarrowRows of a step.
inline void interleave_narrow(const CodeRows& codes, int rows, int64_t steps, __m128i order, int32_t* packed) {
  for (int64_t step = 0; step < steps; step += 4, packed += 4 * kNarrowRows) {
    __m128i v[4];
    for (int r = 0; r < 4; ++r) {
      const __m128i* p = reinterpret_cast<const __m128i*>(codes.row(r < rows ? r : 0) + step * 4);
      v[r] = _mm_shuffle_epi8(_mm_loadu_si128(p), order);
    }
    const __m128i low01 = _mm_unpacklo_epi32(v[0], v[1]), high01 = _mm_unpackhi_epi32(v[0], v[1]);
    const __m128i low23 = _mm_unpacklo_epi32(v[2], v[3]), high23 = _mm_unpackhi_epi32(v[2], v[3]);
    const __m128i dwords[4] = {_mm_unpacklo_epi64(low01, low23), _mm_unpackhi_epi64(low01, low23),
                               _mm_unpacklo_epi64(high01, high23), _mm_unpackhi_epi64(high01, high23)};
    for (int i = 0; i < 4; ++i) _mm_store_si128(reinterpret_cast<__m128i*>(packed + i * kNarrowRows), dwords[i]);
  }
}

// Work below this many codes is not worth a parallel region.
constexpr int64_t kParallelCodes = 1 << 15;

// Runs pack(tile) for every tile: here when there is little to do, else over the executor.
template <class F>
inline void for_each_tile(const Executor& executor, const RowTiles& tiles, int64_t k, F&& pack) {
  parallel_for(tiles.m * k < kParallelCodes ? Executor{} : executor, tiles.count, static_cast<F&&>(pack));
}

// Runs the tile of a kernel that fits; args are the kernel's own.
template <class Kernel, class Args>
inline void multiply_tile(const RowTiles& tiles, int rows, const Args& args) {
  if constexpr (Kernel::kHasNarrow)
    if (tiles.narrow) return Kernel::narrow_tile(rows, args);
  Kernel::tile(rows, args);
}

// Packs a narrow tile; make(row, codes) gives a row's codes.
template <class Make>
inline void pack_narrow(const Executor& executor, const RowTiles& tiles, int64_t k, int64_t steps, __m128i order,
                        int32_t* packed, Make&& make) {
  parallel_chunks(tiles.m * k < kParallelCodes ? Executor{} : executor, tiles.m, 4, [&](int64_t begin, int64_t end) {
    const int rows = static_cast<int>(end - begin);
    const CodeRows codes(k, rows);
    for (int r = 0; r < rows; ++r) make(begin + r, codes.row(r));
    interleave_narrow(codes, rows, steps, order, packed + begin);
  });
}

// ---- large M is cut into blocks of at most this many rows, so that workspace does not grow with it
constexpr int64_t kRowBlock = 512;

template <class F>
inline void for_each_row_block(int64_t m, F&& f) {
  const int64_t blocks = (m + kRowBlock - 1) / kRowBlock;
  for (int64_t b = 0; b < blocks; ++b) f(m * b / blocks, m * (b + 1) / blocks);
}

// Tasks are a panel of 64 outputs each; where these are few, also runs of 16 row tiles. Only the shape decides.
struct TaskGrid {
  int64_t panels, tiles, run;
  TaskGrid(int64_t n, int64_t tile_count) : panels((n + kPanel - 1) / kPanel), tiles(tile_count), run(tile_count) {
    if (panels < 64 && tiles > 16) run = 16;
  }
  int64_t runs() const { return (tiles + run - 1) / run; }
  int64_t tasks() const { return panels * runs(); }
};

// ---- where results go
struct Output {
  void* y;
  int64_t n, stride;
  const void* bias;  // (n,) of dtype, or null
  DType dtype;
};

// A panel's part of a vector of n values as 64 floats, zero past n. Without a vector nothing is written.
inline void panel_floats(const void* from, DType dtype, int64_t n0, int64_t n, float* to) {
  if (!from) return;
  with_dtype(dtype, [&](auto tag) {
    constexpr DType type = decltype(tag)::value;
    const char* p = static_cast<const char*>(from) + n0 * dtype_bytes(type);
    for (int64_t i = 0; i < kPanel; i += 16) {
      const int64_t left = n - n0 - i;
      const int count = left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0;
      store_f32(to + i, load<type>(p + i * dtype_bytes(type), count));
    }
  });
}

// Stores value(j), outputs n0 + 16j .., + bias, of row m; `bias` holds the panel's 64.
template <class Value>
inline void store_row(const Output& out, int64_t m, int64_t n0, const float* bias, Value&& value) {
  with_dtype(out.dtype, [&](auto tag) {
    constexpr DType dtype = decltype(tag)::value;
    char* y = static_cast<char*>(out.y) + (m * out.stride + n0) * dtype_bytes(dtype);
    for (int64_t j = 0; j < 4 && n0 + 16 * j < out.n; ++j) {
      F32x16 v = value(j);
      if (out.bias) v = v + load_f32(bias + 16 * j);
      const int64_t left = out.n - n0 - 16 * j;
      store<dtype>(y + 16 * j * dtype_bytes(dtype), v, left < 16 ? static_cast<int>(left) : 16);
    }
  });
}

}  // namespace
}  // namespace pennyweight::cpu
