// SPDX-License-Identifier: Apache-2.0
// decode_e4m3.cuh: E4M3 codes to 16-bit floats, exactly and without a branch.
//
// A code's exponent and mantissa, moved to where the wider format has them, are the value divided by 2^8 (f16) or 2^120
// (bf16): one multiplication brings it back, subnormal codes being subnormal in the wider format too. The NaN codes
// (exponent and mantissa all ones) alone carry into the next bit when one is added to the mantissa's last; from there
// the wider exponent is filled with ones:
//
//      code       s eeee mmm                          + 1 in the last place of a NaN: 1 0000 000
//      f16        s 0eeee mmm0000000  . 2^8           that bit beside eeee = 1111 is an exponent of 31: NaN
//      bf16       s 0000eeee mmm0000  . 2^120         that bit times 15 beside eeee = 1111 is one of 255: NaN
#pragma once
#include "ptx/words.cuh"
#include "tile/halves.h"

namespace pennyweight::cuda {

// Codes 2 i and 2 i + 1 of a word, as a pair.
template <Half half>
PW_DEVICE uint32_t decode_pair(uint32_t word, int i) {
  constexpr int or_and = 0xf0 | (0xcc & 0xaa);
  const uint32_t high = ptx::pick_bytes(word, 0, i ? 0x3424 : 0x1404);  // in the high byte of each half
  if constexpr (half == Half::f16) {
    const uint32_t v = high >> 1 & 0x3f803f80u;
    const uint32_t or_nan = ptx::lop3<or_and>(v, v + 0x00800080u, 0x40004000u);
    return ptx::mul_f16x2(ptx::lop3<or_and>(or_nan, high, 0x80008000u), 0x5c005c00u);
  } else {
    const uint32_t v = high >> 4 & 0x07f007f0u;
    const uint32_t or_nan = v + ((v + 0x00100010u) & 0x08000800u) * 15;
    return ptx::fma_bf16x2(ptx::lop3<or_and>(or_nan, high, 0x80008000u), 0x7b807b80u, 0x80008000u);
  }
}

// 8 codes to 4 pairs, in order.
template <Half half>
PW_DEVICE void decode_e4m3(uint32_t low, uint32_t high, uint32_t (&pair)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) pair[i] = decode_pair<half>(i < 2 ? low : high, i % 2);
}

}  // namespace pennyweight::cuda
