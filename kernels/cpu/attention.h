// SPDX-License-Identifier: Apache-2.0
// attention.h: what the table lists of attention_*.cpp.
#pragma once
#include "pennyweight/attention.h"

namespace pennyweight::cpu::avx2 {
void rotary(const Rotary& op, const Executor& executor);
void attention_decode(const AttentionDecode& op, const Executor& executor);
}  // namespace pennyweight::cpu::avx2
namespace pennyweight::cpu::avx512vnni {
void rotary(const Rotary& op, const Executor& executor);
void attention_decode(const AttentionDecode& op, const Executor& executor);
}  // namespace pennyweight::cpu::avx512vnni
