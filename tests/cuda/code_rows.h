// SPDX-License-Identifier: Apache-2.0
// code_rows.h: weights of 8 bits for tests: codes of the checkpoint as CODE_ROWS, to the last byte.
#pragma once
#include "harness.h"

namespace pennyweight::tests {

inline void write_code_rows(const void* codes, int64_t n, int64_t k, Buffer<uint8_t>& rows) {
  std::memset(rows.data, 0, rows.count);
  for (int64_t row = 0; row < n; ++row)
    std::memcpy(rows.data + row * code_row_bytes(k), static_cast<const char*>(codes) + row * k, k);
}

}  // namespace pennyweight::tests
