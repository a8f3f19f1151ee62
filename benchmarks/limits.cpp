// SPDX-License-Identifier: Apache-2.0
// limits.cpp: what this machine can do at most, to judge kernels by: memory read bandwidth and the peaks of the
// instructions that the kernels are made of. Built by roofline.py for the machine at hand (-march=native); one
// function:
//
//   double limit(int what, int threads, void* buffer, long bytes)    bytes per second (0) or operations per second
//
// An operation is a multiplication or an addition. 0 where the processor lacks the instruction.
#include <immintrin.h>

#include <chrono>
#include <thread>
#include <vector>

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Runs work(thread) on every thread at once; the time of the slowest, thread start included.
template <class F>
double timed(int threads, F work) {
  std::vector<std::thread> others;
  const double begin = seconds();
  for (int i = 1; i < threads; ++i) others.emplace_back(work, i);
  work(0);
  for (auto& t : others) t.join();
  return seconds() - begin;
}

#if defined(__AVX512F__)
using Register = __m512i;
#else
using Register = __m256i;
#endif

// Four streams per thread, so that several pages are open at once.
double read_bandwidth(int threads, const char* buffer, long bytes) {
  const long quarter = bytes / threads / 4 / 4096 * 4096;
  const double time = timed(threads, [=](int thread) {
    Register sum[4] = {};
    const char* base = buffer + thread * 4 * quarter;
    for (long i = 0; i < quarter; i += sizeof(Register))
      for (int s = 0; s < 4; ++s) sum[s] ^= *reinterpret_cast<const Register*>(base + s * quarter + i);
    asm volatile("" : : "x"(sum[0]), "x"(sum[1]), "x"(sum[2]), "x"(sum[3]));
  });
  return 4.0 * quarter * threads / time;
}

constexpr long kSteps = 20'000'000;
constexpr int kChains = 12;  // independent accumulators: more than latency times ports of any x86

// kSteps rounds of kChains independent instructions; operations per second when each does `operations`. `step` is one
// instruction written in assembly: compilers move intrinsics' accumulators through memory here.
template <class V, class F>
double peak(int threads, int operations, V start, F step) {
  const double time = timed(threads, [=](int) {
    V a = start, b = start, c = start, d = start, e = start, f = start;
    V g = start, h = start, i = start, j = start, k = start, l = start;
    for (long n = 0; n < kSteps; ++n) {
      step(a), step(b), step(c), step(d), step(e), step(f);
      step(g), step(h), step(i), step(j), step(k), step(l);
    }
  });
  return static_cast<double>(kSteps) * kChains * operations * threads / time;
}

double fma_peak(int threads) {
#if defined(__AVX512F__)
  const __m512 x = _mm512_set1_ps(0.5f);
  return peak(threads, 32, x, [x](__m512& v) { asm volatile("vfmadd231ps %1, %1, %0" : "+v"(v) : "v"(x)); });
#elif defined(__FMA__)
  const __m256 x = _mm256_set1_ps(0.5f);
  return peak(threads, 16, x, [x](__m256& v) { asm volatile("vfmadd231ps %1, %1, %0" : "+x"(v) : "x"(x)); });
#else
  return 0;
#endif
}

double vnni_peak(int threads) {
#if defined(__AVX512VNNI__)
  const __m512i x = _mm512_set1_epi8(1);
  return peak(threads, 128, x, [x](__m512i& v) { asm volatile("vpdpbusd %1, %1, %0" : "+v"(v) : "v"(x)); });
#else
  return 0;
#endif
}

double bf16_peak(int threads) {
#if defined(__AVX512BF16__)
  const __m512 x = _mm512_castsi512_ps(_mm512_set1_epi16(0x3f00));
  return peak(threads, 64, x, [x](__m512& v) { asm volatile("vdpbf16ps %1, %1, %0" : "+v"(v) : "v"(x)); });
#else
  return 0;
#endif
}

}  // namespace

extern "C" double limit(int what, int threads, void* buffer, long bytes) {
  switch (what) {
    case 0:
      return read_bandwidth(threads, static_cast<const char*>(buffer), bytes);
    case 1:
      return vnni_peak(threads);
    case 2:
      return bf16_peak(threads);
    default:
      return fma_peak(threads);
  }
}
