// SPDX-License-Identifier: Apache-2.0
// unroll.h: loops over register arrays, unrolled by the front end.
//
// A pragma unrolls late, and GCC 12 then leaves some accumulator arrays in memory; indices that are constants from the
// start always end in registers.
#pragma once

#define PW_INLINE __attribute__((always_inline))

namespace pennyweight::cpu {
namespace {

template <int i>
struct Index {
  constexpr operator int() const { return i; }
};

// f(Index<0>), f(Index<1>) ... f(Index<n - 1>); f is a lambda (auto i) PW_INLINE { ... }.
template <int n, int i = 0, class F>
inline PW_INLINE void unroll(F&& f) {
  if constexpr (i < n) {
    f(Index<i>{});
    unroll<n, i + 1>(f);
  }
}

}  // namespace
}  // namespace pennyweight::cpu
