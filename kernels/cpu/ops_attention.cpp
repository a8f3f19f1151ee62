// SPDX-License-Identifier: Apache-2.0
// ops_attention.cpp: rotary embedding and attention of one token, their arguments and implementations, best first.
#include "attention.h"
#include "reference/reference.h"
#include "table.h"

namespace pennyweight::cpu {
namespace {

const Field rotary_fields[] = {PW_FIELD(Rotary, x, input),
                               PW_FIELD(Rotary, cos, input),
                               PW_FIELD(Rotary, sin, input),
                               PW_FIELD(Rotary, y, output),
                               PW_FIELD(Rotary, m, integer),
                               PW_FIELD(Rotary, heads, integer),
                               PW_FIELD(Rotary, d, integer),
                               PW_FIELD(Rotary, x_stride, integer),
                               PW_FIELD(Rotary, cos_stride, integer),
                               PW_FIELD(Rotary, sin_stride, integer),
                               PW_FIELD(Rotary, x_dtype, dtype)};
#define PW_SIZE(name) PW_FIELD(AttentionDecode, name, integer)
const Field attention_fields[] = {PW_FIELD(AttentionDecode, q, input),
                                  PW_FIELD(AttentionDecode, keys, input),
                                  PW_FIELD(AttentionDecode, values, input),
                                  PW_FIELD(AttentionDecode, mask, input),
                                  PW_FIELD(AttentionDecode, y, output),
                                  PW_SIZE(b),
                                  PW_SIZE(heads),
                                  PW_SIZE(kv_heads),
                                  PW_SIZE(t),
                                  PW_SIZE(d),
                                  PW_SIZE(q_stride),
                                  PW_SIZE(mask_stride),
                                  PW_SIZE(key_batch),
                                  PW_SIZE(key_head),
                                  PW_SIZE(key_token),
                                  PW_SIZE(value_batch),
                                  PW_SIZE(value_head),
                                  PW_SIZE(value_token),
                                  PW_FIELD(AttentionDecode, scale, real),
                                  PW_FIELD(AttentionDecode, x_dtype, dtype)};

const Implementation rotary[] = {{"avx512vnni", needs_avx512vnni, erased<Rotary, avx512vnni::rotary>},
                                 {"avx2", needs_avx2, erased<Rotary, avx2::rotary>},
                                 {"reference", always, erased<Rotary, reference::rotary>}};
const Implementation attention_decode[] = {
    {"avx512vnni", needs_avx512vnni, erased<AttentionDecode, avx512vnni::attention_decode>},
    {"avx2", needs_avx2, erased<AttentionDecode, avx2::attention_decode>},
    {"reference", always, erased<AttentionDecode, reference::attention_decode>}};

const OpInfo table[] = {
    make_info<Rotary>("rotary", rotary_fields, rotary),
    make_info<AttentionDecode>("attention_decode", attention_fields, attention_decode),
};

}  // namespace

const OpInfo* attention_info(OpId id) { return find(table, id); }

}  // namespace pennyweight::cpu
