// SPDX-License-Identifier: Apache-2.0
// formats.h: element types and the byte layouts of packed weights (drawn in docs/layouts.md).
//
// A panel is 64 outputs side by side (four 512-bit registers of 16 lanes), K running in order: one sequential stream
// per panel. Outputs past N and inputs past K are padding: INT8 and FP8 codes 0, INT4 code 0 with scale 0.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pennyweight {

enum class DType : int32_t { f32 = 0, f16 = 1, bf16 = 2, i8 = 3, u8 = 4, i32 = 5 };

static inline int64_t dtype_bytes(DType t) {
  switch (t) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f16:
    case DType::bf16:
      return 2;
    default:
      return 1;
  }
}

static inline int64_t round_up(int64_t v, int64_t to) { return (v + to - 1) / to * to; }

constexpr int64_t kPanel = 64;

// ---- INT8_PANEL: [n/64][k/4][n%64][k%4] bytes, each code stored as u8 = code ^ 0x80 (= code + 128)
static inline int64_t int8_panel_bytes(int64_t n, int64_t k) { return round_up(n, kPanel) * round_up(k, 4); }
static inline int64_t int8_panel_offset(int64_t n, int64_t k, int64_t K) {
  return n / kPanel * kPanel * round_up(K, 4) + k / 4 * (4 * kPanel) + n % kPanel * 4 + k % 4;
}

// ---- FP8_PANEL: [n/64][k/4][(n%64)/4][(k%4)/2][n%4][k%2] bytes, E4M3 codes as they are
// (a 128-bit lane holds 4 outputs: its low 8 bytes k pair 0, its high 8 bytes k pair 1, so that unpacking bytes to
// 16 bits yields operands of pairwise bf16 dot products)
static inline int64_t fp8_panel_bytes(int64_t n, int64_t k) { return round_up(n, kPanel) * round_up(k, 4); }
static inline int64_t fp8_panel_offset(int64_t n, int64_t k, int64_t K) {
  return n / kPanel * kPanel * round_up(K, 4) + k / 4 * (4 * kPanel) + n % kPanel / 4 * 16 + k % 4 / 2 * 8 + n % 4 * 2 +
         k % 2;
}

// ---- CODE_ROWS, for cards: [n][round_up(k, 16)] bytes, INT8 or E4M3 codes as the checkpoint has them, each row padded
// with zeros. Tensor cores take operands whose inputs lie side by side, and TMA rows that begin at multiples of 16.
static inline int64_t code_row_bytes(int64_t k) { return round_up(k, 16); }
static inline int64_t code_rows_bytes(int64_t n, int64_t k) { return n * code_row_bytes(k); }

// ---- INT4_PANEL: [n/64][group] blocks; a block is its codes, then 64 scales, then (asymmetric) 64 int8 zero points
// codes: [(k in group)/8][n%64] dwords; nibble j of the low word is k 2j, of the high word k 2j+1; stored q + 8.
// scales: 64 of scale_dtype (bf16, f16 or f32: the narrowest that holds all of a weight's scales exactly).
// zero points: z in -8..7; w = (q - z) * scale.
struct Int4Panel {
  int64_t n, k;
  int64_t group_size;  // 32, 64, 128; k for one scale per channel
  DType scale_dtype;
  bool zero_points;

  int64_t groups() const { return k / group_size; }
  int64_t steps() const { return (group_size + 7) / 8; }  // rows of 64 dwords per group
  int64_t scale_offset() const { return steps() * (4 * kPanel); }
  int64_t zero_offset() const { return scale_offset() + kPanel * dtype_bytes(scale_dtype); }
  int64_t group_bytes() const { return zero_offset() + (zero_points ? kPanel : 0); }
  int64_t panel_bytes() const { return groups() * group_bytes(); }
  int64_t bytes() const { return round_up(n, kPanel) / kPanel * panel_bytes(); }
  int64_t block(int64_t row, int64_t group) const { return row / kPanel * panel_bytes() + group * group_bytes(); }
  // Byte offset of the dword that holds (row, column), and the shift of its nibble.
  int64_t dword(int64_t row, int64_t column) const {
    return block(row, column / group_size) + column % group_size / 8 * (4 * kPanel) + row % kPanel * 4;
  }
  int shift(int64_t column) const {
    const int r = static_cast<int>(column % group_size % 8);
    return r / 2 * 4 + r % 2 * 16;
  }
};

}  // namespace pennyweight
