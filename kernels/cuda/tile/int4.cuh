// SPDX-License-Identifier: Apache-2.0
// int4.cuh: words of eight 4-bit codes, in the orders of docs/layouts.md, and the scales of a panel.
//
//   in order (the checkpoint's)    nibble i is code i
//   a panel's                      low half: codes 0, 2, 4, 6; high half: codes 1, 3, 5, 7
#pragma once
#include "tile/epilogue.cuh"

namespace pennyweight::cuda {

// 4 neighbouring scales, aligned.
PW_DEVICE void load_scales(const unsigned char* at, DType dtype, float (&scale)[4]) {
  if (dtype == DType::f32) {
    const Four four = *reinterpret_cast<const Four*>(at);
#pragma unroll
    for (int i = 0; i < 4; ++i) scale[i] = bits_f32(four.word[i]);
    return;
  }
  const Two pairs = *reinterpret_cast<const Two*>(at);
#pragma unroll
  for (int i = 0; i < 4; ++i)
    scale[i] = float_of_half(dtype, static_cast<uint16_t>(pairs.word[i / 2] >> (16 * (i % 2))));
}

// Four nibbles of a half word, one in each byte, and back.
PW_DEVICE uint32_t spread_nibbles(uint32_t half) {
  half = (half | half << 8) & 0x00ff00ffu;
  return (half | half << 4) & 0x0f0f0f0fu;
}
PW_DEVICE uint32_t gather_nibbles(uint32_t bytes) {
  bytes = (bytes | bytes >> 4) & 0x00ff00ffu;
  return (bytes | bytes >> 8) & 0xffffu;
}

PW_DEVICE uint32_t panel_order(uint32_t in_order) {
  return gather_nibbles(in_order & 0x0f0f0f0fu) | gather_nibbles(in_order >> 4 & 0x0f0f0f0fu) << 16;
}
PW_DEVICE uint32_t natural_order(uint32_t of_panel) {
  return spread_nibbles(of_panel & 0xffffu) | spread_nibbles(of_panel >> 16) << 4;
}

// Eight int8 codes of -8..7 as q + 8, in order, and back.
PW_DEVICE uint32_t word_of_codes(const uint32_t (&bytes)[2]) {
  return (gather_nibbles(bytes[0] & 0x0f0f0f0fu) | gather_nibbles(bytes[1] & 0x0f0f0f0fu) << 16) ^ 0x88888888u;
}
PW_DEVICE void codes_of_word(uint32_t word, uint32_t (&bytes)[2]) {
  word ^= 0x88888888u;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    bytes[i] = spread_nibbles(word >> (16 * i) & 0xffffu);
    bytes[i] |= (bytes[i] & 0x08080808u) * 0x1eu;  // the sign of each, in its byte's upper half
  }
}

}  // namespace pennyweight::cuda
