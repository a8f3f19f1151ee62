// SPDX-License-Identifier: Apache-2.0
// table.h: how the ops_*.cpp tables are written: typed functions in, one erased OpInfo per op out.
#pragma once
#include "pennyweight/registry.h"

namespace pennyweight::cpu {

template <class Op, void (*Run)(const Op&, const Executor&)>
void erased(const void* op, const Executor& executor) {
  Run(*static_cast<const Op*>(op), executor);
}

inline const char* always(const void*, const Device&) { return nullptr; }
inline const char* needs_avx2(const void*, const Device& d) { return d.avx2 ? nullptr : "needs AVX2, FMA and F16C"; }
inline const char* needs_avx512vnni(const void*, const Device& d) {
  return d.avx512vnni ? nullptr : "needs AVX512-VNNI";
}
inline const char* needs_avx512bf16(const void*, const Device& d) {
  if (!d.avx512bf16) return "needs AVX512-BF16";
  return d.avx512vbmi ? nullptr : "needs AVX512-VBMI";
}

template <class Op, int Fields, int Implementations>
OpInfo make_info(const char* name, const Field (&fields)[Fields], const Implementation (&list)[Implementations]) {
  return {Op::id, name, sizeof(Op), fields, Fields, list, Implementations};
}

template <int Ops>
const OpInfo* find(const OpInfo (&table)[Ops], OpId id) {
  for (const OpInfo& info : table)
    if (info.id == id) return &info;
  return nullptr;
}

// One per table file; dispatch.cpp asks them once for every id.
const OpInfo* quantize_info(OpId id);
const OpInfo* attention_info(OpId id);
const OpInfo* linear_info(OpId id);
const OpInfo* pack_info(OpId id);
const OpInfo* calibrate_info(OpId id);

}  // namespace pennyweight::cpu
