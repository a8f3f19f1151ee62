// SPDX-License-Identifier: Apache-2.0
// matrix.cuh: ldmatrix and mma.sync (sm_80+), whole warps only.
//
// Fragments (PTX ISA, "Matrix Fragments for mma"), g = lane / 4, t = lane % 4; c is float or int, i = 0..3:
//   a[i], 16 rows   row g + 8 (i % 2),  32-bit word t + 4 (i / 2) of the row   (16-bit: 2 elements, 8-bit: 4)
//   b[i], 8 columns column g,           32-bit word t + 4 i of the column      (K runs inside a word)
//   c[i]            row g + 8 (i / 2),  column 2 t + i % 2
#pragma once
#include "../runtime.cuh"
#if defined(PW_EMULATED)
#include "pennyweight/numerics.h"
#endif

namespace pennyweight::ptx {

#if defined(PW_EMULATED)
namespace twin {

struct MatrixRow {
  const void* row;
  uint32_t* out;
};

// 8x8 matrices of 16 bits: lane 8 j + r gives the address of row r of matrix j; lane l gets word l % 4 of row l / 4.
template <int kMatrices>
void load_matrices(void* const* lanes) {
  for (int lane = 0; lane < 32; ++lane)
    for (int j = 0; j < kMatrices; ++j) {
      const auto* from = static_cast<const MatrixRow*>(lanes[8 * j + lane / 4]);
      static_cast<MatrixRow*>(lanes[lane])->out[j] = static_cast<const uint32_t*>(from->row)[lane % 4];
    }
}

template <int kMatrices>
void load_matrices_transposed(void* const* lanes) {
  for (int lane = 0; lane < 32; ++lane)
    for (int j = 0; j < kMatrices; ++j) {
      uint32_t word = 0;  // column lane / 4, rows 2 (lane % 4) and the next
      for (int i = 0; i < 2; ++i) {
        const auto* from = static_cast<const MatrixRow*>(lanes[8 * j + 2 * (lane % 4) + i]);
        word |= static_cast<uint32_t>(static_cast<const uint16_t*>(from->row)[lane / 4]) << 16 * i;
      }
      static_cast<MatrixRow*>(lanes[lane])->out[j] = word;
    }
}

template <class C>
struct Mma {
  C* c;
  const uint32_t* a;
  const uint32_t* b;
};

// c += a b, K in words of `elements`, which `unpack` splits.
template <class C, class Element, int kElements, void (*kUnpack)(uint32_t word, Element* out)>
void multiply(void* const* lanes) {
  Element a[16][8 * kElements], b[8][8 * kElements];
  for (int lane = 0; lane < 32; ++lane) {
    const auto* from = static_cast<const Mma<C>*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) kUnpack(from->a[i], &a[g + 8 * (i % 2)][kElements * (t + 4 * (i / 2))]);
    for (int i = 0; i < 2; ++i) kUnpack(from->b[i], &b[g][kElements * (t + 4 * i)]);
  }
  for (int lane = 0; lane < 32; ++lane) {
    C* c = static_cast<const Mma<C>*>(lanes[lane])->c;
    for (int i = 0; i < 4; ++i) {
      const Element *row = a[lane / 4 + 8 * (i / 2)], *column = b[2 * (lane % 4) + i % 2];
      C sum = 0;
      for (int k = 0; k < 8 * kElements; ++k) sum += static_cast<C>(row[k]) * static_cast<C>(column[k]);
      if constexpr (sizeof(Element) == 1)  // int8, of which int32 sums wrap
        c[i] = static_cast<C>(static_cast<uint32_t>(c[i]) + static_cast<uint32_t>(sum));
      else
        c[i] += sum;
    }
  }
}

inline void unpack_s8(uint32_t word, int8_t* out) {
  for (int i = 0; i < 4; ++i) out[i] = static_cast<int8_t>(word >> 8 * i);
}
inline void unpack_e4m3(uint32_t word, float* out) {
  for (int i = 0; i < 4; ++i) out[i] = e4m3_f32(static_cast<uint8_t>(word >> 8 * i));
}
inline void unpack_f16(uint32_t word, float* out) {
  for (int i = 0; i < 2; ++i) out[i] = f16_f32(static_cast<uint16_t>(word >> 16 * i));
}
inline void unpack_bf16(uint32_t word, float* out) {
  for (int i = 0; i < 2; ++i) out[i] = bf16_f32(static_cast<uint16_t>(word >> 16 * i));
}

}  // namespace twin
#endif

// ldmatrix.m8n8.x4.b16: four 8x8 matrices of 16-bit elements (or 8 rows of 16 bytes) from shared memory. `row`: the
// address of the row that this lane names, 16-byte aligned: lanes 0-7 matrix 0, 8-15 matrix 1, ...
PW_DEVICE void load_matrix_x4(uint32_t (&out)[4], const void* row) {
#if defined(PW_EMULATED)
  emulator::check_aligned("ldmatrix", row, 16);
  emulator::note_read(row, 16);
  twin::MatrixRow own{row, out};
  emulator::whole_warp("ldmatrix.x4", &own, twin::load_matrices<4>);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
#endif
}

// ldmatrix.m8n8.x2.b16: as x4; lanes 0-15 name the rows, the others' addresses are not used but must be valid.
PW_DEVICE void load_matrix_x2(uint32_t (&out)[2], const void* row) {
#if defined(PW_EMULATED)
  emulator::check_aligned("ldmatrix", row, 16);
  if (emulator::here.lane < 16) emulator::note_read(row, 16);
  twin::MatrixRow own{row, out};
  emulator::whole_warp("ldmatrix.x2", &own, twin::load_matrices<2>);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(out[0]), "=r"(out[1])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
#endif
}

// ldmatrix.m8n8.x4.trans.b16: each 8x8 matrix transposed on the way.
PW_DEVICE void load_matrix_x4_transposed(uint32_t (&out)[4], const void* row) {
#if defined(PW_EMULATED)
  emulator::check_aligned("ldmatrix", row, 16);
  emulator::note_read(row, 16);
  twin::MatrixRow own{row, out};
  emulator::whole_warp("ldmatrix.x4.trans", &own, twin::load_matrices_transposed<4>);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
#endif
}

// mma.m16n8k32 s8: c += a (16 x 32) . b (32 x 8), int32, wrapping.
PW_DEVICE void mma_s8(int (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(PW_EMULATED)
  twin::Mma<int> own{c, a, b};
  emulator::whole_warp("mma.m16n8k32.s8", &own, twin::multiply<int, int8_t, 4, twin::unpack_s8>);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// mma.m16n8k16 f16, bf16: c += a (16 x 16) . b (16 x 8), float32. A card adds the 16 products in its own order and may
// truncate; the twin adds them in order of k: compare with a bound, or with values whose sums are exact.
PW_DEVICE void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(PW_EMULATED)
  twin::Mma<float> own{c, a, b};
  emulator::whole_warp("mma.m16n8k16.f16", &own, twin::multiply<float, float, 2, twin::unpack_f16>);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
PW_DEVICE void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(PW_EMULATED)
  twin::Mma<float> own{c, a, b};
  emulator::whole_warp("mma.m16n8k16.bf16", &own, twin::multiply<float, float, 2, twin::unpack_bf16>);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// mma.m16n8k32 e4m3 (sm_89+): c += a (16 x 32) . b (32 x 8), float32. Products of two codes are exact in float32; a NaN
// code makes its row's or column's sums NaN. The twin adds the products in order of k, in float32. A card aligns the 32
// products and c to the largest of them and cuts off what lies below the accumulator's bits, of which others have found
// 13 behind the point on sm_89 (Zhang et al., SageAttention2, 2024): compare with a bound that has 2^-13 of the largest
// for each of the 33, or with values whose sums are integers below 2^13. On sm_90 the instruction is not native: it
// becomes two of f16 behind twelve that unpack, at the rate of 16 bits.
PW_DEVICE void mma_e4m3(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(PW_EMULATED)
  if (emulator::options().compute < 89) emulator::fail("mma.e4m3 on a card without it");
  twin::Mma<float> own{c, a, b};
  emulator::whole_warp("mma.m16n8k32.e4m3", &own, twin::multiply<float, float, 4, twin::unpack_e4m3>);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();  // a caller asks architecture() first
#endif
}

}  // namespace pennyweight::ptx
