// SPDX-License-Identifier: Apache-2.0
// pack.cpp: layouts (formats.h, drawn in docs/layouts.md) as plain loops.
//
// The loops go panel by panel, blocks of K within it, rows within these, so that a block of the panel (16 KB) stays in
// L1 while rows are read in runs: some GB/s, which no instruction set needs to improve on.
#include "pennyweight/pack.h"

#include <cstring>

#include "pennyweight/numerics.h"
#include "reference.h"

namespace pennyweight::reference {
namespace {

constexpr int64_t kBlock = 64;               // K steps of a panel that are done row by row
constexpr int64_t kStepBytes = 4 * kPanel;   // of a K step: 64 dwords
constexpr uint32_t kCodeZero = 0x88888888u;  // eight INT4 codes 0
constexpr uint32_t kFlip = 0x80808080u;      // between int8 and its stored form

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Calls f(step, row) over `steps` K steps of a panel and its 64 rows.
template <class F>
void for_each_dword(int64_t steps, F&& f) {
  for (int64_t s0 = 0; s0 < steps; s0 += kBlock)
    for (int64_t r = 0; r < kPanel; ++r)
      for (int64_t s = s0; s < smaller(s0 + kBlock, steps); ++s) f(s, r);
}

template <class F>
void for_each_panel(const Executor& executor, int64_t n, F&& f) {
  parallel_for(executor, round_up(n, kPanel) / kPanel, [&](int64_t p) { f(p); });
}

// ---- INT8_PANEL and FP8_PANEL: where the 4 codes of a row lie within a step of 256 bytes, as one dword
struct Int8Step {
  static uint32_t get(const uint8_t* step, int64_t r) {
    uint32_t quad;
    std::memcpy(&quad, step + r * 4, 4);
    return quad ^ kFlip;
  }
  static void put(uint8_t* step, int64_t r, uint32_t quad) {
    quad ^= kFlip;
    std::memcpy(step + r * 4, &quad, 4);
  }
  static float decode(uint8_t code) { return static_cast<float>(static_cast<int8_t>(code)); }
};
struct E4m3Table {
  float value[256];
  E4m3Table() {
    for (int i = 0; i < 256; ++i) value[i] = e4m3_f32(static_cast<uint8_t>(i));
  }
};
const E4m3Table kE4m3;
struct Fp8Step {
  static uint32_t get(const uint8_t* step, int64_t r) {
    const uint8_t* pair = step + r / 4 * 16 + r % 4 * 2;
    uint16_t low, high;
    std::memcpy(&low, pair, 2);
    std::memcpy(&high, pair + 8, 2);
    return low | static_cast<uint32_t>(high) << 16;
  }
  static void put(uint8_t* step, int64_t r, uint32_t quad) {
    uint8_t* pair = step + r / 4 * 16 + r % 4 * 2;
    const uint16_t low = static_cast<uint16_t>(quad), high = static_cast<uint16_t>(quad >> 16);
    std::memcpy(pair, &low, 2);
    std::memcpy(pair + 8, &high, 2);
  }
  static float decode(uint8_t code) { return kE4m3.value[code]; }
};

// Codes k .. k + 3 of a row as a dword, 0 past its end.
uint32_t quad_of(const uint8_t* row, int64_t k, int64_t K) {
  uint32_t quad = 0;
  if (k + 4 <= K)
    std::memcpy(&quad, row + k, 4);
  else
    std::memcpy(&quad, row + k, K - k);
  return quad;
}

template <class Step>
void pack_panel(const PackPanel& op, const Executor& executor) {
  const uint8_t* codes = static_cast<const uint8_t*>(op.codes);
  const int64_t steps = (op.k + 3) / 4;
  for_each_panel(executor, op.n, [&](int64_t p) {
    uint8_t* panel = static_cast<uint8_t*>(op.weight) + p * steps * kStepBytes;
    for_each_dword(steps, [&](int64_t s, int64_t r) {
      const int64_t n = p * kPanel + r;
      Step::put(panel + s * kStepBytes, r, n < op.n ? quad_of(codes + n * op.k, s * 4, op.k) : 0);
    });
  });
}

// Calls f(row, first column, its count of columns, dword) for every dword that holds codes of the weight.
template <class Step, class F>
void read_panel(const void* weight, int64_t n, int64_t k, const Executor& executor, F&& f) {
  const int64_t steps = (k + 3) / 4;
  for_each_panel(executor, n, [&](int64_t p) {
    const uint8_t* panel = static_cast<const uint8_t*>(weight) + p * steps * kStepBytes;
    for_each_dword(steps, [&](int64_t s, int64_t r) {
      if (p * kPanel + r >= n) return;
      f(p * kPanel + r, s * 4, smaller(4, k - s * 4), Step::get(panel + s * kStepBytes, r));
    });
  });
}

template <class Step>
void unpack_panel(const UnpackPanel& op, const Executor& executor) {
  read_panel<Step>(op.weight, op.n, op.k, executor, [&](int64_t n, int64_t k, int64_t count, uint32_t quad) {
    uint8_t* codes = static_cast<uint8_t*>(op.codes) + n * op.k + k;
    if (count == 4)
      std::memcpy(codes, &quad, 4);
    else
      std::memcpy(codes, &quad, count);
  });
}

template <class Step>
void dequantize_panel(const DequantizePanel& op, const Executor& executor) {
  read_panel<Step>(op.weight, op.n, op.k, executor, [&](int64_t n, int64_t k, int64_t count, uint32_t quad) {
    for (int64_t i = 0; i < count; ++i)
      op.out[n * op.k + k + i] = Step::decode(static_cast<uint8_t>(quad >> (8 * i))) * op.scale[n];
  });
}

// ---- INT4_PANEL
int shift_of(int64_t i) { return static_cast<int>(i / 2 * 4 + i % 2 * 16); }

int8_t code_of(uint32_t word, int64_t i) {
  return static_cast<int8_t>(static_cast<int>(word >> shift_of(i) & 15u) - 8);
}

uint32_t word_of(const int8_t* codes, int64_t count) {
  uint32_t word = 0;
  if (count == 8) {
    for (int64_t i = 0; i < 8; ++i) word |= static_cast<uint32_t>(codes[i] + 8) << shift_of(i);
    return word;
  }
  for (int64_t i = 0; i < 8; ++i) word |= static_cast<uint32_t>((i < count ? codes[i] : 0) + 8) << shift_of(i);
  return word;
}

// Calls f(block, panel's first row, group) over all blocks.
template <class Block, class F>
void for_each_block(const Int4Panel& panel, const Executor& executor, Block* weight, F&& f) {
  for_each_panel(executor, panel.n, [&](int64_t p) {
    for (int64_t g = 0; g < panel.groups(); ++g) f(weight + panel.block(p * kPanel, g), p * kPanel, g);
  });
}

// Calls f(row, first column, its count of columns, dword) for the dwords of a block that hold codes of the weight.
template <class F>
void read_block(const Int4Panel& panel, const uint8_t* block, int64_t first, int64_t group, F&& f) {
  for_each_dword(panel.steps(), [&](int64_t s, int64_t r) {
    if (first + r >= panel.n) return;
    uint32_t word;
    std::memcpy(&word, block + s * kStepBytes + r * 4, 4);
    f(first + r, group * panel.group_size + s * 8, smaller(8, panel.group_size - s * 8), word);
  });
}

}  // namespace

void pack_int8(const PackInt8& op, const Executor& executor) { pack_panel<Int8Step>(op, executor); }
void unpack_int8(const UnpackInt8& op, const Executor& executor) { unpack_panel<Int8Step>(op, executor); }
void dequantize_int8(const DequantizeInt8& op, const Executor& executor) { dequantize_panel<Int8Step>(op, executor); }
void pack_fp8(const PackFp8& op, const Executor& executor) { pack_panel<Fp8Step>(op, executor); }
void unpack_fp8(const UnpackFp8& op, const Executor& executor) { unpack_panel<Fp8Step>(op, executor); }
void dequantize_fp8(const DequantizeFp8& op, const Executor& executor) { dequantize_panel<Fp8Step>(op, executor); }

void pack_int4(const PackInt4& op, const Executor& executor) {
  const Int4Panel panel{op.n, op.k, op.group_size, op.scale_dtype, op.zeros != nullptr};
  for_each_block(panel, executor, static_cast<uint8_t*>(op.weight), [&](uint8_t* block, int64_t first, int64_t g) {
    for_each_dword(panel.steps(), [&](int64_t s, int64_t r) {
      const int8_t* codes = op.codes + (first + r) * op.k + g * op.group_size + s * 8;
      const uint32_t word = first + r < op.n ? word_of(codes, smaller(8, op.group_size - s * 8)) : kCodeZero;
      std::memcpy(block + s * kStepBytes + r * 4, &word, 4);
    });
    for (int64_t r = 0; r < kPanel; ++r) {
      const int64_t at = (first + r) * panel.groups() + g;
      const bool padding = first + r >= op.n;
      store_f32(block + panel.scale_offset(), op.scale_dtype, r, padding ? 0.0f : op.scale[at]);
      if (op.zeros) block[panel.zero_offset() + r] = padding ? 0 : static_cast<uint8_t>(op.zeros[at]);
    }
  });
}

void unpack_int4(const UnpackInt4& op, const Executor& executor) {
  const Int4Panel panel{op.n, op.k, op.group_size, op.scale_dtype, op.zeros != nullptr};
  const uint8_t* weight = static_cast<const uint8_t*>(op.weight);
  for_each_block(panel, executor, weight, [&](const uint8_t* block, int64_t first, int64_t g) {
    read_block(panel, block, first, g, [&](int64_t n, int64_t k, int64_t count, uint32_t word) {
      for (int64_t i = 0; i < count; ++i) op.codes[n * op.k + k + i] = code_of(word, i);
    });
    for (int64_t r = 0; r < smaller(kPanel, op.n - first); ++r) {
      const int64_t at = (first + r) * panel.groups() + g;
      op.scale[at] = load_f32(block + panel.scale_offset(), op.scale_dtype, r);
      if (op.zeros) op.zeros[at] = static_cast<int8_t>(block[panel.zero_offset() + r]);
    }
  });
}

void dequantize_int4(const DequantizeInt4& op, const Executor& executor) {
  const Int4Panel panel{op.n, op.k, op.group_size, op.scale_dtype, op.zero_points != 0};
  const uint8_t* weight = static_cast<const uint8_t*>(op.weight);
  for_each_block(panel, executor, weight, [&](const uint8_t* block, int64_t first, int64_t g) {
    float scale[kPanel];
    int zero[kPanel];
    for (int64_t r = 0; r < kPanel; ++r) {
      scale[r] = load_f32(block + panel.scale_offset(), op.scale_dtype, r);
      zero[r] = panel.zero_points ? static_cast<int8_t>(block[panel.zero_offset() + r]) : 0;
    }
    read_block(panel, block, first, g, [&](int64_t n, int64_t k, int64_t count, uint32_t word) {
      for (int64_t i = 0; i < count; ++i)
        op.out[n * op.k + k + i] = static_cast<float>(code_of(word, i) - zero[n - first]) * scale[n - first];
    });
  });
}

// ---- the checkpoint's words: nibble i of a word at bits 4i
void pack_nibbles(const PackNibbles& op, const Executor& executor) {
  const int64_t words = (op.columns + 7) / 8;
  parallel_for(executor, op.rows, [&](int64_t r) {
    const int8_t* codes = op.codes + r * op.columns;
    for (int64_t w = 0; w < words; ++w) {
      uint32_t word = 0;
      if (w * 8 + 8 <= op.columns)
        for (int64_t i = 0; i < 8; ++i) word |= static_cast<uint32_t>(codes[w * 8 + i] + 8) << (4 * i);
      else
        for (int64_t c = w * 8; c < op.columns; ++c) word |= static_cast<uint32_t>(codes[c] + 8) << (c % 8 * 4);
      op.words[r * words + w] = static_cast<int32_t>(word);
    }
  });
}

void unpack_nibbles(const UnpackNibbles& op, const Executor& executor) {
  const int64_t words = (op.columns + 7) / 8;
  parallel_for(executor, op.rows, [&](int64_t r) {
    int8_t* codes = op.codes + r * op.columns;
    for (int64_t w = 0; w < words; ++w) {
      const uint32_t word = static_cast<uint32_t>(op.words[r * words + w]);
      for (int64_t i = 0; i < smaller(8, op.columns - w * 8); ++i)
        codes[w * 8 + i] = static_cast<int8_t>(static_cast<int>(word >> (4 * i) & 15u) - 8);
    }
  });
}

}  // namespace pennyweight::reference
