// SPDX-License-Identifier: Apache-2.0
// ops_pack.cpp: layout changes, their arguments and implementations, best first.
#include "pennyweight/pack.h"
#include "reference/reference.h"
#include "table.h"

namespace pennyweight::cpu {
namespace {

// The INT8 and the FP8 op of a kind share their arguments.
const Field pack_panel_fields[] = {PW_FIELD(PackPanel, codes, input), PW_FIELD(PackPanel, weight, output),
                                   PW_FIELD(PackPanel, n, integer), PW_FIELD(PackPanel, k, integer)};
const Implementation pack_int8[] = {{"reference", always, erased<PackInt8, reference::pack_int8>}};
const Field unpack_panel_fields[] = {PW_FIELD(UnpackPanel, weight, input), PW_FIELD(UnpackPanel, codes, output),
                                     PW_FIELD(UnpackPanel, n, integer), PW_FIELD(UnpackPanel, k, integer)};
const Implementation unpack_int8[] = {{"reference", always, erased<UnpackInt8, reference::unpack_int8>}};
const Field dequantize_panel_fields[] = {PW_FIELD(DequantizePanel, weight, input),
                                         PW_FIELD(DequantizePanel, scale, input),
                                         PW_FIELD(DequantizePanel, out, output), PW_FIELD(DequantizePanel, n, integer),
                                         PW_FIELD(DequantizePanel, k, integer)};
const Implementation dequantize_int8[] = {{"reference", always, erased<DequantizeInt8, reference::dequantize_int8>}};
const Implementation pack_fp8[] = {{"reference", always, erased<PackFp8, reference::pack_fp8>}};
const Implementation unpack_fp8[] = {{"reference", always, erased<UnpackFp8, reference::unpack_fp8>}};
const Implementation dequantize_fp8[] = {{"reference", always, erased<DequantizeFp8, reference::dequantize_fp8>}};
const Field pack_int4_fields[] = {PW_FIELD(PackInt4, codes, input),        PW_FIELD(PackInt4, scale, input),
                                  PW_FIELD(PackInt4, zeros, input),        PW_FIELD(PackInt4, weight, output),
                                  PW_FIELD(PackInt4, n, integer),          PW_FIELD(PackInt4, k, integer),
                                  PW_FIELD(PackInt4, group_size, integer), PW_FIELD(PackInt4, scale_dtype, dtype)};
const Implementation pack_int4[] = {{"reference", always, erased<PackInt4, reference::pack_int4>}};
const Field unpack_int4_fields[] = {
    PW_FIELD(UnpackInt4, weight, input),       PW_FIELD(UnpackInt4, codes, output),
    PW_FIELD(UnpackInt4, scale, output),       PW_FIELD(UnpackInt4, zeros, output),
    PW_FIELD(UnpackInt4, n, integer),          PW_FIELD(UnpackInt4, k, integer),
    PW_FIELD(UnpackInt4, group_size, integer), PW_FIELD(UnpackInt4, scale_dtype, dtype)};
const Implementation unpack_int4[] = {{"reference", always, erased<UnpackInt4, reference::unpack_int4>}};
const Field dequantize_int4_fields[] = {
    PW_FIELD(DequantizeInt4, weight, input),       PW_FIELD(DequantizeInt4, out, output),
    PW_FIELD(DequantizeInt4, n, integer),          PW_FIELD(DequantizeInt4, k, integer),
    PW_FIELD(DequantizeInt4, group_size, integer), PW_FIELD(DequantizeInt4, zero_points, integer),
    PW_FIELD(DequantizeInt4, scale_dtype, dtype)};
const Implementation dequantize_int4[] = {{"reference", always, erased<DequantizeInt4, reference::dequantize_int4>}};
const Field pack_nibbles_fields[] = {PW_FIELD(PackNibbles, codes, input), PW_FIELD(PackNibbles, words, output),
                                     PW_FIELD(PackNibbles, rows, integer), PW_FIELD(PackNibbles, columns, integer)};
const Implementation pack_nibbles[] = {{"reference", always, erased<PackNibbles, reference::pack_nibbles>}};
const Field unpack_nibbles_fields[] = {PW_FIELD(UnpackNibbles, words, input), PW_FIELD(UnpackNibbles, codes, output),
                                       PW_FIELD(UnpackNibbles, rows, integer),
                                       PW_FIELD(UnpackNibbles, columns, integer)};
const Implementation unpack_nibbles[] = {{"reference", always, erased<UnpackNibbles, reference::unpack_nibbles>}};

const OpInfo table[] = {
    make_info<PackInt8>("pack_int8", pack_panel_fields, pack_int8),
    make_info<UnpackInt8>("unpack_int8", unpack_panel_fields, unpack_int8),
    make_info<DequantizeInt8>("dequantize_int8", dequantize_panel_fields, dequantize_int8),
    make_info<PackFp8>("pack_fp8", pack_panel_fields, pack_fp8),
    make_info<UnpackFp8>("unpack_fp8", unpack_panel_fields, unpack_fp8),
    make_info<DequantizeFp8>("dequantize_fp8", dequantize_panel_fields, dequantize_fp8),
    make_info<PackInt4>("pack_int4", pack_int4_fields, pack_int4),
    make_info<UnpackInt4>("unpack_int4", unpack_int4_fields, unpack_int4),
    make_info<DequantizeInt4>("dequantize_int4", dequantize_int4_fields, dequantize_int4),
    make_info<PackNibbles>("pack_nibbles", pack_nibbles_fields, pack_nibbles),
    make_info<UnpackNibbles>("unpack_nibbles", unpack_nibbles_fields, unpack_nibbles),
};

}  // namespace

const OpInfo* pack_info(OpId id) { return find(table, id); }

}  // namespace pennyweight::cpu
