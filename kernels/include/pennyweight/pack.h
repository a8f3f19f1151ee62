// SPDX-License-Identifier: Apache-2.0
// pack.h: between the checkpoint's layout, the kernels' layout (formats.h) and floats.
#pragma once
#include "pennyweight/formats.h"
#include "pennyweight/registry.h"

namespace pennyweight {

// codes (n, k) row-major <-> INT8_PANEL / FP8_PANEL; on a card <-> CODE_ROWS
struct PackPanel {
  const void* codes;  // (n, k) int8 or E4M3 bytes, contiguous
  void* weight;       // panel bytes; on a card code_rows_bytes(n, k)
  int64_t n, k;
};
struct PackInt8 : PackPanel {
  static constexpr OpId id = OpId::pack_int8;
};
struct PackFp8 : PackPanel {
  static constexpr OpId id = OpId::pack_fp8;
};
struct UnpackPanel {
  const void* weight;
  void* codes;
  int64_t n, k;
};
struct UnpackInt8 : UnpackPanel {
  static constexpr OpId id = OpId::unpack_int8;
};
struct UnpackFp8 : UnpackPanel {
  static constexpr OpId id = OpId::unpack_fp8;
};

// out = code * scale[n], float32
struct DequantizePanel {
  const void* weight;
  const float* scale;  // (n,)
  float* out;          // (n, k)
  int64_t n, k;
};
struct DequantizeInt8 : DequantizePanel {
  static constexpr OpId id = OpId::dequantize_int8;
};
struct DequantizeFp8 : DequantizePanel {
  static constexpr OpId id = OpId::dequantize_fp8;
};

struct PackInt4 {
  const int8_t* codes;  // (n, k), values -8..7
  const float* scale;   // (n, k / group_size); exactly representable in scale_dtype
  const int8_t* zeros;  // (n, k / group_size), values -8..7, or null
  void* weight;         // Int4Panel::bytes()
  int64_t n, k, group_size;
  DType scale_dtype;
  static constexpr OpId id = OpId::pack_int4;
};
struct UnpackInt4 {
  const void* weight;
  int8_t* codes;
  float* scale;
  int8_t* zeros;  // null when the weight has none
  int64_t n, k, group_size;
  DType scale_dtype;
  static constexpr OpId id = OpId::unpack_int4;
};
// out = (q - z) * scale, float32
struct DequantizeInt4 {
  const void* weight;
  float* out;  // (n, k)
  int64_t n, k, group_size, zero_points;
  DType scale_dtype;
  static constexpr OpId id = OpId::dequantize_int4;
};

// The checkpoint's 4-bit words: codes -8..7 stored as q + 8, eight per int32, low nibble first, rows padded with code 0
// (nibble 8 is written for q = 0, padding nibbles are 0).
struct PackNibbles {
  const int8_t* codes;  // (rows, columns)
  int32_t* words;       // (rows, ceil(columns / 8))
  int64_t rows, columns;
  static constexpr OpId id = OpId::pack_nibbles;
};
struct UnpackNibbles {
  const int32_t* words;
  int8_t* codes;
  int64_t rows, columns;
  static constexpr OpId id = OpId::unpack_nibbles;
};

}  // namespace pennyweight
