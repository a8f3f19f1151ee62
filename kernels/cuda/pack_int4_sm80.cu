// SPDX-License-Identifier: Apache-2.0
// pack_int4_sm80.cu: 4-bit weights between codes, INT4_PANEL (docs/layouts.md) and floats; the checkpoint's words.
//
//   out[n,k] = (q[n,k] - z[n,g]) * s[n,g]
//
// Needs     sm_80 as the rest does; any n, k; groups of 32, 64, 128 or the channel; panels aligned to 16 bytes
// Walk      A thread has 4 rows and 8 inputs of a panel's group: one 16-byte access to the panel. 4 threads are 4 steps
//           of the same rows, 8 such quads are 32 rows, so that whole sectors of 32 bytes move on both sides:
//
//                        step  s        s + 1    s + 2    s + 3
//             rows 0 .. 3    ┌────────┬────────┬────────┬────────┐      panel: 128 bytes of each step side by side
//                            │ lane 0 │ lane 1 │ lane 2 │ lane 3 │      rows:  32 codes, 64 bytes of 16-bit floats
//             rows 4 .. 7    │ lane 4 │ ...    │        │        │             or 128 of float32 side by side
//                            └────────┴────────┴────────┴────────┘
//
//           64 threads are a panel's 64 rows and 4 steps; a block has 4 of them, neighbours along K.
// Limit     codes: 1.5 bytes each; floats: 0.5 read, 2 or 4 written, over the memory's bandwidth; decoding takes some
//           5 operations per code, far less time than its bytes
// Numerics  q - z is exact, one product in float32, rounded once
// Reference kernels/reference/pack.cpp          Source  own
// Tried     not yet run on a card; emulated against the reference (tests/cuda)
#include "pack_sm80.h"
#include "ptx/copy.cuh"
#include "table.h"
#include "tile/aligned.h"
#include "tile/bytes.cuh"
#include "tile/int4.cuh"

namespace pennyweight::cuda {
namespace {

constexpr int kThreads = 256, kUnits = kThreads / 64;  // of a panel's rows and 4 steps
constexpr uint32_t kNoCodes = 0x88888888u;             // eight codes 0
constexpr int64_t kMostBlocks = 0x7fffffff;

// The weight, in bytes as Int4Panel has them, and how it is cut.
struct Int4Weight {
  int64_t n, k, group_size, panel_bytes, group_bytes, scale_offset, zero_offset;
  DType scale_dtype;
  bool zero_points;
  int groups, steps, step_quads;  // 4 steps each, the last may have fewer
  unsigned blocks;                // of threads, for one panel

  explicit Int4Weight(const Int4Panel& panel)
      : n(panel.n),
        k(panel.k),
        group_size(panel.group_size),
        panel_bytes(panel.panel_bytes()),
        group_bytes(panel.group_bytes()),
        scale_offset(panel.scale_offset()),
        zero_offset(panel.zero_offset()),
        scale_dtype(panel.scale_dtype),
        zero_points(panel.zero_points),
        groups(static_cast<int>(panel.groups())),
        steps(static_cast<int>(panel.steps())),
        step_quads((steps + 3) / 4),
        blocks((static_cast<unsigned>(groups) * step_quads + kUnits - 1) / kUnits) {}
  dim3 grid() const { return dim3(static_cast<unsigned>((n + kPanel - 1) / kPanel) * blocks); }
};

// What a thread has: rows row .. row + 3, inputs column .. column + count.
struct Spot {
  bool there;
  int64_t row, column;
  int count, group, step, quad;
  int64_t block;  // where the group's block begins

  __device__ __forceinline__ explicit Spot(const Int4Weight& w) {
    const unsigned panel = blockIdx.x / w.blocks;
    const unsigned unit = (blockIdx.x - panel * w.blocks) * kUnits + threadIdx.x / 64;
    group = static_cast<int>(unit / static_cast<unsigned>(w.step_quads));
    step = (static_cast<int>(unit) - group * w.step_quads) * 4 + static_cast<int>(threadIdx.x & 3);
    quad = static_cast<int>(threadIdx.x >> 2 & 15);
    row = static_cast<int64_t>(panel) * kPanel + quad * 4;
    column = group * w.group_size + step * 8;
    count = piece_count(w.group_size - step * 8, 8);
    block = panel * w.panel_bytes + group * w.group_bytes;
    there = group < w.groups && step < w.steps;
  }
  __device__ __forceinline__ int64_t words() const { return block + step * (4 * kPanel) + quad * 16; }
};

struct Int4Codes {
  int8_t* codes;  // (n, k)
  float* scale;   // (n, groups)
  int8_t* zeros;  // (n, groups) or null
  unsigned char* weight;
  bool vector;  // eight codes are aligned
};

// Four scales and zero points, of which rows past n have none.
PW_DEVICE void pack_tail(const Int4Weight& w, const Int4Codes& c, const Spot& spot) {
  float scale[4];
  uint32_t zeros = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t at = (spot.row + i) * w.groups + spot.group;
    const bool there = spot.row + i < w.n;
    scale[i] = there ? c.scale[at] : 0.0f;
    if (w.zero_points && there) zeros |= static_cast<uint32_t>(static_cast<uint8_t>(c.zeros[at])) << (8 * i);
  }
  const Output out{c.weight + spot.block + w.scale_offset, 0, w.scale_dtype, true};
  store_floats(out, 0, spot.quad * 4, 4, scale);
  if (w.zero_points) *reinterpret_cast<uint32_t*>(c.weight + spot.block + w.zero_offset + spot.quad * 4) = zeros;
}

__global__ void __launch_bounds__(kThreads) pack_int4_panels(const Int4Weight w, const Int4Codes c) {
  const Spot spot(w);
  if (!spot.there) return;
  Four words;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    words.word[i] = kNoCodes;
    if (spot.row + i >= w.n) continue;
    uint32_t bytes[2];
    load_bytes(c.codes + (spot.row + i) * w.k + spot.column, spot.count, c.vector, bytes);
    words.word[i] = panel_order(word_of_codes(bytes));
  }
  *reinterpret_cast<Four*>(c.weight + spot.words()) = words;
  if (spot.step == 0) pack_tail(w, c, spot);
}

// The four scales and zero points of a thread's rows.
PW_DEVICE void load_tail(const Int4Weight& w, const unsigned char* weight, const Spot& spot, float (&scale)[4],
                         int (&zero)[4]) {
  load_scales(weight + spot.block + w.scale_offset + spot.quad * 4 * (w.scale_dtype == DType::f32 ? 4 : 2),
              w.scale_dtype, scale);
  const uint32_t zeros =
      w.zero_points ? *reinterpret_cast<const uint32_t*>(weight + spot.block + w.zero_offset + spot.quad * 4) : 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) zero[i] = static_cast<int8_t>(zeros >> (8 * i));
}

__global__ void __launch_bounds__(kThreads) unpack_int4_panels(const Int4Weight w, const Int4Codes c) {
  const Spot spot(w);
  if (!spot.there) return;
  const uint4 four = ptx::load_once(c.weight + spot.words());
  const uint32_t words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (spot.row + i >= w.n) break;
    uint32_t bytes[2];
    codes_of_word(natural_order(words[i]), bytes);
    store_bytes(c.codes + (spot.row + i) * w.k + spot.column, spot.count, c.vector, bytes);
  }
  if (spot.step != 0) return;
  float scale[4];
  int zero[4];
  load_tail(w, c.weight, spot, scale, zero);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t at = (spot.row + i) * w.groups + spot.group;
    if (spot.row + i >= w.n) break;
    c.scale[at] = scale[i];
    if (w.zero_points) c.zeros[at] = static_cast<int8_t>(zero[i]);
  }
}

__global__ void __launch_bounds__(kThreads)
    decode_int4_panels(const Int4Weight w, const unsigned char* weight, const Output out) {
  const Spot spot(w);
  if (!spot.there) return;
  const uint4 four = ptx::load_once(weight + spot.words());
  const uint32_t words[4] = {four.x, four.y, four.z, four.w};
  float scale[4];
  int zero[4];
  load_tail(w, weight, spot, scale, zero);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (spot.row + i >= w.n) break;
    const float offset = static_cast<float>((1 << 23) + 8 + zero[i]);
    float v[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const uint32_t nibble = words[i] >> (j / 2 * 4 + j % 2 * 16) & 15u;
      v[j] = (bits_f32(0x4b000000u | nibble) - offset) * scale[i];  // (2^23 + nibble) - (2^23 + 8 + z)
    }
    store_floats(out, spot.row + i, spot.column, spot.count, v);
  }
}

// ---- the checkpoint's words
__global__ void __launch_bounds__(kPieceThreads) pack_nibble_words(const PackNibbles p, bool vector) {
  const int64_t words = (p.columns + 7) / 8;
  for_pieces(p.rows, words, [&](int64_t row, int64_t piece) {
    const int count = piece_count(p.columns - piece * 8, 8);
    uint32_t bytes[2];
    load_bytes(p.codes + row * p.columns + piece * 8, count, vector, bytes);
    const uint32_t there = count == 8 ? ~0u : (1u << (4 * count)) - 1;  // padding is nibble 0
    p.words[row * words + piece] = static_cast<int32_t>(word_of_codes(bytes) & there);
  });
}

__global__ void __launch_bounds__(kPieceThreads) unpack_nibble_words(const UnpackNibbles p, bool vector) {
  const int64_t words = (p.columns + 7) / 8;
  for_pieces(p.rows, words, [&](int64_t row, int64_t piece) {
    uint32_t bytes[2];
    codes_of_word(static_cast<uint32_t>(p.words[row * words + piece]), bytes);
    store_bytes(p.codes + row * p.columns + piece * 8, piece_count(p.columns - piece * 8, 8), vector, bytes);
  });
}

}  // namespace

const char* why_not_int4_panel(const void* weight, const Int4Panel& panel, const Card& card) {
  if (const char* why = needs_sm80(card)) return why;
  if (!aligned(weight)) return "needs a packed weight that begins at a multiple of 16 bytes";
  const int64_t units = panel.groups() * ((panel.steps() + 3) / 4), panels = (panel.n + kPanel - 1) / kPanel;
  const bool fits =
      units <= kMostBlocks && panels <= kMostBlocks && (units + kUnits - 1) / kUnits <= kMostBlocks / panels;
  return fits ? nullptr : "has more panels and groups than a launch takes";
}

int pack_int4_sm80(const PackInt4& op, const CudaCall& call) {
  const Int4Weight w({op.n, op.k, op.group_size, op.scale_dtype, op.zeros != nullptr});
  const Int4Codes c{const_cast<int8_t*>(op.codes), const_cast<float*>(op.scale), const_cast<int8_t*>(op.zeros),
                    static_cast<unsigned char*>(op.weight), pieces_aligned(op.codes, op.k, 8)};
  return launch(pack_int4_panels, w.grid(), dim3(kThreads), 0, call.stream, w, c);
}
int unpack_int4_sm80(const UnpackInt4& op, const CudaCall& call) {
  const Int4Weight w({op.n, op.k, op.group_size, op.scale_dtype, op.zeros != nullptr});
  const Int4Codes c{op.codes, op.scale, op.zeros, static_cast<unsigned char*>(const_cast<void*>(op.weight)),
                    pieces_aligned(op.codes, op.k, 8)};
  return launch(unpack_int4_panels, w.grid(), dim3(kThreads), 0, call.stream, w, c);
}
int decode_int4_sm80(const void* weight, const Int4Panel& panel, void* out, DType dtype, void* stream) {
  const Int4Weight w(panel);
  const Output output{out, panel.k, dtype, aligned_for_vectors(out, panel.k)};
  return launch(decode_int4_panels, w.grid(), dim3(kThreads), 0, stream, w, static_cast<const unsigned char*>(weight),
                output);
}
int dequantize_int4_sm80(const DequantizeInt4& op, const CudaCall& call) {
  return decode_int4_sm80(op.weight, {op.n, op.k, op.group_size, op.scale_dtype, op.zero_points != 0}, op.out,
                          DType::f32, call.stream);
}

int pack_nibbles_sm80(const PackNibbles& op, const CudaCall& call) {
  return launch(pack_nibble_words, piece_grid(op.rows, (op.columns + 7) / 8), dim3(kPieceThreads), 0, call.stream, op,
                pieces_aligned(op.codes, op.columns, 8));
}
int unpack_nibbles_sm80(const UnpackNibbles& op, const CudaCall& call) {
  return launch(unpack_nibble_words, piece_grid(op.rows, (op.columns + 7) / 8), dim3(kPieceThreads), 0, call.stream, op,
                pieces_aligned(op.codes, op.columns, 8));
}

}  // namespace pennyweight::cuda
