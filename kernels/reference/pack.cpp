// SPDX-License-Identifier: Apache-2.0
// pack.cpp: layouts, element by element, through the index functions of formats.h.
#include "pennyweight/pack.h"

#include <cstring>

#include "pennyweight/numerics.h"
#include "reference.h"

namespace pennyweight::reference {
namespace {

using Offset = int64_t (*)(int64_t n, int64_t k, int64_t K);

// Copies codes (n, k) into a panel whose padding is `zero`, each byte xored with `flip`.
void pack_panel(const PackPanel& op, const Executor& executor, Offset offset, int64_t bytes, uint8_t flip) {
  const uint8_t* codes = static_cast<const uint8_t*>(op.codes);
  uint8_t* weight = static_cast<uint8_t*>(op.weight);
  std::memset(weight, flip, bytes);
  parallel_for(executor, op.n, [&](int64_t n) {
    for (int64_t k = 0; k < op.k; ++k) weight[offset(n, k, op.k)] = codes[n * op.k + k] ^ flip;
  });
}

void unpack_panel(const UnpackPanel& op, const Executor& executor, Offset offset, uint8_t flip) {
  const uint8_t* weight = static_cast<const uint8_t*>(op.weight);
  uint8_t* codes = static_cast<uint8_t*>(op.codes);
  parallel_for(executor, op.n, [&](int64_t n) {
    for (int64_t k = 0; k < op.k; ++k) codes[n * op.k + k] = weight[offset(n, k, op.k)] ^ flip;
  });
}

template <class Decode>
void dequantize_panel(const DequantizePanel& op, const Executor& executor, Offset offset, Decode&& decode) {
  const uint8_t* weight = static_cast<const uint8_t*>(op.weight);
  parallel_for(executor, op.n, [&](int64_t n) {
    for (int64_t k = 0; k < op.k; ++k) op.out[n * op.k + k] = decode(weight[offset(n, k, op.k)]) * op.scale[n];
  });
}

int nibble(const uint8_t* weight, const Int4Panel& panel, int64_t n, int64_t k) {
  const uint32_t word = *reinterpret_cast<const uint32_t*>(weight + panel.dword(n, k));
  return static_cast<int>(word >> panel.shift(k) & 15u) - 8;
}

}  // namespace

void pack_int8(const PackInt8& op, const Executor& executor) {
  pack_panel(op, executor, int8_panel_offset, int8_panel_bytes(op.n, op.k), 0x80);
}
void unpack_int8(const UnpackInt8& op, const Executor& executor) { unpack_panel(op, executor, int8_panel_offset, 0x80); }
void dequantize_int8(const DequantizeInt8& op, const Executor& executor) {
  dequantize_panel(op, executor, int8_panel_offset, [](uint8_t v) { return static_cast<float>(v - 128); });
}
void pack_fp8(const PackFp8& op, const Executor& executor) {
  pack_panel(op, executor, fp8_panel_offset, fp8_panel_bytes(op.n, op.k), 0);
}
void unpack_fp8(const UnpackFp8& op, const Executor& executor) { unpack_panel(op, executor, fp8_panel_offset, 0); }
void dequantize_fp8(const DequantizeFp8& op, const Executor& executor) {
  dequantize_panel(op, executor, fp8_panel_offset, e4m3_f32);
}

void pack_int4(const PackInt4& op, const Executor& executor) {
  const Int4Panel panel{op.n, op.k, op.group_size, op.scale_dtype, op.zeros != nullptr};
  uint8_t* weight = static_cast<uint8_t*>(op.weight);
  // A task is a panel: blocks of code 0 (nibble 8), scale 0 and zero point 0, then its rows.
  parallel_for(executor, round_up(op.n, kPanel) / kPanel, [&](int64_t p) {
    for (int64_t g = 0; g < panel.groups(); ++g) {
      uint8_t* block = weight + panel.block(p * kPanel, g);
      std::memset(block, 0x88, panel.scale_offset());
      std::memset(block + panel.scale_offset(), 0, panel.group_bytes() - panel.scale_offset());
    }
    const int64_t end = (p + 1) * kPanel < op.n ? (p + 1) * kPanel : op.n;
    for (int64_t n = p * kPanel; n < end; ++n) {
      for (int64_t k = 0; k < op.k; ++k) {
        uint32_t* word = reinterpret_cast<uint32_t*>(weight + panel.dword(n, k));
        const int shift = panel.shift(k);
        *word = (*word & ~(15u << shift)) | static_cast<uint32_t>(op.codes[n * op.k + k] + 8) << shift;
      }
      for (int64_t g = 0; g < panel.groups(); ++g) {
        uint8_t* block = weight + panel.block(n, g);
        store_f32(block + panel.scale_offset(), op.scale_dtype, n % kPanel, op.scale[n * panel.groups() + g]);
        if (op.zeros) block[panel.zero_offset() + n % kPanel] = static_cast<uint8_t>(op.zeros[n * panel.groups() + g]);
      }
    }
  });
}

void unpack_int4(const UnpackInt4& op, const Executor& executor) {
  const Int4Panel panel{op.n, op.k, op.group_size, op.scale_dtype, op.zeros != nullptr};
  const uint8_t* weight = static_cast<const uint8_t*>(op.weight);
  parallel_for(executor, op.n, [&](int64_t n) {
    for (int64_t k = 0; k < op.k; ++k) op.codes[n * op.k + k] = static_cast<int8_t>(nibble(weight, panel, n, k));
    for (int64_t g = 0; g < panel.groups(); ++g) {
      const uint8_t* block = weight + panel.block(n, g);
      op.scale[n * panel.groups() + g] = load_f32(block + panel.scale_offset(), op.scale_dtype, n % kPanel);
      if (op.zeros) op.zeros[n * panel.groups() + g] = static_cast<int8_t>(block[panel.zero_offset() + n % kPanel]);
    }
  });
}

void dequantize_int4(const DequantizeInt4& op, const Executor& executor) {
  const Int4Panel panel{op.n, op.k, op.group_size, op.scale_dtype, op.zero_points != 0};
  const uint8_t* weight = static_cast<const uint8_t*>(op.weight);
  parallel_for(executor, op.n, [&](int64_t n) {
    for (int64_t k = 0; k < op.k; ++k) {
      const uint8_t* block = weight + panel.block(n, k / op.group_size);
      const int zero = panel.zero_points ? static_cast<int8_t>(block[panel.zero_offset() + n % kPanel]) : 0;
      op.out[n * op.k + k] = static_cast<float>(nibble(weight, panel, n, k) - zero) *
                             load_f32(block + panel.scale_offset(), op.scale_dtype, n % kPanel);
    }
  });
}

void pack_nibbles(const PackNibbles& op, const Executor& executor) {
  const int64_t words = (op.columns + 7) / 8;
  parallel_for(executor, op.rows, [&](int64_t r) {
    for (int64_t w = 0; w < words; ++w) {
      uint32_t word = 0;
      for (int64_t c = w * 8; c < op.columns && c < w * 8 + 8; ++c)
        word |= static_cast<uint32_t>(op.codes[r * op.columns + c] + 8) << (c % 8 * 4);
      op.words[r * words + w] = static_cast<int32_t>(word);
    }
  });
}

void unpack_nibbles(const UnpackNibbles& op, const Executor& executor) {
  const int64_t words = (op.columns + 7) / 8;
  parallel_for(executor, op.rows, [&](int64_t r) {
    for (int64_t c = 0; c < op.columns; ++c)
      op.codes[r * op.columns + c] =
          static_cast<int8_t>(static_cast<int>(static_cast<uint32_t>(op.words[r * words + c / 8]) >> (c % 8 * 4) & 15u) - 8);
  });
}

}  // namespace pennyweight::reference
