// SPDX-License-Identifier: Apache-2.0
// quantize_sm80.cuh: codes and a scale per row, alone or behind RMSNorm (+ residual) or SiLU(gate) * up.
//
//   v = x / smooth | weight * round((x + residual) * rsqrt(mean(square) + eps)) | round(silu(gate)) * up
//   scale = max|v| / range                                 range 127 (INT8), 448 (E4M3)
//   codes = round-half-even(v / scale)
//
// Shapes    as quantize.h says; any M, K, stride
// Needs     sm_80+. Rows that are 16-byte aligned with K a multiple of 8 move 16 bytes at a time, others one element
// Walk      one group of threads per row: a warp for K <= 1024 (four rows a block), else a block of K / (8 kept)
// threads.
//           The row is read once, in chunks of 8 that stay in registers (beyond 8 * kept * 1024 elements in shared
//           memory, rows.cuh), through at most three passes over those: square sum, maximum, codes
//
//             global --16 B--> registers --> (sum) --> maximum --> codes --8 B--> global
//                                  ^ one barrier per reduction, none for a warp ^
//
// Bytes     per element, 16-bit x: quantize 2 + 1; RMSNorm 2 + 1, with residual 4 + 2 + 1; SiLU 4 + 1; 4 per row
// besides Operations about 12 per element (quantize) to 45 (SiLU): bound by memory, time >= bytes / bandwidth Division
// v / scale is one multiplication by 1 / scale and a correction by two fused multiply-adds, which gives the
//           correctly rounded quotient (Markstein 1990) wherever nothing underflows, and a row whose scale is outside
//           2^-90 .. 2^90 is multiplied by a power of two first. Codes are the CPU's, bit for bit
// E4M3      from sm_89 one instruction for two values, before that integers without a branch
// Numerics  RMSNorm's square sum is taken per thread and then over the group, not in the reference's 64 lanes: the
// normed
//           row may differ by one rounding in some places, and from there on everything is bit for bit
// Reference kernels/reference/quantize.cpp       Source  own
// Tried     no card yet
#pragma once
#include "pennyweight/quantize.h"
#include "divide.cuh"
#include "ptx/words.cuh"
#include "rows.cuh"

namespace pennyweight::cuda {

enum class Format { int8, e4m3, none };  // none: the values themselves (RMSNorm alone)

// ---- codes

// How a row is divided by its scale. A scale so small or large that the steps below would underflow is brought near 1
// by a power of two, and the row with it, which changes no quotient that is not rounded to zero.
struct Divisor {
  float scale, inverse, factor;
  bool unusual;   // factor is not 1; a tiny scale, itself rounded, may give more than the range
  uint32_t mask;  // 0 where the scale is zero or NaN: all codes are 0
};

PW_DEVICE Divisor make_divisor(float scale) {
  Divisor out;
  out.factor = scale < 0x1p-90f ? 0x1p100f : scale > 0x1p90f ? 0x1p-100f : 1.0f;
  out.unusual = out.factor != 1.0f;
  out.scale = scale * out.factor;
  out.mask = scale > 0.0f ? ~0u : 0u;
  out.inverse = divide_normal(1.0f, scale > 0.0f ? out.scale : 1.0f);
  return out;
}

// v / scale, correctly rounded, for |v| <= 512 scale; -0 becomes +0
PW_DEVICE float quotient(float v, const Divisor& by) {
  const float q = v * by.inverse;
  return fma_f32(fma_f32(-q, by.scale, v), by.inverse, q);
}

// The code of a value in -127..127, in the low byte: adding 1.5 * 2^23 rounds half to even and leaves the integer
// there.
PW_DEVICE uint32_t int8_byte(float q) { return f32_bits(q + 12582912.0f); }

// numerics.h's f32_e4m3 without branches, for any v but NaN.
PW_DEVICE uint32_t e4m3_byte(float v) {
  const uint32_t u = f32_bits(v), a = u & 0x7fffffffu;
  const uint32_t normal = ((a + 0x7ffffu + (a >> 20 & 1u)) >> 20) - (120u << 3);
  const uint32_t subnormal = f32_bits(bits_f32(a) + 0x1p14f) - 0x46800000u;  // multiples of 2^-9
  const uint32_t code = a < 0x3c800000u ? subnormal : min(normal, 0x7eu);
  return code | (u >> 24 & 0x80u);
}

template <Format format>
PW_DEVICE uint2 make_codes(const float (&v)[kChunk], const Divisor& by) {
  uint2 out;
  float q[kChunk];
  if (by.unusual) {  // the same for the whole row
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      q[i] = quotient(v[i] * by.factor, by);
      q[i] = q[i] > 448.0f ? 448.0f : q[i] < -448.0f ? -448.0f : q[i];
      if (format == Format::int8) q[i] = q[i] > 127.0f ? 127.0f : q[i] < -127.0f ? -127.0f : q[i];
    }
  } else {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) q[i] = quotient(v[i], by);
  }
  if constexpr (format == Format::e4m3) {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) q[i] = bits_f32(f32_bits(q[i]) | (f32_bits(v[i]) & 0x80000000u));  // -0 again
    if (ptx::architecture() >= 89) {
      out.x = ptx::e4m3x2_of_f32(q[0], q[1]) | ptx::e4m3x2_of_f32(q[2], q[3]) << 16;
      out.y = ptx::e4m3x2_of_f32(q[4], q[5]) | ptx::e4m3x2_of_f32(q[6], q[7]) << 16;
      return make_uint2(out.x & by.mask, out.y & by.mask);
    }
  }
  uint32_t bytes[kChunk];
#pragma unroll
  for (int i = 0; i < kChunk; ++i) bytes[i] = format == Format::int8 ? int8_byte(q[i]) : e4m3_byte(q[i]);
  out.x =
      ptx::pick_bytes(ptx::pick_bytes(bytes[0], bytes[1], 0x0040), ptx::pick_bytes(bytes[2], bytes[3], 0x0040), 0x5410);
  out.y =
      ptx::pick_bytes(ptx::pick_bytes(bytes[4], bytes[5], 0x0040), ptx::pick_bytes(bytes[6], bytes[7], 0x0040), 0x5410);
  return make_uint2(out.x & by.mask, out.y & by.mask);
}

// numerics.h's activation_scale
PW_DEVICE float row_scale(uint32_t amax_bits, float range) {
  return amax_bits >= 0x7f800000u ? nan_f32() : divide(bits_f32(amax_bits), range);
}

// 1 / sqrt(v): the instruction's and one step of Newton where that can help
PW_DEVICE float inverse_root(float v) {
  const float r = ptx::approximate_inverse_root(v);
  return v > 0x1p-120f && v < 0x1p120f ? fma_f32(0.5f * r, fma_f32(-v * r, r, 1.0f), r) : r;
}

PW_DEVICE uint32_t max_bits(uint32_t most, const float (&v)[kChunk]) {
#pragma unroll
  for (int i = 0; i < kChunk; ++i) most = max(most, f32_bits(v[i]) & 0x7fffffffu);
  return most;
}

// ---- producers: what a row is before it is quantized. kWhole: all its rows move 16 bytes at a time
//   load(row, at)               one chunk, read and kept
//   kSums                       whether the square sum of the row is wanted next
//   normalize(kept, at, rms)    what is kept from then on, and quantized: kKept, 0 past K

template <DType dtype, bool kWhole>
struct Plain {
  static constexpr DType kType = dtype, kKept = dtype;
  static constexpr bool kMovesWhole = kWhole;
  static constexpr bool kSums = false;
  static constexpr int kChunks = 4, kMaxThreads = dtype == DType::f32 ? 512 : 1024;
  const void* x;
  int64_t x_stride, k;

  __device__ Packed<dtype> load(int64_t row, int64_t at) const {
    return load_chunk<dtype, true, kWhole>(element<dtype>(x, row * x_stride), at, k);
  }
  __device__ void normalize(Packed<dtype>&, int64_t, float) const {}
};

// Divided by SmoothQuant's vector; quotients do not fit into 16 bits and are kept as float32.
template <DType dtype, bool kWhole>
struct Smoothed {
  static constexpr DType kType = dtype, kKept = DType::f32;
  static constexpr bool kMovesWhole = kWhole;
  static constexpr bool kSums = false;
  static constexpr int kChunks = 2, kMaxThreads = 512;
  const void* x;
  const float* smooth;
  int64_t x_stride, k;

  __device__ Packed<kKept> load(int64_t row, int64_t at) const {
    float v[kChunk], divisor[kChunk];
    unpack<dtype>(load_chunk<dtype, true, kWhole>(element<dtype>(x, row * x_stride), at, k), v);
    unpack<DType::f32>(load_chunk<DType::f32, false, kWhole>(smooth, at, k), divisor);
    Packed<kKept> quotients;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] = at + i < k ? divide(v[i], divisor[i]) : 0.0f;
    pack<kKept>(v, quotients);
    return quotients;
  }
  __device__ void normalize(Packed<kKept>&, int64_t, float) const {}
};

template <DType dtype, bool kWhole>
struct Norm {
  static constexpr DType kType = dtype, kKept = dtype;
  static constexpr bool kMovesWhole = kWhole;
  static constexpr bool kSums = true;
  static constexpr int kChunks = dtype == DType::f32 ? 2 : 4, kMaxThreads = dtype == DType::f32 ? 512 : 1024;
  const void* x;
  const void* residual;
  const void* weight;
  void* hidden;
  int64_t x_stride, residual_stride, k;
  float inverse_k, eps;

  __device__ Packed<dtype> load(int64_t row, int64_t at) const {
    Packed<dtype> packed = load_chunk<dtype, true, kWhole>(element<dtype>(x, row * x_stride), at, k);
    if (!residual) return packed;
    const Packed<dtype> other = load_chunk<dtype, true, kWhole>(element<dtype>(residual, row * residual_stride), at, k);
    float v[kChunk], added[kChunk];
    unpack<dtype>(packed, v);
    unpack<dtype>(other, added);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] += added[i];
    pack<dtype>(v, packed);
    store_chunk<dtype, kWhole>(const_cast<char*>(element<dtype>(hidden, row * k)), at, k, packed);
    return packed;
  }
  __device__ void normalize(Packed<dtype>& packed, int64_t at, float inverse_rms) const {
    float v[kChunk], gain[kChunk];
    unpack<dtype>(packed, v);
    unpack<dtype>(load_chunk<dtype, false, kWhole>(weight, at, k), gain);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] *= inverse_rms;
    round_all<dtype>(v);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] = at + i < k ? v[i] * gain[i] : 0.0f;
    pack<dtype>(v, packed);
  }
};

template <DType dtype, bool kWhole>
struct SiluMul {
  static constexpr DType kType = dtype, kKept = dtype;
  static constexpr bool kMovesWhole = kWhole;
  static constexpr bool kSums = false;
  static constexpr int kChunks = 4, kMaxThreads = 512;
  const void* gate_up;
  int64_t x_stride, k;

  __device__ Packed<dtype> load(int64_t row, int64_t at) const {
    const char* gates = element<dtype>(gate_up, row * x_stride);
    float gate[kChunk], up[kChunk];
    unpack<dtype>(load_chunk<dtype, true, kWhole>(gates, at, k), gate);
    unpack<dtype>(load_chunk<dtype, true, kWhole>(element<dtype>(gates, k), at, k), up);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) gate[i] = divide(gate[i], 1.0f + exp_f32(-gate[i]));  // silu_f32
    round_all<dtype>(gate);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) gate[i] *= up[i];
    Packed<dtype> packed;
    pack<dtype>(gate, packed);
    return packed;
  }
  __device__ void normalize(Packed<dtype>&, int64_t, float) const {}
};

// ---- the kernel

struct RowOutput {
  void* out;  // codes, or for Format::none values
  float* scale;
  int64_t m, k, stride = k;  // stride: from one row of codes to the next
};

// Chunks of the row that this thread has, in order: f(chunk to read and write, its first element).
template <DType dtype, int kKept, class F>
PW_DEVICE void for_chunks(Packed<dtype> (&kept)[kKept], Packed<dtype>* spilled, int thread, int threads, int64_t k,
                          F f) {
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int64_t at = (static_cast<int64_t>(i) * threads + thread) * kChunk;
    if (at < k) f(kept[i], at);
  }
#pragma unroll 1  // four at once would need a stack
  for (int64_t i = kKept; (i * threads + thread) * kChunk < k; ++i)
    f(spilled[(i - kKept) * threads + thread], (i * threads + thread) * kChunk);
}

template <class Producer, Format format, int kChunks, bool kWarp>
__global__ void __launch_bounds__(kWarp ? 128 : Producer::kMaxThreads, 1)
    quantize_rows(Producer producer, RowOutput output) {
  constexpr DType kKept = Producer::kKept;
  constexpr bool kWhole = Producer::kMovesWhole;
  PW_DYNAMIC_SHARED(dynamic);
  __shared__ uint32_t sum_slots[32], max_slots[32];
  Packed<kKept>* spilled = reinterpret_cast<Packed<kKept>*>(dynamic);
  const int64_t row = kWarp ? static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y : blockIdx.x;
  if (kWarp && row >= output.m) return;
  const int thread = threadIdx.x, threads = blockDim.x;
  const int64_t k = output.k;

  Packed<kKept> kept[kChunks];
  float v[kChunk];
  for_chunks<kKept>(kept, spilled, thread, threads, k,
                    [&](Packed<kKept>& chunk, int64_t at) { chunk = producer.load(row, at); });

  float inverse_rms = 0.0f;
  if constexpr (Producer::kSums) {
    float sum = 0.0f;
    for_chunks<kKept>(kept, spilled, thread, threads, k, [&](Packed<kKept>& chunk, int64_t) {
      unpack<kKept>(chunk, v);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) sum = fma_f32(v[i], v[i], sum);
    });
    inverse_rms = inverse_root(fma_f32(group_sum<kWarp>(sum, sum_slots), producer.inverse_k, producer.eps));
  }

  if constexpr (format == Format::none) {
    for_chunks<kKept>(kept, spilled, thread, threads, k, [&](Packed<kKept>& chunk, int64_t at) {
      producer.normalize(chunk, at, inverse_rms);
      store_chunk<kKept, kWhole>(const_cast<char*>(element<kKept>(output.out, row * k)), at, k, chunk);
    });
  } else {
    uint32_t most = 0;
    for_chunks<kKept>(kept, spilled, thread, threads, k, [&](Packed<kKept>& chunk, int64_t at) {
      producer.normalize(chunk, at, inverse_rms);
      unpack<kKept>(chunk, v);
      most = max_bits(most, v);
    });
    const float scale = row_scale(group_max<kWarp>(most, max_slots), format == Format::int8 ? 127.0f : 448.0f);
    if (thread == 0) output.scale[row] = scale;
    const Divisor divisor = make_divisor(scale);
    uint8_t* codes = static_cast<uint8_t*>(output.out) + row * output.stride;
    for_chunks<kKept>(kept, spilled, thread, threads, k, [&](Packed<kKept>& chunk, int64_t at) {
      unpack<kKept>(chunk, v);
      store_codes<kWhole>(codes, at, k, make_codes<format>(v, divisor));
    });
  }
}

// ---- geometry

struct Geometry {
  bool warp;
  int threads, kept;
  int64_t shared_bytes;
};

static inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A warp per row where a row is short; a block with one chunk per thread where rows are few and latency is all; else a
// block with `most_kept`, so that each thread has 64 bytes on their way. Ragged rows go by one chunk per thread always.
static Geometry geometry(int64_t m, int64_t k, DType kept_as, bool whole, int most_kept, int most_threads,
                         const Card& card) {
  const int64_t chunks = divide_up(k, kChunk), chunk_bytes = kept_as == DType::f32 ? 32 : 16;
  if (whole && chunks <= 32 * most_kept && m >= 4 * card.multiprocessors) return {true, 32, most_kept, 0};
  const int kept = !whole || (chunks <= most_threads && m < 2 * card.multiprocessors) ? 1 : most_kept;
  const int64_t threads = round_up(divide_up(chunks, kept), 32);
  if (threads <= most_threads) return {false, static_cast<int>(threads), kept, 0};
  return {false, most_threads, kept, (divide_up(chunks, most_threads) - kept) * most_threads * chunk_bytes};
}

template <Format format, class Producer>
static int launch_rows(const Producer& producer, const RowOutput& output, const CudaCall& call) {
  constexpr int kChunks = Producer::kChunks;
  const Geometry g =
      geometry(output.m, output.k, Producer::kKept, Producer::kMovesWhole, kChunks, Producer::kMaxThreads, call.card);
  if constexpr (Producer::kMovesWhole) {
    if (g.warp)
      return launch(quantize_rows<Producer, format, kChunks, true>, dim3(divide_up(output.m, 4)), dim3(32, 4), 0,
                    call.stream, producer, output);
    if (g.kept > 1)
      return launch(quantize_rows<Producer, format, kChunks, false>, dim3(output.m), dim3(g.threads), g.shared_bytes,
                    call.stream, producer, output);
  }
  return launch(quantize_rows<Producer, format, 1, false>, dim3(output.m), dim3(g.threads), g.shared_bytes, call.stream,
                producer, output);
}

}  // namespace pennyweight::cuda
